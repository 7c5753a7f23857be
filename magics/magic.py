"""`%mlsys` and `%%mlsys`: hand the line to the parser, the cell to the verb, and the result back to IPython."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout

from IPython.core.error import UsageError as ShownInOneLine
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import no_var_expand
from IPython.display import display

from ..profilers.errors import UsageError
from ..studio.parsing import HelpAsked, overview, parse
from ..studio.registry import Call
from ..studio.running import run, to_json
from .cell import Cell
from .line import split
from .matcher import matcher

_KEPT = ("last_type", "last_value", "last_traceback", "last_exc")


def register(shell: InteractiveShell) -> None:
    unregister(shell)

    @no_var_expand  # {x} and $x in the line are the user's Python, not IPython's to replace
    def mlsys(line: str, cell: str | None = None) -> object:
        try:
            return _perform(line, cell, shell)
        except HelpAsked as text:
            print(text)
            return None
        except UsageError as error:
            shown = ShownInOneLine(str(error))
            _leave_the_last_exception(shell, shown)
            raise shown from None

    mlsys.__doc__ = overview("%mlsys")  # what `%mlsys?` shows
    shell.magics_manager.register_function(mlsys, magic_kind="line_cell", magic_name="mlsys")
    shell.Completer.custom_matchers.append(matcher(shell))


def unregister(shell: InteractiveShell) -> None:
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("mlsys", None)
    ours = [m for m in shell.Completer.custom_matchers if getattr(m, "__module__", None) == matcher.__module__]
    for registered in ours:
        shell.Completer.custom_matchers.remove(registered)


def _leave_the_last_exception(shell: InteractiveShell, shown: BaseException) -> None:
    """IPython keeps what it showed last, for `%debug` and `%mlsys diagnose`. A mistyped line of ours is not worth that.

    It does so after this magic has raised; so what it kept is put back when the cell has ended.
    """
    kept = {name: getattr(sys, name) for name in _KEPT if hasattr(sys, name)}

    def put_back(*_: object) -> None:
        shell.events.unregister("post_run_cell", put_back)
        if getattr(sys, "last_value", None) is shown:
            for name in _KEPT:
                if name in kept:
                    setattr(sys, name, kept[name])
                elif hasattr(sys, name):
                    delattr(sys, name)

    shell.events.register("post_run_cell", put_back)


def _perform(line: str, cell: str | None, shell: InteractiveShell) -> object:
    request = parse(split(line), "%mlsys", has_cell=cell is not None)
    code = None
    if cell is not None:
        code = Cell(cell, header=f"%%mlsys {line}", verb=request.verb.name, shell=shell)
    out = sys.stdout

    def show(result: object) -> None:
        if request.json:
            print(to_json(result), file=out)
        else:
            display(result)

    with redirect_stdout(sys.stderr) if request.json else nullcontext():
        result = run(request, Call("magic", shell.user_ns, code, show))
    if request.json:
        show(result)
        return None
    return result
