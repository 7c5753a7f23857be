"""`%mlsys diagnose` on the notebook's own exception: its tensors, the wrong argument, a mended line, what it frees."""

from __future__ import annotations

import gc
import shlex
import sys
import weakref

import pytest
import torch

from mlsys_studio import UsageError, diagnose
from mlsys_studio.profilers.diagnosis.diagnosis import Check, Diagnosis
from mlsys_studio.studio.again import output_of
from mlsys_studio.studio.diagnosing import explain, explain_last, own_frame
from mlsys_studio.studio.probing import Failed, holders, probe
from mlsys_studio.studio.stale import stale_state


def raised(work) -> BaseException:
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def test_the_tensors_of_the_failing_line_are_told_and_the_mended_line_works():
    """Witness: the line offered is run here on the real tensors."""
    x, w = torch.ones(2, 3), torch.ones(4, 3)

    def multiply():
        return torch.matmul(x, w)

    found = explain(raised(multiply), {})
    told = [each.text for each in found.evidence[:2]]
    assert found.category == "code_error" and found.cause == "shape_mismatch"
    assert told == ["x: [2, 3] float32 on cpu", "w: [4, 3] float32 on cpu"]
    line = found.fix[0].command.removeprefix("return ")
    assert eval(line, {"torch": torch, "x": x, "w": w}).ndim == 2


def test_no_line_is_offered_that_calls_the_users_own_code():
    called = []

    def mine(x):
        called.append(x)
        return x @ torch.ones(5, 5)

    def work():
        return mine(torch.ones(2, 3))

    found = explain(raised(work), {})
    assert len(called) == 1 and not found.fix[0].text.startswith("Verified")


def test_the_traceback_is_let_go(monkeypatch):
    class Big:
        pass

    def hold(kept):
        kept.append(weakref.ref(big := Big()))
        raise ValueError(f"boom {big is None}")

    kept: list[weakref.ref] = []
    try:
        hold(kept)
    except ValueError as error:
        monkeypatch.setattr(sys, "last_exc", error, raising=False)
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    assert kept[0]() is not None
    explain_last({})
    gc.collect()
    assert kept[0]() is None


def test_a_name_of_a_cell_that_did_not_run():
    error = raised(lambda: eval("model"))
    assert "No cell that ran" in stale_state(error, None, {"In": ["", "x = 1"]})
    assert "cell [1]" in stale_state(error, None, {"In": ["", "model = Net()"]})


def test_without_an_exception_it_says_what_to_type(monkeypatch):
    for name in ("last_exc", "last_value"):
        monkeypatch.setattr(sys, name, None, raising=False)
    with pytest.raises(UsageError, match="diagnose FILE"):
        explain_last({})


def answers(work, namespace=None) -> dict[str, tuple[str | None, str]]:
    """{probe: (verdict, what was found)} for one that fails there."""
    error = raised(work)
    checks = tuple(Check("", "", probe=name) for name in ("finite", "labels", "cuda_fork", "gpu_memory"))
    asked = Diagnosis(None, None, 0.0, "", checks=checks)
    told = probe(asked, Failed(*own_frame(error), namespace or {}))
    return {check.probe: (check.result, check.found) for check in told.checks}


@pytest.mark.parametrize(("labels", "verdict"), [([0, 3], "refuted"), ([0, 4], "confirmed"), ([-1, 2], "confirmed")])
def test_labels_are_held_against_the_classes(labels: list[int], verdict: str):
    """Witness: four columns of scores; -100 is what torch's losses pass over."""
    scores, y = torch.zeros(3, 4), torch.tensor([*labels, -100])

    def work():
        raise ValueError(f"{scores} {y}")

    assert answers(work)["labels"] == (verdict, f"y holds {min(labels)} to {max(labels)}, scores has 4 classes")


def test_a_batch_is_looked_through_for_what_is_not_finite():
    clean, torn = torch.ones(4), torch.tensor([1.0, float("inf")])
    assert answers(lambda: clean @ torn)["finite"] == ("confirmed", "not finite: torn")
    assert answers(lambda: clean @ clean[:2])["finite"] == ("refuted", "finite: clean")
    assert answers(lambda: [].pop())["finite"][0] == "inconclusive"


def test_what_this_kernel_holds_is_told_once_a_storage():
    big, layer = torch.zeros(1000), torch.nn.Linear(2, 3)
    assert holders({"big": big, "view": big[:10], "layer": layer, "x": 1}, "cpu") == [("big", 4000), ("layer", 36)]


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="this process uses CUDA")
def test_without_cuda_no_fork_is_at_fault():
    assert answers(lambda: [].pop())["cuda_fork"][0] == "refuted"


def test_an_asynchronous_error_says_that_the_context_is_lost_and_what_to_type():
    found = explain(RuntimeError("CUDA error: device-side assert triggered"), {})
    assert found.fix[0].command == "%env CUDA_LAUNCH_BLOCKING=1" and "restart the kernel" in found.fix[0].text
    assert explain(RuntimeError("CUDA error: out of memory"), {}).fix[0].command != found.fix[0].command


def test_a_command_is_run_again_with_blocking_launches(tmp_path, capfd):
    """Witness: the environment that the script itself saw."""
    script = tmp_path / "train.py"
    script.write_text(
        "import os\nprint('blocking', os.environ['CUDA_LAUNCH_BLOCKING'], flush=True)\nopen('/no/such/folder/file.txt')\n"
    )
    said = b"".join(output_of(shlex.join([sys.executable, str(script)])))
    assert b"blocking 1" in said and b"exit code: 1" in said
    assert diagnose([said]).category == "config_permission"
    assert "blocking 1" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["", "no-such-program-at-all x", "python 'open"])
def test_what_cannot_run_again_says_so(command: str):
    with pytest.raises(UsageError, match="--again"):
        list(output_of(command))


def test_a_line_is_said_to_be_of_the_traceback_or_of_the_file(tmp_path):
    """Without it, the number reads as one of the cell, or of another rank's log."""
    assert diagnose(MemoryError("x")).summary.endswith("of the traceback.")
    (tmp_path / "rank_3.log").write_text("step 1\nMemoryError: x\n")
    assert "line 2 of rank_3.log (rank 3)" in diagnose(tmp_path).summary
    assert diagnose("step 1\nMemoryError: x\n").summary.endswith("in line 2.")
