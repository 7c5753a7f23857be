"""`%mlsys diagnose` on the notebook's own exception: its tensors, the wrong argument, a mended line, what it frees."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch

from mlsys_studio import UsageError
from mlsys_studio.studio.diagnosing import explain, explain_last
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
