"""The demo: the quickstart notebook without a browser, told as text while it runs.

    python -m mlsys_studio.studio.demo

The notebook runs in a kernel of this very Python, which sees none of the user's Jupyter or IPython settings and talks
over files instead of ports. What stays is the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..profilers.views.columns import columns, crop, wrap

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

PACKAGE, NOTEBOOK = "mlsys_studio", "00_quickstart.ipynb"
REPORT = Path("reports/quickstart.html")  # where the notebook writes it, below the kernel's folder
SHOWN = "show"  # a cell with this tag has its result printed, and not only what it prints itself
WIDTH = 80  # columns of what is told; the report's path, to be copied, may be longer
LONGEST = 600  # seconds a cell may take
NEEDS = {"nbclient": "notebook", "nbformat": "notebook", "ipykernel": "notebook", "torch": "torch"}  # and their extras

Say = Callable[[str], None]


def main() -> int:
    """Run the quickstart; 0 if every cell ran and the report is there."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({NEEDS[name] for name in missing}))
        return _fail(f"the demo needs {' and '.join(missing)}: type `pip install 'mlsys-studio[{extras}]'`")
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    began, root, said = time.time(), home(), partial(print, flush=True)
    said(f"{NOTEBOOK}, cell by cell")
    try:
        root.joinpath(REPORT).unlink(missing_ok=True)
        run(read(), root, said)
    except CellExecutionError as error:
        return _fail(f"a cell failed: {error.ename}: {error.evalue}", _uncoloured(str(error)))
    except CellTimeoutError:
        return _fail(f"a cell took longer than {LONGEST} s: this machine is too slow or too busy for the demo")
    except DeadKernelError:
        return _fail("the notebook's kernel died, most often for want of memory: free 2 GiB and try again")
    except OSError as error:
        return _fail(f"{error.filename or root}: {(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    report = root / REPORT
    if not report.is_file():
        return _fail(f"the notebook ended without writing {report}")
    said(f"\nDone in {time.time() - began:.0f} s. The report opens offline:\n{report}")
    return 0


def home() -> Path:
    """Where the report goes: the repository in a checkout, else the current folder."""
    package = Path(str(files(PACKAGE)))
    return package if (package / "pyproject.toml").is_file() else Path.cwd()


def read() -> NotebookNode:
    """The quickstart, as it is shipped with the package."""
    import nbformat

    shipped = files(PACKAGE).joinpath("notebooks", NOTEBOOK)
    return nbformat.reads(shipped.read_text(encoding="utf-8"), as_version=4)


def run(notebook: NotebookNode, folder: Path, say: Say) -> NotebookNode:
    """Execute it in `folder`, telling each cell and what it prints. Fills in the outputs; raises nbclient's errors."""
    from nbclient.exceptions import DeadKernelError

    with tempfile.TemporaryDirectory(prefix="mlsys-") as private:
        environment = os.environ | {"IPYTHONDIR": private, "JUPYTER_RUNTIME_DIR": private, "PYTHONUNBUFFERED": "1"}
        client, stopped = _client(notebook, folder, Path(private), say), []
        client.on_notebook_start = lambda notebook: _when_stopped(stopped.append)
        try:
            client.execute(env=environment)
        except (asyncio.CancelledError, DeadKernelError):
            if stopped:
                raise KeyboardInterrupt from None
            raise
    return notebook


def _when_stopped(note: Callable[[str], None]) -> None:
    """On Ctrl-C leave the cell and then the kernel; nbclient by itself takes the kernel from under the cell."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        note("stopped")
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, stop)


def _client(notebook: NotebookNode, folder: Path, private: Path, say: Say) -> NotebookClient:
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelSpecManager):
        """A kernel called python3 may be another Python's."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="this Python", language="python")

    class Client(NotebookClient):
        def create_kernel_manager(self) -> AsyncKernelManager:
            self.km = AsyncKernelManager(
                kernel_spec_manager=ThisPython(), transport="ipc", connection_file=str(private / "kernel.json")
            )
            return self.km

        def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
            narrator.heard(msg)
            return super().process_message(msg, cell, cell_index)

    narrator = Narrator(notebook, say)
    return Client(
        notebook,
        timeout=LONGEST,
        startup_timeout=120,
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=narrator.begins,
        on_cell_executed=narrator.ended,
    )


class Narrator:
    """Tells a run as it happens: which cell of how many, under which heading, what it prints, what it returns."""

    def __init__(self, notebook: NotebookNode, say: Say) -> None:
        self._say, self._began, self._partial = say, time.time(), ""
        self._titles = dict(_titles(notebook))
        self._numbers = {index: number for number, index in enumerate(self._titles, 1)}

    def begins(self, cell: NotebookNode, cell_index: int) -> None:
        if cell_index in self._titles:
            number = f"[{self._numbers[cell_index]:2} of {len(self._numbers)}, {time.time() - self._began:3.0f} s]"
            self._say(crop(f"{number} {self._titles[cell_index]}", WIDTH))

    def heard(self, message: dict[str, Any]) -> None:
        """Whole lines only: a stream may be cut anywhere."""
        if message["msg_type"] != "stream":
            return
        *lines, self._partial = (self._partial + message["content"]["text"]).split("\n")
        for line in lines:
            for piece in fitted(line, WIDTH - 4):
                self._say(f"    {piece}".rstrip())

    def ended(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        if self._partial:
            self.heard({"msg_type": "stream", "content": {"text": "\n"}})
        for output in cell.get("outputs", ()):
            if output.output_type == "error" and "raises-exception" in cell.metadata.get("tags", ()):
                self._say(f"    {output.ename}: {output.evalue}")
            elif SHOWN in cell.metadata.get("tags", ()) and "text/plain" in output.get("data", {}):
                self._say(f"\n{output.data['text/plain']}\n")


def fitted(line: str, width: int) -> list[str]:
    """The line itself, or pieces of at most `width` columns that begin below its first letter."""
    if columns(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())][: width // 2]
    return wrap(line, width, indent)


def _titles(notebook: NotebookNode) -> Iterator[tuple[int, str]]:
    """(index, what it is) of each code cell: the heading above it, and the magic that it is."""
    heading = ""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
        elif cell.cell_type == "code":
            first = cell.source.split("\n", 1)[0]
            yield index, f"{heading}: {first}" if first.startswith("%") else heading


def _uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def _fail(sentence: str, detail: str = "", code: int = 1) -> int:
    if detail:
        print(detail, file=sys.stderr)
    print(f"demo: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
