"""Steps kept as packed rows. Witness: the same steps in a plain list."""

import pytest

from mlsys_studio.profilers.phases import PHASES
from mlsys_studio.profilers.steps import KEPT, Step, Steps


def phases(**some: int) -> dict[str, int]:
    return dict.fromkeys(PHASES, 0) | some


def filled(count: int) -> tuple[Steps, list[Step]]:
    steps, plain = Steps(), []
    for i in range(count):
        steps.append(10 * i, 10 * i + 9, phases(data=4, forward=5), i % 3 == 0)
        plain.append(Step(10 * i, 10 * i + 9, {"data": 4, "forward": 5}, i % 3 == 0))
    return steps, plain


@pytest.mark.parametrize("count", [0, 1, 5])
def test_they_read_like_a_list(count):
    steps, plain = filled(count)
    assert list(steps) == plain and len(steps) == count and bool(steps) == bool(plain)
    assert steps[-2:] == plain[-2:] and steps[:1] == plain[:1]
    if count:
        assert steps[-1] == plain[-1] and steps[0].wall == 9
    with pytest.raises(IndexError):
        steps[count]


def test_a_long_run_keeps_the_last_ones_only():
    steps, _ = filled(10 * KEPT)
    assert len(steps) == KEPT
    assert steps[-1].start == 10 * (10 * KEPT - 1)
    assert [step.start for step in steps[-3:]] == [10 * (10 * KEPT - i) for i in (3, 2, 1)]


@pytest.mark.parametrize(("count", "joined"), [(3, 3), (5, 5), (9, 5)])
def test_joined_steps_keep_their_time_and_not_what_lay_between(count, joined):
    steps, plain = filled(5)
    assert steps.join(count) == joined
    assert len(steps) == 5 - joined + 1
    assert steps[-1].wall == 9 * joined == sum(steps[-1].phases.values())
    assert steps[-1].end == plain[-1].end
    assert steps[:-1] == plain[:-joined]
