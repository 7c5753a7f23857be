"""From a cell to a finding, to a fix, to what it brought: all by the panel and the cell's buttons."""

from __future__ import annotations

import json

import pytest
from conftest import SCREENS
from lab import LOOP, TRAINING, Lab

from mlsys_studio.profilers.profile import Finding, Trial


def test_profile_a_cell_and_apply_a_fix(server, context):
    lab = Lab(context, server).open(server.write("train.ipynb", TRAINING, LOOP))
    lab.run(0)
    lab.until_run(0)
    lab.until_state("live")
    lab.cell(1).click()
    lab.cell(1).locator('[data-command="mlsys:profile-cell"], [data-jp-item-name="mlsys-profile"]').first.click()
    findings = lab.panel.locator('[data-section="findings"]')
    findings.wait_for(state="visible")
    assert lab.cell(1).locator(".cm-content").inner_text().startswith("%%mlsys profile")
    # Witness: the dataset sleeps 8 x 1 ms a batch, and a step of this model takes less.
    stall = findings.locator("article", has_text="predicted").first
    assert "data" in findings.locator(".mlsys-legend").inner_text()
    lab.screenshot(SCREENS, "findings")
    assert lab.cut_off() == []
    fix = findings.get_by_role("button", name="Apply fix").first
    fix.click()
    lab.cell(2).locator(".cm-content", has_text="%mlsys fix").wait_for()
    verdict = findings.locator(".mlsys-trial").first
    verdict.wait_for()
    assert "predicted" in verdict.inner_text() and "measured" in verdict.inner_text()
    assert stall.is_visible()
    verdict.scroll_into_view_if_needed()
    lab.screenshot(SCREENS, "fixed")
    assert lab.errors == []


@pytest.mark.slow
def test_a_saved_profile_opens_as_a_document(server, context):
    from dataclasses import replace

    from profiles import HOSTILE, typical

    titles = [Finding("k", text or "-", text, 1.5, 1, None, text) for text in HOSTILE]
    told = Trial("k", "r", 1.5, 1.4, 1.3, 1.45, True, HOSTILE[0])
    saved = replace(typical(), title=HOSTILE[0], findings=(*typical().findings, *titles), trials=(told,))
    (server.folder / "saved.mlsys.json").write_text(saved.to_json())
    (server.folder / "other.mlsys.json").write_text(json.dumps({"format": "else"}))
    (server.folder / "cut.mlsys.json").write_text(json.dumps({"format": "mlsys.profile"}))
    lab = Lab(context, server)
    said = []
    lab.page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    for name, says in (("saved", "The step waits for the loader"), ("other", "no profile of mlsys-studio"), ("cut", "parts missing")):  # fmt: skip
        lab.page.goto(f"{server.url}/lab/tree/{name}.mlsys.json?reset", wait_until="domcontentloaded")
        document = lab.page.locator(".mlsys-document")
        document.get_by_text(says).first.wait_for()
        if name == "saved":
            assert document.locator("article").count() == len(saved.findings)
            assert document.locator("script, img, a, iframe").count() == 0
            assert "predicted 1.50×, measured 1.40× (1.30 to 1.45), kept" in document.inner_text()
            lab.screenshot(SCREENS, "document")
    assert said == [] and lab.errors == []
