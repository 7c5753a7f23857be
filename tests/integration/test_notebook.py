"""The main job in a real IPython shell: profile, fix, undo, report; cells that raise, are interrupted, or are awaited."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("IPython")

import cells
from IPython.core.interactiveshell import InteractiveShell
from profiled import places, quick  # noqa: F401  quick is a fixture
from traitlets.config import Config

from mlsys_studio.profilers.profile import Finding, Profile
from mlsys_studio.studio import session as sessions
from mlsys_studio.studio.advisor import trial as trials
from mlsys_studio.studio.advisor.replay import Run, run_steps

pytestmark = pytest.mark.usefixtures("quick")

SETUP = f"""{cells.SETUP}
import time
data = TensorDataset(torch.randn(280, 16), torch.randint(0, 4, (280,)))  # 70 steps: enough for a window
loader = DataLoader(data, batch_size=4, shuffle=True)
losses = []
"""
LOOP = f"{cells.LOOP}    losses.append(loss.item())\n"


@pytest.fixture(scope="module")
def one_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    yield InteractiveShell.instance(config=config, ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(one_shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setattr(sessions, "_last", None)
    one_shell.reset(new_session=False)
    one_shell.run_line_magic("load_ext", "mlsys_studio")
    assert one_shell.run_cell(SETUP).success
    before = places()
    yield one_shell
    assert all(a is b for a, b in zip(before, places(), strict=True))
    one_shell.run_line_magic("unload_ext", "mlsys_studio")


@pytest.fixture
def won(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells really run again; what a step took is not measured but made up: the fused optimizer halves it."""

    def timed(code, subjects, *bounds) -> Run:
        run = run_steps(code, subjects, *bounds)
        return replace(run, walls=[10 if subjects.optimizer.param_groups[0]["fused"] else 20 for _ in run.walls])

    monkeypatch.setattr(trials, "run_steps", timed)
    monkeypatch.setattr(trials, "MOST", 5)


FINDING = Finding("optimizer", "The optimizer is bound by dispatch", "", 1.5, 1, "fused-optimizer", "fused=True")
ADVICE = Finding("logging", "Logging stops the loop", "", 1.1, 1, None, "log every N steps")


def with_findings(*found: Finding) -> None:
    """What a ledger of made-up ceilings finds is no subject here."""
    session = sessions.last()
    session.profile = replace(session.profile, findings=found)


def said(shell: InteractiveShell, capsys: pytest.CaptureFixture[str], cell: str) -> str:
    assert not shell.run_cell(cell).success
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("UsageError: ")
    return lines[0]


def test_a_cell_is_profiled_and_leaves_its_names(shell):
    result = shell.run_cell(f"%%mlsys profile --into before\n{LOOP}")
    assert result.success
    ns = shell.user_ns
    assert len(ns["losses"]) == 70 and ns["loss"].item() == ns["losses"][-1]
    found = ns["before"]
    assert isinstance(found, Profile) and found.ledger is not None
    assert sum(e.nanoseconds for e in found.ledger.entries) == found.ledger.wall_ns
    shown, _ = shell.display_formatter.format(result.result)
    assert "Where the time went" in shown["text/plain"] and "<svg" in shown["text/html"]


def test_fix_keeps_what_wins_and_undo_takes_it_back(shell, won, capsys):
    shell.run_cell(f"%%mlsys profile --into before\n{LOOP}")
    with_findings(FINDING, ADVICE)
    ns = shell.user_ns
    ns["before"] = sessions.last().profile
    group, weights, losses = ns["optimizer"].param_groups[0], ns["model"][0].weight.clone(), list(ns["losses"])
    capsys.readouterr()
    result = shell.run_cell("%mlsys fix 1")
    assert result.success, result.error_in_exec
    progress = capsys.readouterr().out
    assert "trying optimizer = AdamW(..., fused=True)" in progress and "7 runs of" in progress and "7 of 7" in progress
    trial = result.result.trial
    assert trial.kept and trial.measured == 2.0 and trial.predicted == 1.5
    assert "measured 2.00x (2.00 to 2.00), kept" in str(result.result)
    assert group is ns["optimizer"].param_groups[0] and group["fused"] is True
    assert (ns["model"][0].weight == weights).all() and ns["losses"] == losses  # the trial left no trace
    assert ns["before"].trials == (trial,)
    for view in (ns["before"].text(), ns["before"].html()):
        assert "fused=True" in view and "2.0" in view
    shown, _ = shell.display_formatter.format(result.result)
    assert "<" in shown["text/html"]

    assert "in place already; `%mlsys fix 1 --undo`" in said(shell, capsys, "%mlsys fix 1")
    assert "no automatic remedy; by hand: log every N steps" in said(shell, capsys, "%mlsys fix 2")
    assert "type a number from 1 to 2" in said(shell, capsys, "%mlsys fix 3")
    shell.run_cell(f"%%mlsys profile --into after\n{LOOP}")  # a new profile forgets no remedy
    assert ns["before"].kept == () and len(ns["after"].kept) == 1
    reason = ns["before"].diff(ns["after"]).reason
    assert "Kept by `fix` in between: optimizer = AdamW(..., fused=True), measured 2.00x (2.00 to 2.00)" in reason
    assert "taken back first: type `%mlsys fix 1 --undo`" in said(shell, capsys, "%mlsys fix 2 --undo")
    assert str(shell.run_cell("%mlsys fix 1 --undo").result) == f"taken back: {FINDING.title}"
    assert group["fused"] is None and group["foreach"] is None
    assert "nothing to take back" in said(shell, capsys, "%mlsys fix 1 --undo")


def test_a_loss_is_told_and_not_kept(shell, won, monkeypatch):
    shell.run_cell(f"%%mlsys profile\n{LOOP}")
    with_findings(FINDING)
    slower = lambda *a: replace(run_steps(*a), walls=[20 if a[1].optimizer.param_groups[0]["fused"] else 10] * 5)
    monkeypatch.setattr(trials, "run_steps", slower)
    result = shell.run_cell("%mlsys fix 1").result
    assert not result.trial.kept and "not kept" in str(result)
    assert shell.user_ns["optimizer"].param_groups[0]["fused"] is None
    assert sessions.last().profile.trials == (result.trial,)


def test_a_second_remedy_finds_the_loader_of_the_first(shell):
    shell.run_cell(f"%%mlsys profile\n{LOOP}")
    from mlsys_studio.studio.advisor.remedies import REMEDIES

    first = sessions.last().subjects()
    undo = REMEDIES["workers"].apply(first)
    second = sessions.last().subjects()
    assert second.loader is shell.user_ns["loader"] is not first.loader
    assert REMEDIES["pin"].refusal(second) == ""
    undo()
    assert sessions.last().subjects().loader is first.loader is shell.user_ns["loader"]


def test_fix_and_report_before_any_profile(shell, capsys):
    for line in ("%mlsys fix 1", "%mlsys report x.html", "%mlsys fix 1 --undo"):
        assert "put `%%mlsys profile` above the cell" in said(shell, capsys, line)


def test_a_cell_too_short_for_a_ledger_cannot_be_fixed(shell, capsys):
    shell.run_cell("%%mlsys profile\nimport itertools\n" + LOOP.replace("in loader", "in itertools.islice(loader, 4)"))
    capsys.readouterr()
    refused = said(shell, capsys, "%mlsys fix 1")
    assert "the last profile has no ledger: the loop ended after 4 steps" in refused
    assert re.search(r"run it for \d+ or more; then profile it again", refused)
    shell.run_cell(f"%%mlsys profile --mode light\n{LOOP}")
    assert "the last profile has no ledger: mode light" in said(shell, capsys, "%mlsys fix 1")


def test_report(shell, tmp_path: Path, capsys):
    shell.run_cell(f"%%mlsys profile --into before --out {tmp_path}/first.json\n{LOOP}")
    assert Profile.from_json((tmp_path / "first.json").read_text()) == shell.user_ns["before"]
    for name in ("r.html", "r.md", "r.json"):
        assert shell.run_cell(f"%mlsys report {tmp_path}/{name}").success
        assert (tmp_path / name).stat().st_size > 500
    assert shell.run_cell(f"%mlsys report {tmp_path}/of.json --of before").success
    assert Profile.from_json((tmp_path / "of.json").read_text()) == shell.user_ns["before"]
    capsys.readouterr()
    assert "--of names a list, not a Profile" in said(shell, capsys, f"%mlsys report {tmp_path}/x.html --of losses")


def test_a_comparison_is_shown_in_both_forms(shell, tmp_path: Path):
    shell.run_cell(f"%%mlsys profile --out {tmp_path}/base.json\n{LOOP}")
    result = shell.run_cell(f"%%mlsys profile --compare {tmp_path}/base.json\n{LOOP}")
    shown, _ = shell.display_formatter.format(result.result)
    for text in shown["text/plain"], shown["text/html"]:
        assert "before" in text and "a step against" in text


@pytest.mark.parametrize(
    ("ending", "error"), [("1 / 0", ZeroDivisionError), ("raise KeyboardInterrupt", KeyboardInterrupt)]
)
def test_a_cell_that_ends_early_is_shown_and_can_be_reported(shell, capsys, tmp_path, ending, error):
    cell = LOOP + f"    if len(losses) == 66:\n        {ending}\n"
    result = shell.run_cell(f"%%mlsys profile --into cut\n{cell}")
    assert isinstance(result.error_in_exec, error)
    shown = capsys.readouterr()
    out = shown.out + shown.err
    assert f"ended early with {error.__name__}" in out
    assert "mlsys_studio" not in re.sub(r"mlsys-studio", "", out)
    if error is ZeroDivisionError:
        assert re.search(r"-+> \d+ +1 / 0", out)
    assert shell.user_ns["cut"].ledger is not None
    assert shell.run_cell(f"%mlsys report {tmp_path}/cut.html").success
    assert sessions.last().subjects().model is shell.user_ns["model"]


def test_a_cell_that_fails_before_its_first_step_says_only_why_and_loses_no_profile(shell, capsys):
    shell.run_cell(f"%%mlsys profile --mode light --into good\n{LOOP}")
    capsys.readouterr()
    result = shell.run_cell("%%mlsys profile --into bad\n" + LOOP.replace("in loader", "in loder"))
    assert isinstance(result.error_in_exec, NameError)
    shown = capsys.readouterr()
    assert "name 'loder' is not defined" in shown.out + shown.err and "no step was measured" not in shown.out
    assert sessions.last().profile is shell.user_ns["good"] and "bad" not in shell.user_ns


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("with mlsys_studio.profile(mode='fast'): pass", "mode='fast' is not known"),
        ("mlsys_studio.profile(model)", "this is a Sequential: write `with mlsys_studio.profile():` around the loop"),
        ("mlsys_studio.Profile.from_json('{}')", "not a profile: the text is JSON, but not of the format"),
    ],
)
def test_a_wrong_call_shows_the_users_line_and_one_sentence(shell, capsys, line, says):
    capsys.readouterr()
    assert not shell.run_cell(f"import mlsys_studio\nx = 1\n{line}").success
    shown = capsys.readouterr()
    where, sentence = (shown.out + shown.err).strip().splitlines()
    assert where == f"line 3: {line}" and sentence.startswith("UsageError: ") and says in sentence


def test_a_cell_without_a_training_step(shell, capsys):
    result = shell.run_cell("%%mlsys profile\nx = 1\nx + 1")
    assert result.success and shell.user_ns["x"] == 1
    assert "no training step was seen" in str(result.result)


def test_awaiting_works_through_the_context_manager(shell, capsys):
    shell.run_cell("import mlsys_studio, asyncio")
    cell = "with mlsys_studio.profile() as p:\n" + "".join(f"    {line}\n" for line in LOOP.splitlines())
    assert shell.run_cell(cell + "    await asyncio.sleep(0)\n").success
    assert shell.user_ns["p"].profile.ledger is not None
    capsys.readouterr()
    assert not shell.run_cell(f"%%mlsys profile\nawait asyncio.sleep(0)\n{LOOP}").success
    assert "`with mlsys_studio.profile():`" in capsys.readouterr().err


def test_disabled(shell, monkeypatch):
    monkeypatch.setenv("MLSYS_DISABLE", "1")
    result = shell.run_cell(f"%%mlsys profile\n{LOOP}")
    assert result.success and result.result is None and len(shell.user_ns["losses"]) == 70


def test_a_profile_inside_a_profile(shell, capsys):
    shell.run_cell("import mlsys_studio")
    result = shell.run_cell("%%mlsys profile\nwith mlsys_studio.profile(): pass")
    assert "already running" in str(result.error_in_exec)


# -- a stream that can be read once ---------------------------------------------------------------------------------------

STREAM = """
class Once(torch.utils.data.IterableDataset):
    def __init__(self, source): self.source = source
    def __iter__(self):
        for each in self.source:
            time.sleep(0.004)
            yield each
source = iter([(data[i][0], data[i][1]) for i in range(280)])
stream = DataLoader(Once(source), batch_size=4)
"""


def test_of_a_stream_only_the_consumer_side_is_said_and_nothing_read(shell):
    """Witness: 16 ms of sleep a batch of four, which the loop waits for; and the stream, which is as it was."""
    assert shell.run_cell(STREAM).success
    before = shell.run_cell("%mlsys data stream").result
    assert before.wait is None and "ask again" in str(before)
    assert len(list(shell.user_ns["source"])) == 280
    shell.run_cell(STREAM)
    assert shell.run_cell(f"%%mlsys profile\n{LOOP.replace('in loader', 'in stream')}").success
    after = shell.run_cell("%mlsys data stream").result
    assert 16e6 <= after.wait <= after.wall
    assert "waiting in next" in str(after)
    assert json.loads(after.to_json())["wait_us"] == after.wait / 1000


def test_a_data_stall_names_the_users_own_loader(shell):
    assert shell.run_cell(STREAM).success
    shell.run_cell(f"%%mlsys profile\n{LOOP.replace('in loader', 'in stream')}")
    stall = next(f for f in sessions.last().profile.findings if f.key == "data-stall")
    assert stall.evidence.endswith("; `%mlsys data stream` says why")
