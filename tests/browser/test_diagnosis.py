"""From an exception or a log to its diagnosis in the panel: every part it has, none it lacks, and all of it as text."""

from __future__ import annotations

import pytest
from conftest import SCREENS
from lab import Lab

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"

# Rank 3 fails first, in line 5; rank 0 only waits for it. Names and texts are a stranger's.
LOG = f"""\
2025-03-01 10:12:13 [rank0]:[E301 10:12:13.100 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE)
2025-03-01 10:02:11 [rank3]: Traceback (most recent call last):
2025-03-01 10:02:11 [rank3]:   File "{EVIL}.py", line 7, in step
2025-03-01 10:02:11 [rank3]:     loss.backward()
2025-03-01 10:02:11 [rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. {EVIL}
2025-03-01 10:12:15 W Sending process 71 closing signal SIGTERM
"""  # fmt: skip
PARTS = ["What happened", "Evidence", "What to do", "Checks", "It could also be"]


def parts(section) -> list[str]:
    return section.locator("h4").all_inner_texts()


def test_an_exception_is_told_and_diagnosed(server, context):
    lab = Lab(context, server).open(server.write("fails.ipynb", "def inner(x):\n    return 1 / x\n\ninner(0)", "1"))
    lab.until_state("live")
    assert not lab.panel.locator('[data-section="diagnosis"]').is_visible()
    button = '[data-jp-item-name="mlsys-diagnose"]'
    lab.cell(0).click()
    assert not lab.cell(0).locator(button).first.is_visible()
    lab.run(0)
    lab.until_run(0)
    section = lab.panel.locator('[data-section="diagnosis"]')
    section.wait_for(state="visible")
    assert "ZeroDivisionError in line 4" in section.inner_text() and "division by zero" in section.inner_text()
    lab.cell(1).click()
    lab.cell(0).click()
    lab.cell(0).locator(button).first.wait_for(state="visible")
    lab.screenshot(SCREENS, "exception")
    section.get_by_role("button", name="Diagnose").click()
    lab.cell(1).locator(".cm-content", has_text="%mlsys diagnose").wait_for()
    section.get_by_text("code_error").wait_for()
    assert section.locator("ul", has_text="ZeroDivisionError: division by zero").is_visible()
    assert {"Evidence", "What to do"} <= set(parts(section)) and section.locator(".mlsys-list:empty").count() == 0
    assert lab.cut_off() == []
    section.get_by_role("button", name="Dismiss").click()
    section.wait_for(state="hidden")
    assert lab.errors == []


@pytest.mark.slow
def test_a_hostile_folder_of_logs(server, context):
    """Witness: the log above."""
    logs = server.folder / "logs"
    logs.mkdir()
    (logs / "<b>train.log").write_text(LOG)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    lab = Lab(context, server)
    said: list[str] = []
    lab.page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    lab.open(server.write("logs.ipynb", "%load_ext mlsys_studio\n%mlsys diagnose logs"))
    lab.run(0)
    lab.until_run(0)
    section = lab.panel.locator('[data-section="diagnosis"]')
    section.wait_for(state="visible")
    assert section.locator(".mlsys-title").inner_text().startswith("gpu_oom / ")
    assert set(parts(section)) <= set(PARTS) and {"What happened", "Evidence", "What to do"} <= set(parts(section))
    first = section.locator('[data-role="cause"]')
    assert first.count() == 1 and "rank 3" in first.inner_text() and "10:02:11" in first.inner_text()
    then = section.locator('[data-role="consequence"]').all_inner_texts()
    assert then and all("line 5" not in text for text in then) and any("line 6" in text for text in then)
    evidence = section.locator("ul").first
    assert "<b>train.log · line 5 · rank 3" in evidence.inner_text() and EVIL in evidence.inner_text()
    assert section.locator("img, script, a").count() == 0
    assert lab.cut_off() == []
    lab.screenshot(SCREENS, "diagnosis")
    command = section.locator(".mlsys-command").first
    code = command.locator("code").inner_text()
    command.get_by_role("button", name="Copy").click()
    assert lab.page.evaluate("navigator.clipboard.readText()") == code
    command.get_by_role("button", name="Insert").click()
    lab.cell(1).locator(".cm-content", has_text=code).wait_for()
    assert lab.cell(1).locator(".jp-InputPrompt").first.inner_text().strip() == "[ ]:"  # the user's to run
    assert said == [] and lab.errors == []
