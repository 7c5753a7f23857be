"""What ends a step: the policy against loops written out as sequences of events."""

import pytest

from mlsys_studio.profilers.boundary import PATIENCE, Boundary


def ends(boundary: Boundary, events: str) -> str:
    """Feed events by letter and mark each that closes a step with "|". Capitals are optimizers."""
    kinds = {"d": "data", "f": "forward", "b": "backward"}
    out = ""
    for e in events:
        closes = boundary.closes(kinds[e]) if e in kinds else boundary.closes("optimizer", ord(e), e)
        out += e + "|" * closes
    return out


def settled(events: str, cycles: int = 6) -> str:
    """The steps of one cycle, once the policy has seen a few."""
    boundary = Boundary()
    ends(boundary, events * cycles)
    return ends(boundary, events)


@pytest.mark.parametrize(
    ("cycle", "expected"),
    [
        ("dfbA", "dfbA|"),  # plain
        ("dfbdfbdfbdfbA", "dfbdfbdfbdfbA|"),  # gradient accumulation
        ("dfbGfbD", "dfbGfbD|"),  # GAN: one round is one step
        ("dfbDdfbDdfbDfbG", "dfbDdfbDdfbDfbG|"),  # WGAN: the rarest optimizer ends the step
        ("fbA", "fbA|"),  # custom iterator
        ("bABC", "bABC|"),  # optimizer per layer
    ],
)
def test_a_settled_loop_ends_its_steps(cycle, expected):
    assert settled(cycle) == expected


def test_inference_ends_a_step_with_the_next_batch():
    boundary = Boundary()
    ends(boundary, "df" * 6)
    assert ends(boundary, "df") == "d|f"
    assert boundary.unit.startswith("batch")


def test_inference_without_a_loader_ends_a_step_with_the_next_forward():
    boundary = Boundary()
    ends(boundary, "f" * 6)
    assert ends(boundary, "f") == "f|"


def test_accumulation_longer_than_the_inference_guess_waits_for_its_optimizer():
    boundary = Boundary()
    assert "|" not in ends(boundary, "dfb" * (PATIENCE - 1))
    assert ends(boundary, "A") == "A|"


def test_hand_written_updates_fall_back_after_patience():
    boundary = Boundary()
    ends(boundary, "dfb" * (PATIENCE + 2))
    assert ends(boundary, "dfb") == "d|fb"


def test_a_late_optimizer_belongs_inside_the_step():
    boundary = Boundary()
    ends(boundary, "dfbA" * 30)
    assert ends(boundary, "dfbAZ") == "dfbA|Z"
    assert boundary.changes == 0


def test_a_changed_closer_is_reported_so_that_counting_starts_again():
    boundary = Boundary()
    ends(boundary, "dfbDdfbD")
    before = boundary.changes
    ends(boundary, "fbG")
    assert boundary.changes == before + 1


def test_an_optimizer_that_is_gone_is_not_waited_for():
    """The next fold's optimizer takes over, once it has stepped as often as patience lasts."""
    boundary = Boundary()
    ends(boundary, "dfbA" * 30)
    ends(boundary, "dfbB" * PATIENCE)
    assert ends(boundary, "dfbB") == "dfbB|"
    assert boundary.changes == 1
