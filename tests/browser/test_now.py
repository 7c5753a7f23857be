"""The live monitor in a browser: it moves while a cell runs, follows the user, and leaves the notebook alone."""

from __future__ import annotations

import time

import pytest
from conftest import SCREENS
from lab import LOOP, TRAINING, Lab

BUSY = "import time\nbegan = time.time()\nwhile time.time() - began < {seconds}: sum(range(1000))"


def children(process: int) -> list[int]:
    from pathlib import Path

    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(word) for file in lists for word in file.read_text().split()]


def samplers(process: int) -> list[int]:
    from pathlib import Path

    return [p for p in children(process) if b"sampling.sampler" in Path(f"/proc/{p}/cmdline").read_bytes()]


def test_values_move_while_a_cell_runs(server, context):
    seen = server.folder / "seen"
    turns = BUSY.format(seconds=0.2).replace("\n", "\n    ")
    code = f"import os\nwhile not os.path.exists({str(seen)!r}):\n    {turns}"
    lab = Lab(context, server).open(server.write("moves.ipynb", code))
    said = lab.until_state("live")
    assert said.startswith("Live from ")
    first = lab.until_samples(0)
    lab.run(0)
    status = lab.page.evaluate(
        """async () => {
        const seen = {}, node = document.querySelector('.jp-Notebook-ExecutionIndicator'), began = performance.now();
        await new Promise(done => setTimeout(done, 500));
        while (performance.now() - began < 3500) {
            const bar = /\\| (\\w+)/.exec(document.querySelector('#jp-main-statusbar').textContent)[1];
            const both = `${node.dataset.status} ${bar.slice(0, 4).toLowerCase()}`;
            seen[both] = (seen[both] ?? 0) + 1;
            await new Promise(done => setTimeout(done, 5));
        }
        return seen;
    }"""
    )
    assert lab.until_samples(first + 3) > first + 3  # and the cell has not ended:
    assert lab.cell(0).locator(".jp-InputPrompt").first.inner_text() == "[*]:"
    lab.screenshot(SCREENS, "now")
    assert lab.cut_off() == []
    values = lab.panel.locator('[data-section="now"] .mlsys-value').all_inner_texts()
    assert any("cores" in value for value in values) and any("GiB" in value for value in values)
    # The toolbar's indicator and the status bar say what the user's cell does, and nothing of our questions.
    assert status.get("busy busy", 0) > 0.98 * sum(status.values()), status
    seen.touch()
    lab.until_run(0, count=1)
    assert lab.cell(0).locator(".jp-OutputArea-output").count() == 0
    assert lab.page.inner_text(".mlsys-status").startswith("Mem ")
    assert lab.errors == []


def test_restart_and_switch(server, context):
    """Each notebook's kernel has one sampler, and the panel says whose machine it shows."""
    lab = Lab(context, server).open(server.write("first.ipynb", "1"))
    lab.until_state("live")
    lab.until_samples(0)
    first = int(lab.data("pid"))
    assert len(samplers(first)) == 1
    lab.page.evaluate("document.querySelector('#mlsys-panel').dataset.pid = ''")
    lab.command("Restart Kernel…")
    lab.page.locator(".jp-Dialog .jp-mod-accept").click()
    lab.page.wait_for_function(f"![{first}, 0].includes(+document.querySelector('#mlsys-panel').dataset.pid)")
    second = int(lab.data("pid"))
    assert len(samplers(second)) == 1
    limit = time.monotonic() + 10
    while len(server.rings()) > 1 and time.monotonic() < limit:
        time.sleep(0.1)
    assert len(server.rings()) == 1  # the first kernel's is gone with it

    name = server.write("second.ipynb", "2")
    lab.page.goto(f"{server.url}/lab/tree/{name}", wait_until="domcontentloaded")
    lab.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    lab.show_panel()
    lab.page.wait_for_function(f"![{second}, 0].includes(+document.querySelector('#mlsys-panel').dataset.pid)")
    assert lab.errors == []


def test_a_kernel_without_the_package_is_told_what_to_type(server, context):
    hide = "import sys\nfor name in [n for n in sys.modules if n.startswith('mlsys')]: del sys.modules[name]\nsys.meta_path.insert(0, type('Hide', (), {'find_spec': staticmethod(lambda name, *_: (_ for _ in ()).throw(ModuleNotFoundError(f\"No module named {name!r}\", name=name)) if name == 'mlsys_studio' else None)}))"  # fmt: skip
    lab = Lab(context, server).open(server.write("bare.ipynb", hide), panel=False)
    lab.cell(0).wait_for()
    lab.run(0)
    lab.until_run(0)
    lab.show_panel()
    assert "lacks mlsys-studio; run %pip install mlsys-studio" in lab.until_state("not-installed")
    assert lab.errors == []


@pytest.mark.slow
def test_a_training_loop_shows_its_steps(server, context):
    name = server.write("steps.ipynb", TRAINING, "%load_ext mlsys_studio", f"%%mlsys profile --mode light\nfor epoch in range(16):\n    {LOOP.replace(chr(10), chr(10) + '    ')}")  # fmt: skip
    lab = Lab(context, server).open(name)
    for index in (0, 1):
        lab.run(index)
        lab.until_run(index)
    lab.until_state("live")
    lab.run(2)
    step = lab.panel.locator(".mlsys-meter", has_text="Step").first
    step.wait_for(state="visible")
    # Witness: the dataset sleeps 8 x 1 ms a batch, and a machine that is no slower than ten times that, once it is warm.
    lab.page.wait_for_function(
        """() => {
        const said = document.querySelector('#mlsys-panel .mlsys-meter .mlsys-value').textContent;
        const rate = /([\\d.]+)\\/s/.exec(said);
        return rate !== null && +rate[1] > 12 && +rate[1] < 125;
    }"""
    )
    assert "waiting for data" in step.inner_text()
    lab.screenshot(SCREENS, "steps")
    lab.until_run(2)
    assert lab.errors == []
