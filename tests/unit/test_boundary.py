"""What ends a step: the policy against loops written out as sequences of events."""

import pytest

from mlsys_studio.profilers.boundary import PATIENCE, SETTLED, Boundary


def ends(boundary: Boundary, events: str) -> str:
    """Feed events by letter and mark each that closes a step with "|". Capitals are optimizers."""
    kinds = {"d": "data", "f": "forward", "b": "backward"}
    out = ""
    for e in events:
        closes = boundary.event(kinds[e]) if e in kinds else boundary.optimizer(ord(e), e)
        out += e + "|" * closes
    return out


def settled(events: str, cycles: int = 6) -> str:
    """The steps of one cycle, once the policy has seen a few."""
    boundary = Boundary()
    ends(boundary, events * cycles)
    return ends(boundary, events)


def steps(events: str, boundary: Boundary | None = None) -> list[str]:
    """The whole steps of a loop, each as its events: what whoever obeys it and its `fragments` ends up with."""
    boundary, whole, current = boundary or Boundary(), [], ""
    for e in events:
        current += e
        if boundary.optimizer(ord(e), e):
            whole.append(current)
            current = ""
        if boundary.fragments:
            whole[-boundary.fragments :] = ["".join(whole[-boundary.fragments :])]
            boundary.fragments = 0
    return whole


@pytest.mark.parametrize(
    ("round_", "rounds"),
    [
        ("DG", 10),  # GAN
        ("DDDDDG", 10),  # WGAN with n_critic = 5
        ("DDG", 10),
        ("ABC", 10),  # an optimizer per layer
        ("".join(chr(1000 + i) for i in range(100)), 5),  # one a parameter
        ("D" * SETTLED + "G", 4),
    ],
    ids=["gan", "wgan", "two to one", "a layer", "a parameter", "settled"],
)
def test_every_round_is_one_step_from_the_first_on(round_, rounds):
    found = steps(round_ * rounds + round_[0])
    assert found[0] == round_
    assert len(found) == rounds
    assert "".join(found) == round_ * rounds


def test_two_generator_updates_after_each_critic_update_end_with_the_critic():
    assert steps("DGG" * 4 + "D") == ["D", "GGD", "GGD", "GGD", "GGD"]


@pytest.mark.parametrize("inner", [1, 3, 5])
def test_inner_optimizers_that_come_and_go_belong_to_the_outer_ones_step(inner):
    """Meta-learning: an inner optimizer a task lives for a few steps. From the second outer step on all are exact."""
    boundary, counts = Boundary(), []
    for outer in range(8):
        for task in range(4):
            who = chr(1000 + outer * 4 + task)
            counts.append(len(steps(who * inner, boundary)))
            boundary.forget(ord(who))
        counts.append(len(steps("A", boundary)))
    assert counts[-10:] == [0, 0, 0, 0, 1] * 2


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 30])
def test_every_step_of_many_short_trainings_counts(length, dies):
    """Hyper-parameter search. Where the last optimizer lives on, the first step of the next may be a late one's."""
    boundary, count = Boundary(), 0
    for trial in range(50):
        who = chr(1000 + trial)
        count += len(steps(who * length, boundary))
        if dies:
            boundary.forget(ord(who))
    lost = 49 if length > SETTLED and not dies else 0
    assert count == 50 * length - lost


def test_an_id_given_to_another_optimizer_is_another_optimizer():
    boundary = Boundary()
    assert steps("AG" * 10 + "A", boundary)[-1] == "AG"
    boundary.forget(ord("G"))
    boundary.forget(ord("A"))
    assert steps("GGG", boundary) == ["G", "G", "G"]


def test_a_pause_of_the_closer_longer_than_ever_is_not_its_end():
    """WGAN now and then trains its critic to optimality."""
    found = steps("DDDDDG" * 10 + "D" * 18 + "G" + "DDDDDG" * 3)
    assert len(found) == 14
    assert found[10] == "D" * 18 + "G"


def test_two_of_each_in_turn_settle():
    """Twice as often as a round, which nobody could know: but the unit is decided once."""
    boundary = Boundary()
    steps("DDGG" * 4, boundary)
    before = boundary.changes
    steps("DDGG" * 10, boundary)
    assert boundary.changes == before


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
    """The next fold's optimizer takes over with its second step: the first could have been a late one's."""
    boundary = Boundary()
    ends(boundary, "dfbA" * 30)
    assert ends(boundary, "dfbBdfbBdfbB") == "dfbBdfbB|dfbB|"
    assert boundary.changes == 1
