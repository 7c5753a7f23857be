"""JupyterLab as a user has it before them: what they open, run and read, in the words of the tests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

TRAINING = """\
import time, torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
torch.set_num_threads(1)
torch.manual_seed(0)

class Slow(Dataset):
    def __len__(self):
        return 640
    def __getitem__(self, index):
        time.sleep(0.001)
        return torch.randn(64), index % 4

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 4))
optimizer = torch.optim.AdamW(model.parameters())
loader = DataLoader(Slow(), batch_size=8)"""

LOOP = """\
for x, y in loader:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()"""


def command(page: Any, words: str) -> None:
    """Through the command palette, as with Ctrl+Shift+C, which a page that still starts does not hear."""
    box = page.locator(".jp-ModalCommandPalette input")
    while not box.is_visible():
        page.keyboard.press("Control+Shift+C")
        page.wait_for_timeout(500)
    box.fill(words)
    page.locator(".jp-ModalCommandPalette .lm-CommandPalette-item").first.click()


class Lab:
    """One page on one notebook."""

    def __init__(self, context: Any, server: Any) -> None:
        self.server = server
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, name: str, *, panel: bool = True) -> Lab:
        self.page.goto(f"{self.server.url}/lab/tree/{name}?reset", wait_until="domcontentloaded")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()  # the kernel is there
        if panel:
            self.show_panel()
        return self

    def show_panel(self) -> None:
        tab = self.page.locator('.jp-SideBar [data-id="mlsys-panel"]')
        tab.wait_for()
        if not self.panel.is_visible():
            tab.click()
        self.panel.wait_for(state="visible")

    @property
    def panel(self) -> Any:
        return self.page.locator("#mlsys-panel")

    def data(self, name: str) -> str:
        return self.panel.get_attribute(f"data-{name}") or ""

    def samples(self) -> int:
        return int(self.data("samples") or 0)

    def until_state(self, kind: str) -> str:
        """The sentence the panel says in that state."""
        self.page.wait_for_selector(f'#mlsys-panel[data-state="{kind}"]', state="attached")
        return self.page.inner_text("#mlsys-panel .mlsys-sentence")

    def until_samples(self, more_than: int) -> int:
        self.page.wait_for_function(f"+(document.querySelector('#mlsys-panel').dataset.samples ?? 0) > {more_than}")
        return self.samples()

    def cell(self, index: int) -> Any:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)

    def run(self, index: int) -> None:
        self.cell(index).click()
        self.page.keyboard.press("Control+Enter")

    def until_run(self, index: int, count: int | None = None) -> None:
        """Its prompt says a number: it has ended.

        JupyterLab 4.6 can drop what is run while its kernel still starts, also without our panel: the prompt is then
        empty again, and a user would run the cell again.
        """
        prompt = self.cell(index).locator(".jp-InputPrompt").first
        limit = time.monotonic() + 240
        while time.monotonic() < limit:
            said = prompt.inner_text().strip("[]: \n")
            if said.isdigit() and (count is None or int(said) == count):
                return
            if not said:
                self.run(index)
                self.page.wait_for_timeout(1000)
            time.sleep(0.05)
        raise AssertionError(f"cell {index} did not end: {prompt.inner_text()!r}")

    def command(self, words: str) -> None:
        command(self.page, words)

    def screenshot(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")

    def cut_off(self) -> list[str]:
        """Texts of the panel that are wider than their box, and boxes that reach out of the panel."""
        return self.page.evaluate(
            """() => {
            const panel = document.querySelector('#mlsys-panel'), edge = panel.getBoundingClientRect();
            return [...panel.querySelectorAll('*')].filter(node => {
                const box = node.getBoundingClientRect();
                if (box.width === 0) return false;
                const clipped = getComputedStyle(node).overflowX === 'hidden' && node.scrollWidth > node.clientWidth + 1;
                return clipped || box.right > edge.right + 1 || box.left < edge.left - 1;
            }).map(node => `${node.className}: ${node.textContent.slice(0, 60)}`);
        }"""
        )
