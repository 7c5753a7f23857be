"""The JupyterLab panel of mlsys-studio. All it does is in the browser; this package only says where those files are."""

from __future__ import annotations

__version__ = "0.1.0"


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Read by `jupyter-builder develop`."""
    return [{"src": "labextension", "dest": "mlsys-studio-lab"}]
