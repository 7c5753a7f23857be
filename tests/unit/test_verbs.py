"""A verb is one typed function: the words it takes, the sentences it answers with, and its JSON."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import probes
import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.studio import verbs
from mlsys_studio.studio.command import main
from mlsys_studio.studio.completion import complete
from mlsys_studio.studio.parsing import HelpAsked, parse
from mlsys_studio.studio.registry import Call, every, find, verb
from mlsys_studio.studio.running import run


@pytest.fixture(autouse=True)
def _probes():
    with probes.installed():
        yield


def given(*words: str, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    request = parse(words, "mlsys")
    answer = run(request, Call("command" if namespace is None else "magic", namespace, None, print))
    assert isinstance(answer, probes.Answer)
    return answer.given


def refusal(*words: str, prog: str = "mlsys", has_cell: bool = False) -> str:
    with pytest.raises(UsageError) as caught:
        parse(words, prog, has_cell=has_cell)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def help_of(*words: str, prog: str = "mlsys") -> str:
    with pytest.raises(HelpAsked) as caught:
        parse(words, prog)
    return str(caught.value)


def test_defaults_are_the_functions_own():
    assert given("gauge", "train.py") == {
        "script": "train.py",
        "arguments": (),
        "steps": 5,
        "rate": None,
        "where": "here",
        "mode": "light",
        "only_slow": False,
        "colour": True,
        "exit_code": 0,
    }


def test_words_become_the_types_of_the_signature():
    words = "gauge --steps 7 train.py --rate=2.5 --where /a/b --mode full --only-slow --no-colour"
    expected = {"steps": 7, "rate": 2.5, "where": "/a/b", "mode": "full", "only_slow": True, "colour": False}
    assert given(*words.split()).items() >= expected.items()


def test_what_follows_two_dashes_is_the_scripts_own():
    words = "gauge train.py --steps 3 -- --steps 9 --unknown -- x"
    answer = given(*words.split())
    assert answer["steps"] == 3
    assert answer["arguments"] == ("--steps", "9", "--unknown", "--", "x")


def test_a_list_takes_several_words():
    assert given("merge", "a.log", "b.log", "--ranks", "0", "3") == {"files": ["a.log", "b.log"], "ranks": [0, 3]}


def test_an_object_is_the_users_own():
    model = object()
    assert given("weigh", "--model", "nets['small']", namespace={"nets": {"small": model}})["model"] is model
    assert given("weigh", namespace={})["model"] is None


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("modle", "--model: no 'modle' in this notebook; did you mean 'model'?"),
        ("model.layer", "--model: 'model.layer' raised AttributeError: 'int' object has no attribute 'layer'"),
        ("model model", "--model: 'model model' is not a Python expression; name one object, like `model`."),
    ],
)
def test_an_object_that_is_not_there(expression: str, sentence: str):
    with pytest.raises(UsageError) as caught:
        given("weigh", "--model", expression, namespace={"model": 1})
    assert str(caught.value) == sentence


def test_a_shell_has_no_objects():
    with pytest.raises(UsageError, match=r"type `%mlsys weigh … --model net` in a notebook"):
        given("weigh", "--model", "net")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("gaugee x", ["'gaugee'", "did you mean 'gauge'?", "doctor, "]),
        ("gauge x --stpes 3", ["'--stpes'", "did you mean '--steps'?", "--only-slow"]),
        ("gauge --stpes 3", ["'--stpes'"]),  # named although `script` is missing as well
        ("gauge x --step 3", ["'--step'"]),  # no abbreviations: they break when an option is added
        ("gauge x --steps many", ["--steps: 'many' is not a whole number"]),
        ("gauge x --mode fulll", ["--mode: 'fulll' is not one of light, full; did you mean 'full'?"]),
        ("gauge", ["required: SCRIPT", "mlsys gauge --help"]),
        ("gauge x y", ["does not take 'y'", "after `--`"]),
        ("doctor x", ["does not take 'x'"]),
        ("watch", ["put `%%mlsys watch` on the first line of a notebook cell"]),
    ],
)
def test_one_sentence_names_the_word_and_what_to_type(words: str, parts: list[str]):
    said = refusal(*words.split())
    for part in parts:
        assert part in said


def test_a_verb_that_takes_no_cell_says_where_it_goes():
    said = refusal("doctor", prog="%mlsys", has_cell=True)
    assert said == "doctor does not act on a cell; type `%mlsys doctor` on a line of its own."


def test_help_says_what_the_signature_says():
    text = help_of("gauge", "--help")
    parts = [
        "Measure a script.",
        "More about it.",
        "how many, at 100 % load (default: 5)",
        "{light,full}",
        "--no-colour",
    ]
    for part in [*parts, "--only-slow", "--json", "After `--`: its own arguments"]:
        assert part in text
    assert "(default: None)" not in text
    assert "EXPR" in help_of("weigh", "-h")
    assert "%%mlsys watch" in help_of("watch", "--help", prog="%mlsys")


@pytest.mark.parametrize("words", [(), ("--help",), ("help",)])
def test_the_overview_lists_every_verb(words: tuple[str, ...]):
    text = help_of(*words)
    for listed in every():
        assert f"  {listed.name}" in text
        assert listed.summary in " ".join(text.split())


def test_the_products_own_verbs_are_complete():
    """Each has a file of its own, a one-line summary, and a help a terminal can show."""
    for listed in map(find, set(verbs.NAMES) - set(probes.PROBES)):
        assert listed.summary.endswith(".")
        assert listed.function.__module__ == f"mlsys_studio.studio.verbs.{listed.name}"
        assert "usage: mlsys" in help_of(listed.name, "--help")


@pytest.mark.parametrize(
    "annotation", [int, Annotated[dict, "a dict"] | None, Annotated[int | str, "two"], Annotated[bool, "positional"]]
)
def test_a_signature_that_says_too_little_is_refused_at_once(annotation: Any):
    def wrong(word): ...

    wrong.__annotations__["word"] = annotation
    with pytest.raises(TypeError, match="wrong: word"):
        verb(wrong)


@pytest.mark.parametrize(
    ("typed", "fragment", "words"),
    [
        ("ga", "ga", ["gauge"]),
        ("gauge x --mode ", "", ["full", "light"]),
        ("gauge x --mode f", "f", ["full"]),
        ("gauge x --on", "--on", ["--only-slow"]),
        ("weigh --model mo", "mo", ["model", "mother"]),
        ("weigh --model ", "", ["model", "mother"]),
        ("gauge x -- --o", "--o", []),
        ("nothing ", "", []),
    ],
)
def test_completion(typed: str, fragment: str, words: list[str]):
    assert complete(typed, {"model": 1, "mother": 2, "_hidden": 3}) == (fragment, words)


def test_completion_offers_no_option_twice():
    assert "--only-slow" not in complete("gauge x --only-slow --", {})[1]


def mlsys(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own: nothing but that proves what reaches stdout."""
    code = (
        "import sys, probes; from mlsys_studio.studio.command import main\n"
        "with probes.installed(): sys.exit(main(sys.argv[1:]))"
    )
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, env=env)


def test_json_is_alone_on_stdout():
    ran = mlsys("gauge", "x", "--json")
    assert json.loads(ran.stdout)["given"]["script"] == "x"
    assert "noise from the verb" in ran.stderr
    assert "noise from a child process" in ran.stderr
    assert ran.returncode == 0


def test_a_result_ends_the_command_with_its_own_code():
    ran = mlsys("gauge", "x", "--exit-code", "3")
    assert ran.returncode == 3
    assert "answer: " in ran.stdout


@pytest.mark.parametrize("words", [["refuse"], ["refuse", "--json"], ["gauge"], ["nonsense"]])
def test_a_refusal_is_one_line_on_stderr_and_code_2(words: list[str]):
    ran = mlsys(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("mlsys: ")
    assert len(ran.stderr.splitlines()) == 1


def test_help_and_version_end_with_0(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == main(["gauge", "--help"]) == main(["--version"]) == 0
    assert "usage: mlsys VERB" in capsys.readouterr().out


def test_a_closed_pipe_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m mlsys_studio.studio.command doctor | head -c 1"
    ran = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert ran.stderr == ""
