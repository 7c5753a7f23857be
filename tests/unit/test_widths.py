"""No line of text that we print is wider than 80 columns: rich results here, each verb's help, and what a demo tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlsys_studio.profilers.profile import Profile, Trial
from mlsys_studio.studio import demo, verbs
from mlsys_studio.studio.doctor import Check, Examination
from mlsys_studio.studio.parsing import HelpAsked, overview, parse
from mlsys_studio.studio.results import Fixed, Profiled

from .profiles import hostile, typical
from .test_doctor import HEALTHY, SICK, diagnose

wcwidth = pytest.importorskip("wcwidth")  # witness: another table of widths

TRIAL = Trial(
    "data-stall",
    "training_loader = DataLoader(..., num_workers=12, persistent_workers=True, prefetch_factor=4)  # another order",
    123.456,
    1.51,
    1.44,
    1.57,
    True,
    "inconclusive: stopped after 1234 s with 5 of 7 runs done, and other processes took 12.3 of 16 cores",
    0.0123,
)


def rich() -> Profile:
    """Long titles, evidence, advice, remedies, reasons and notes."""
    whole = typical()
    finding = replace(
        whole.findings[0],
        title="The model waits for data that " + "a loader with a long name " * 3 + "fetches",
        evidence=f"{whole.findings[0].evidence}; doubtful: " + "profiled steps were longer there than clean ones, " * 3,
        predicted=123.4,
    )
    return replace(
        whole,
        title="for step, (inputs, targets) in enumerate(training_loader_of_the_first_epoch, start=1):",
        findings=(finding, *whole.findings),
        trials=(TRIAL, *whole.trials),
        notes=(*whole.notes, "a note that goes on " * 12),
    )


def longest(text: str) -> str:
    return max(text.split("\n"), key=wcwidth.wcswidth)


def narrow(text: str, columns: int = 80) -> None:
    assert wcwidth.wcswidth(longest(text)) <= columns, longest(text)


@pytest.mark.parametrize("make", [rich, hostile])
def test_profiles_and_comparisons(make):
    slower = rich().regression(replace(rich(), steps=replace(rich().steps, clean=(10**7,) * 24)))
    for result in (
        make(),
        make().diff(typical()),
        typical().diff(make()),
        Profiled(make(), script="train.py"),
        Profiled(make(), typical(), slower),
    ):
        narrow(str(result))


def test_trials():
    narrow(str(Fixed(TRIAL, rich().findings[0].title, 1)))


@pytest.mark.parametrize("ails", SICK, ids=lambda ails: f"{ails[0]}: {ails[4]}")
def test_every_ailment_of_a_machine(ails):
    _, facts, torch, *_ = ails
    narrow(str(diagnose(replace(HEALTHY, host="a-host-name" * 12, **facts), torch)))


def test_a_command_to_copy_stays_on_one_line():
    mend = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
    assert f"-> {mend}\n" in str(Examination("box", (Check("clock", "warn", "slow", mend),))) + "\n"


@pytest.mark.parametrize("prog", ["mlsys", "%mlsys"])
@pytest.mark.parametrize("verb", verbs.NAMES)
def test_help(prog: str, verb: str, monkeypatch: pytest.MonkeyPatch):
    narrow(overview(prog))
    for terminal in ("40", "200"):
        monkeypatch.setenv("COLUMNS", terminal)
        with pytest.raises(HelpAsked) as said:
            parse([verb, "--help"], prog)
        narrow(str(said.value))


def test_what_the_demo_tells():
    pytest.importorskip("nbformat")
    notebook, told = demo.read(), []
    narrator = demo.Narrator(notebook, told.append)
    for index, cell in enumerate(notebook.cells):
        narrator.begins(cell, index)
    stream = {"msg_type": "stream", "content": {"text": f"{TRIAL.remedy}\n   {TRIAL.reason}\n\n  short  and kept\n"}}
    narrator.heard(stream)
    narrow("\n".join(told))
    assert TRIAL.reason in " ".join("\n".join(told).split())  # nothing is left out
    assert told[-2:] == ["", "      short  and kept"]


def test_the_quickstarts_cells_and_prints_are_as_narrow_as_a_page():
    """A notebook's code scrolls sideways from about 110 columns on."""
    for cell in demo.read().cells:
        if cell.cell_type == "code":
            narrow(cell.source, 110)


def test_what_make_lists():
    makefile = Path(demo.__file__).parents[1] / "Makefile"
    if not makefile.exists():
        pytest.skip("a wheel has no Makefile")
    narrow("\n".join(line[2:] for line in makefile.read_text().split("\n") if line.startswith("# make")))
