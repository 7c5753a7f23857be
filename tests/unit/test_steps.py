"""Joined steps. Witness: the same steps in a plain list."""

import pytest

from mlsys_studio.profilers.steps import KEPT, Step, Steps


def filled(count: int) -> tuple[Steps, list[Step]]:
    steps, plain = Steps(), []
    for i in range(count):
        plain.append(Step(10 * i, 10 * i + 9, [(10 * i, "data"), (10 * i + 4, "forward")], i % 3 == 0))
        steps.append(plain[-1])
    return steps, plain


def test_a_long_run_keeps_the_last_ones_only():
    steps, plain = filled(KEPT + 10)
    assert list(steps) == plain[10:]


@pytest.mark.parametrize(("count", "joined"), [(3, 3), (5, 5), (9, 5)])
def test_joined_steps_keep_their_time_and_not_what_lay_between(count, joined):
    steps, plain = filled(5)
    assert steps.join(count) == joined
    assert len(steps) == 5 - joined + 1
    assert steps[-1].wall == 9 * joined
    assert steps[-1].phases == {"data": 4 * joined, "forward": 5 * joined}
    assert steps[-1].end == plain[-1].end
    assert list(steps)[:-1] == plain[:-joined]
    assert steps[-1].skipped
