"""The user's cell under `%%mlsys`: compiled once, run in their namespace, its errors shown as if we were not there."""

from __future__ import annotations

import ast
import inspect
from types import CodeType, TracebackType

from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell

from ..profilers.errors import UsageError


class CellSyntaxError(Exception):
    """A cell that does not parse, shown as IPython shows it. Not a SyntaxError: IPython would add our frames to one."""

    def __init__(self, error: SyntaxError, shell: InteractiveShell) -> None:
        super().__init__(str(error))
        self._shown = shell.SyntaxTB.structured_traceback(type(error), error)

    def _render_traceback_(self) -> list[str]:
        return self._shown


class Cell:
    """The code under a `%%mlsys` line. `header` is that line: it keeps line numbers as the user sees them."""

    def __init__(self, source: str, *, header: str, verb: str, shell: InteractiveShell) -> None:
        self.source = source
        self._shell = shell
        try:
            code = shell.transform_cell(source)
            self._file = shell.compile.cache(
                f"#{header}\n{code}", shell.execution_count, raw_code=f"{header}\n{source}"
            )
            tree = shell.compile.ast_parse(f"\n{code}", self._file)
            silent = DisplayHook.semicolon_at_end_of_expression(code)
            tree = shell.transform_ast(tree)
            shown = not silent and bool(tree.body) and isinstance(tree.body[-1], ast.Expr)
            body, last = (tree.body[:-1], tree.body[-1:]) if shown else (tree.body, [])
            self._body = self._compile(ast.Module(body, []), "exec")
            self._last = self._compile(ast.Interactive(last), "single") if last else None
            self._last_unshown = self._compile(ast.Module(last, []), "exec")
        except SyntaxError as error:
            raise CellSyntaxError(error, shell) from None
        if any(code and code.co_flags & inspect.CO_COROUTINE for code in (self._body, self._last)):
            says = "this cell awaits, and a cell magic cannot"
            raise UsageError(f"{says}; leave %%mlsys out and write `with mlsys_studio.{verb}():` around the code.")

    def run(self, *, display: bool = True) -> None:
        """See `studio.registry.Code`."""
        last = self._last if display else self._last_unshown
        try:
            for code in (self._body, last):
                if code:
                    exec(code, self._shell.user_global_ns, self._shell.user_ns)  # noqa: S102 - the user's own code
        except BaseException as error:  # KeyboardInterrupt too: it goes on, and stops "run all"
            self._hide_our_frames(error)
            raise

    def _compile(self, tree: ast.Module | ast.Interactive, mode: str) -> CodeType:
        with self._shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
            return self._shell.compile(tree, self._file, mode)  # type: ignore[arg-type]

    def _hide_our_frames(self, error: BaseException) -> None:
        """IPython asks an exception how it wants to be shown; this one starts at the user's first line."""
        shell, trace = self._shell, error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename != self._file:
            trace = trace.tb_next

        def render(trace: TracebackType | None = trace) -> list[str]:
            return shell.InteractiveTB.structured_traceback(type(error), error, trace, tb_offset=0)

        error._render_traceback_ = render  # type: ignore[attr-defined]
