"""The notebook face: `%mlsys` and `%%mlsys`. This file only registers; no logic lives on this floor."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext mlsys_studio`. Loading twice is the same as loading once."""
    try:
        import IPython  # noqa: F401
    except ImportError:
        from ..profilers.errors import UsageError

        raise UsageError("IPython is not installed; type `pip install 'mlsys-studio[notebook]'`.") from None
    from .magic import register

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    from .magic import unregister

    unregister(shell)
