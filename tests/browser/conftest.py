"""A real JupyterLab and a real browser: one server and one Chromium for all tests here, a fresh page for each.

Skipped, with the reason, where Playwright, Chromium or the built extension is missing. Screenshots of what was seen lie
under reports/screens/.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCREENS = ROOT / "reports" / "screens"
EXTENSION = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "mlsys-studio-lab"
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
PATIENCE_MS = 180_000  # a busy machine takes its time; nothing here waits for it to pass
# Of a run that was killed, the kernels and then the server end by themselves.
LEFT_ALONE = ("--MappingKernelManager.cull_idle_timeout=120", "--MappingKernelManager.cull_interval=60", "--ServerApp.shutdown_no_activity_timeout=180")  # fmt: skip
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing() -> str:
    """Why nothing can be tested here; "" where it can."""
    try:
        import jupyterlab  # noqa: F401
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    if not chromium():
        return "no Chromium: apt-get install chromium"
    if not (EXTENSION / "package.json").exists():
        return "the extension is not installed: pip install ./extensions/lab"
    return ""


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if Path(item.path).parent == Path(__file__).parent and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


class Server:
    """JupyterLab on a port of its own, with a folder of notebooks."""

    def __init__(self, folder: Path, app: str = "lab") -> None:
        self.folder = folder
        self.runtime = folder / ".runtime"
        self.runtime.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_CONFIG_DIR": str(folder / ".jupyter"),
            "JUPYTER_DATA_DIR": str(folder / ".data"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "IPYTHONDIR": str(folder / ".ipython"),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("MLSYS_DISABLE", None)
        overrides = folder / ".jupyter" / "labconfig"
        overrides.mkdir(parents=True)
        (overrides / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
        self._log = (folder / f".{app}.log").open("wb")
        options = (f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.open_browser=False", f"--ServerApp.root_dir={folder}", "--ServerApp.allow_root=True", "--ServerApp.disable_check_xsrf=True")  # fmt: skip
        options += LEFT_ALONE
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"jupyter{app}" if app == "lab" else app, *options],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        limit = time.monotonic() + 90
        while time.monotonic() < limit:
            try:
                self.get("api/status")
                return
            except OSError:
                assert self._process.poll() is None, (folder / f".{app}.log").read_text()
                time.sleep(0.1)
        raise AssertionError(f"no answer from {self.url}")

    def get(self, path: str):
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=10) as reply:
            return json.load(reply)

    def delete(self, path: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", method="DELETE"), timeout=10).close()

    def write(self, name: str, *cells: str) -> str:
        """A notebook of these code cells; returns its name."""
        import nbformat

        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, self.folder / name)
        return name

    def shut_down_kernels(self) -> None:
        for session in self.get("api/sessions"):
            self.delete(f"api/sessions/{session['id']}")

    def rings(self) -> list[Path]:
        return list(self.runtime.glob("mlsys-studio-*/*"))

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("lab"))
    yield server
    server.shut_down_kernels()
    server.end()


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=QUIET)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call):
    """Of a failed test, what its pages showed."""
    report = yield
    if report.when == "call" and report.failed and "context" in getattr(item, "funcargs", {}):
        SCREENS.mkdir(parents=True, exist_ok=True)
        for i, page in enumerate(item.funcargs["context"].pages):
            page.screenshot(path=SCREENS / f"failed-{item.name}-{i}.png")
    return report


@pytest.fixture
def context(browser, server: Server):
    """A browser's memory of its own."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, device_scale_factor=1)
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()
    server.shut_down_kernels()
