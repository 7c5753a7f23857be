"""What a verb's result says beside its numbers: in a shell what to type next, of a trial the verdict on its own line."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mlsys_studio.studio.advisor.findings import by_hand
from mlsys_studio.studio.parsing import parse
from mlsys_studio.studio.results import Fixed, Profiled

from .pages import Page
from .profiles import empty, typical


def of_a_script():
    return replace(typical(), findings=by_hand(typical().findings))


@pytest.mark.parametrize("script", ["train.py", "my folder/it's.py"])
def test_a_shell_is_told_how_to_prove_a_change_and_never_to_type_a_magic(script: str):
    import shlex

    text = str(Profiled(of_a_script(), script=script))
    assert "%mlsys" not in text and "num_workers=2" in text
    commands = [shlex.split(line) for line in text.split("\n") if line.startswith("  mlsys ")]
    assert [words[1:3] for words in commands] == [["profile", script]] * 2
    assert all(parse(words[1:], "mlsys").verb.name == "profile" for words in commands)


def test_what_was_compared_or_has_no_finding_needs_no_such_advice():
    verdict = of_a_script().regression(of_a_script())
    assert "To prove" not in str(Profiled(of_a_script(), of_a_script(), verdict, script="train.py"))
    assert "To prove" not in str(Profiled(empty(), script="train.py"))
    assert "To prove" not in str(Profiled(typical()))


def test_the_verdict_on_a_trial_has_a_line_of_its_own():
    (trial,) = typical().trials
    title, verdict, remedy, reason, *_ = str(Fixed(trial, "The model waits for data " * 2, 1)).split("\n")
    assert title.strip() == "The model waits for data The model waits for data"
    assert verdict == "  predicted 1.58x, measured 1.51x (1.44 to 1.57), kept"
    assert (remedy, reason) == ("  loader-workers", "  The gain is beyond the spread of 3 %.")


@pytest.mark.parametrize(
    ("relative", "said"), [(0.0026, "differs by 0.260 %"), (0.5, "differs by 50.0 %"), (0.0, "is the same")]
)
def test_a_difference_of_the_loss_is_said_in_the_same_words_everywhere(relative: float, said: str):
    (trial,) = typical().trials
    trial = replace(trial, loss_difference=relative)
    profile, fixed = replace(typical(), trials=(trial,)), Fixed(trial, "title", 1)
    pages = (Page(profile.html()).text, Page(fixed._repr_mimebundle_()["text/html"]).text)
    for text in (profile.text(), str(fixed), *pages):
        assert f"the mean loss of the same steps {said}" in " ".join(text.split())


def test_a_trial_without_a_verdict_is_told_and_claims_no_number():
    (trial,) = typical().trials
    failed = replace(trial, measured=None, low=None, high=None, kept=False, reason="the cell raised KeyError: 'x'")
    profile = replace(typical(), trials=(failed,))
    assert type(profile).from_json(profile.to_json()) == profile
    for text in (profile.text(), Page(profile.html()).text):
        tried = " ".join(text.partition("Tried")[2].partition("Memory")[0].split())
        assert "not measured" in tried and "the cell raised KeyError: 'x'" in tried
        assert not re.search(r"measured,? \d", tried.replace("not measured", ""))
