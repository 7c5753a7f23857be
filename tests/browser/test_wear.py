"""What long use does: reloads, interrupts, kills, several pages on one kernel. Never a second sampler, never a leftover.

Witness: /proc for processes, the runtime folder for files, the kernel's own list for subshells.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE_MS, SCREENS, Server
from lab import Lab, command
from test_now import BUSY, samplers

pytestmark = pytest.mark.slow

SUBSHELLS = "print(len(get_ipython().kernel.shell_channel_thread.manager.list_subshell()))"

# As if this browser had used no subshell for an hour, but those of the page itself where they are `kept`.
AGE = """kept => {
    const name = 'mlsys-studio:subshells', all = JSON.parse(localStorage.getItem(name));
    const own = kept ? Object.keys(sessionStorage).map(key => sessionStorage.getItem(key)) : [];
    for (const ids of Object.values(all))
        for (const id of Object.keys(ids)) if (!own.includes(id)) ids[id] -= 3600e3;
    localStorage.setItem(name, JSON.stringify(all));
}"""
FROZEN = """() => {
    const set = Storage.prototype.setItem;
    Storage.prototype.setItem = function (key, value) {
        if (key !== 'mlsys-studio:subshells') set.call(this, key, value);
    };
}"""


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "not in time"
        time.sleep(0.1)


def kernel_id(server: Server) -> str:
    (session,) = server.get("api/sessions")
    return session["kernel"]["id"]


def post(server: Server, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/{path}", b"", method="POST"), timeout=30).close()


def test_fifty_reloads_keep_one_sampler_and_one_subshell(server, context):
    lab = Lab(context, server).open(server.write("reloads.ipynb", SUBSHELLS))
    lab.until_state("live")
    lab.until_samples(0)
    process = int(lab.data("pid"))
    (first,) = samplers(process)
    for _ in range(50):
        lab.page.reload(wait_until="domcontentloaded")
        lab.page.locator("#mlsys-panel").wait_for(state="attached")
        lab.page.wait_for_selector('#mlsys-panel[data-state="live"]', state="attached")
        assert samplers(process) == [first]
    assert len(server.rings()) == 1
    lab.run(0)
    lab.until_run(0)
    assert lab.cell(0).locator(".jp-OutputArea-output").inner_text().strip() == "1"
    server.shut_down_kernels()
    until(lambda: not server.rings() and not Path(f"/proc/{first}").exists())


def test_two_pages_on_one_kernel(server, context):
    name = server.write("shared.ipynb", SUBSHELLS)
    first, second = Lab(context, server).open(name), Lab(context, server)
    first.until_state("live")
    open_beside(second, name)
    first.page.bring_to_front()
    first.until_samples(first.samples())
    assert first.data("pid") == second.data("pid")
    assert len(samplers(int(first.data("pid")))) == 1 and len(server.rings()) == 1
    first.run(0)
    first.until_run(0)
    assert first.cell(0).locator(".jp-OutputArea-output").inner_text().strip() == "2"
    # A closed page leaves its subshell, and touches nothing of the other's. Unused for long, the next page takes it away.
    second.page.close()
    first.until_samples(first.samples())
    first.page.evaluate(AGE, True)
    first.page.reload(wait_until="domcontentloaded")
    first.until_state("live")
    first.run(0)
    first.until_run(0, count=2)
    assert first.cell(0).locator(".jp-OutputArea-output").inner_text().strip() == "1"
    assert first.errors == []


def open_beside(lab: Lab, name: str) -> None:
    """In a workspace of its own, as a second page must be."""
    lab.page.goto(f"{lab.server.url}/lab/workspaces/second/tree/{name}", wait_until="domcontentloaded")
    lab.show_panel()
    lab.until_state("live")
    lab.until_samples(0)


def test_a_page_frozen_for_long_gets_another_subshell(server, context):
    """What it had was taken for forgotten by the other page."""
    name = server.write("frozen.ipynb", SUBSHELLS)
    first = Lab(context, server).open(name)
    first.until_state("live")
    first.until_samples(0)
    kept = f"sessionStorage.getItem('mlsys-studio:subshell:{kernel_id(server)}')"
    taken = first.page.evaluate(kept)
    first.page.evaluate(FROZEN)
    second = Lab(context, server)
    second.page.goto(f"{server.url}/api/status")  # of the same origin, so of the same notes
    second.page.evaluate(AGE, False)
    open_beside(second, name)
    first.page.bring_to_front()
    first.page.wait_for_function(f"![null, {taken!r}].includes({kept})")
    first.until_state("live")
    first.run(0)
    first.until_run(0)
    assert first.cell(0).locator(".jp-OutputArea-output").inner_text().strip() == "2"
    assert first.errors == []


def test_twenty_interrupts_and_a_kill(server, context):
    """One interrupt a run, as a user has them: two within a moment can hit ipykernel itself, which then never replies."""
    mark = server.folder / "began"
    code = f"open({str(mark)!r}, 'w').close()\n{BUSY.format(seconds=600)}"
    lab = Lab(context, server).open(server.write("interrupts.ipynb", "1", code))
    lab.run(0)
    lab.until_run(0)
    lab.until_state("live")
    lab.until_samples(0)
    process = int(lab.data("pid"))
    (sampler,) = samplers(process)
    for _ in range(20):
        lab.run(1)
        until(mark.exists)
        mark.unlink()
        post(server, f"api/kernels/{kernel_id(server)}/interrupt")
        lab.until_run(1)
    lab.until_samples(lab.samples() + 2)
    assert samplers(process) == [sampler]
    os.kill(process, signal.SIGKILL)  # Jupyter starts another
    until(lambda: not Path(f"/proc/{sampler}").exists())
    lab.page.wait_for_function(f"![{process}, 0].includes(+document.querySelector('#mlsys-panel').dataset.pid)")
    assert len(samplers(int(lab.data("pid")))) == 1
    until(lambda: len(server.rings()) == 1)
    assert lab.errors == []


def test_dark_theme_and_a_panel_of_380_pixels(server, context):
    server.write("dark.ipynb", "hold = bytearray(10**8)", "1 / 0")
    lab = Lab(context, server).open("dark.ipynb")
    lab.until_state("live")
    lab.run(1)
    lab.until_run(1)
    lab.panel.locator('[data-section="diagnosis"]').wait_for()
    use_theme(lab, "Dark")
    widen(lab, 380)
    lab.until_samples(lab.samples() + 4)
    heights = set()
    for _ in range(20):  # values change, and nothing moves
        heights.add(lab.panel.locator('[data-section="kernels"]').bounding_box()["y"])
        time.sleep(0.1)
    assert max(heights) - min(heights) < 2
    assert lab.cut_off() == []
    lab.screenshot(SCREENS, "dark")
    assert contrasts(lab) == {}
    use_theme(lab, "Light")
    assert contrasts(lab) == {}
    assert lab.cut_off() == []
    lab.screenshot(SCREENS, "light")


def use_theme(lab: Lab, name: str) -> None:
    """Until JupyterLab's splash has gone: while it is there it takes what the mouse does."""
    lab.command(f"Use Theme: JupyterLab {name}")
    lab.page.wait_for_selector(f'body[data-jp-theme-light="{str(name == "Light").lower()}"]', state="attached")
    lab.page.locator("#jupyterlab-splash").wait_for(state="hidden")


def widen(lab: Lab, width: int) -> None:
    """By the handle beside it; a page that is still laid out anew lets go of it."""
    for _ in range(10):
        box = lab.panel.bounding_box()
        if abs(box["width"] - width) < 6:
            return
        grip, height = box["x"] - 3, box["y"] + 300
        lab.page.mouse.move(grip, height)
        lab.page.mouse.down()
        for share in (0.5, 1):
            lab.page.mouse.move(grip - share * (width - box["width"]), height, steps=5)
        lab.page.mouse.up()
        lab.page.wait_for_timeout(500)
    raise AssertionError(f"the panel is {box['width']} wide")


def contrasts(lab: Lab) -> dict[str, float]:
    """Of the kinds of text in the panel, those below WCAG's 4.5 on what lies behind them."""
    found = {}
    for kind in (".mlsys-name", ".mlsys-value", ".mlsys-detail", ".mlsys-sentence", ".mlsys-said", ".mlsys-link", ".mlsys-button"):  # fmt: skip
        ink, *papers = lab.panel.locator(kind).first.evaluate(COLOURS)
        found[kind] = contrast(ink, papers)
    return {kind: ratio for kind, ratio in found.items() if ratio < 4.5}


COLOURS = """node => {
    const colours = [getComputedStyle(node).color];
    for (let under = node; under; under = under.parentElement) colours.push(getComputedStyle(under).backgroundColor);
    return colours;
}"""


def contrast(ink: str, papers: list[str]) -> float:
    """WCAG's ratio of two CSS colours, which may let through what is behind them. `papers` from the top one down."""
    seen = (255.0, 255.0, 255.0)
    for colour in reversed(papers):
        seen = over(colour, seen)
    high, low = sorted((luminance(over(ink, seen)), luminance(seen)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def over(colour: str, behind: tuple[float, ...]) -> tuple[float, ...]:
    *channels, opaque = [*map(float, re.findall(r"[\d.]+", colour)), 1.0][:4]
    return tuple(opaque * c + (1 - opaque) * b for c, b in zip(channels, behind, strict=True))


def luminance(channels: tuple[float, ...]) -> float:
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in channels))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_by_keyboard(server, context):
    lab = Lab(context, server).open(server.write("keys.ipynb", "1"))
    lab.until_state("live")
    heading = lab.panel.get_by_role("button", name="Now")
    heading.focus()
    lab.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-expanded") == "false"
    assert not lab.panel.locator(".mlsys-meter").first.is_visible()
    lab.page.keyboard.press("Enter")
    lab.page.keyboard.press("Tab")
    assert lab.page.evaluate("document.activeElement.className") == "mlsys-chart"
    lab.until_samples(3)
    lab.page.keyboard.press("ArrowLeft")
    lab.page.wait_for_function("/ago/.test(document.querySelector('.mlsys-axis').textContent)")
    lab.page.keyboard.press("Escape")
    lab.page.wait_for_function("/^last/.test(document.querySelector('.mlsys-axis').textContent)")
    label = lab.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("CPU: ")


def test_notebook_7(browser, tmp_path):
    pytest.importorskip("notebook")
    server = Server(tmp_path, "notebook")
    try:
        server.write("seven.ipynb", BUSY.format(seconds=3))
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(error.stack or str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(f"{server.url}/notebooks/seven.ipynb", wait_until="domcontentloaded")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
        command(page, "Show the Kernel Monitor")
        page.wait_for_selector('#mlsys-panel[data-state="live"]')
        page.wait_for_function("+document.querySelector('#mlsys-panel').dataset.samples > 2")
        page.screenshot(path=SCREENS / "notebook7.png")
        assert [error for error in errors if "mlsys-studio-lab" in error] == []  # Notebook 7.6 has one of its own
        context.close()
    finally:
        server.shut_down_kernels()
        server.end()


def test_forty_kernels_and_names_with_script(server, context):
    """The section lists what the server says; the names are a user's own."""
    name = server.write("<img src=x onerror=alert(1)>.ipynb", "1")
    rows = [
        {"id": f"s{i}", "path": f"{'<script>alert(1)</script>' * 3}{i}.ipynb", "name": "", "type": "notebook", "kernel": {"id": f"k{i}", "name": "python3", "last_activity": "2026-01-01T00:00:00Z", "execution_state": "idle", "connections": 1}, "notebook": {"path": "", "name": ""}}
        for i in range(40)
    ]  # fmt: skip
    said: list[str] = []

    def more(route) -> None:
        if route.request.method != "GET":
            return route.continue_()
        return route.fulfill(body=json.dumps([*route.fetch().json(), *rows]), content_type="application/json")

    context.route("**/api/sessions?*", more)
    context.route("**/api/sessions", more)
    lab = Lab(context, server)
    lab.page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    lab.open(name)
    lab.until_state("live")
    lab.panel.locator(".mlsys-kernels li").nth(40).wait_for()
    assert lab.panel.locator(".mlsys-kernels script, .mlsys-kernels img").count() == 0
    assert said == [] and lab.errors == []
