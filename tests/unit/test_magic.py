"""The notebook face, in a real IPython shell. Witness: IPython itself running the same code as a plain cell."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import probes
import pytest

pytest.importorskip("IPython")

from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from mlsys_studio.magics.line import split
from mlsys_studio.profilers.errors import UsageError


@pytest.fixture(scope="module")
def one_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    folder = str(tmp_path_factory.mktemp("ipython"))
    shell = InteractiveShell.instance(config=config, ipython_dir=folder)
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(one_shell: InteractiveShell) -> Iterator[InteractiveShell]:
    with probes.installed():
        one_shell.reset(new_session=False)
        one_shell.run_line_magic("load_ext", "mlsys_studio")
        yield one_shell
        one_shell.run_line_magic("unload_ext", "mlsys_studio")


CODE = "first = 20\nsecond = first + 1\n"


def test_a_cell_leaves_its_names(shell: InteractiveShell):
    result = shell.run_cell(f"%%mlsys watch\n{CODE}")
    assert result.success
    assert shell.user_ns["second"] == 21
    assert str(result.result).startswith("answer: ")


@pytest.mark.parametrize("last", ["second", "second;", "third = second", "print(second)", "# nothing"])
def test_the_last_expression_is_shown_as_in_a_plain_cell(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], last: str
):
    shell.run_cell(CODE + last, store_history=True)
    plain = re.sub(r"Out\[\d+", "Out[", capsys.readouterr().out)
    shell.run_cell(f"%%mlsys watch\n{CODE}{last}", store_history=True)
    ours, _, answer = re.sub(r"Out\[\d+", "Out[", capsys.readouterr().out).rpartition("Out[")
    assert "Answer(" in answer
    assert ours == plain


def test_a_verb_may_leave_it_unshown(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    shell.run_cell(f"%%mlsys watch --quiet\n{CODE}second")
    assert capsys.readouterr().out.count("Out[") == 1


RAISES = "def f():\n    return 1 / 0\n\nf()\n"


def lines_blamed(shown: str) -> list[str]:
    return re.findall(r"^-+> (\d+.*)$", shown, re.MULTILINE)


def test_an_error_is_shown_as_the_users_own(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    shell.run_cell("#\n" + RAISES)  # a first line of its own, so that line numbers agree
    plain = capsys.readouterr().out
    result = shell.run_cell(f"%%mlsys watch\n{RAISES}")
    shown = capsys.readouterr().out
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert lines_blamed(shown) == lines_blamed(plain) == ["5 f()", "3     return 1 / 0"]
    assert "mlsys_studio" not in shown
    assert "interactiveshell" not in shown
    assert "'measured until then'" in shown  # by the verb, before it went on


def test_an_interrupt_goes_on_to_ipython(shell: InteractiveShell):
    result = shell.run_cell("%%mlsys watch\nraise KeyboardInterrupt")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)


def test_a_syntax_error_points_at_the_users_line(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    assert not shell.run_cell("%%mlsys watch\nfirst = 1\nfirst ===2").success
    shown = capsys.readouterr().out
    assert "line 3" in shown
    assert "first ===2" in shown
    assert "SyntaxError" in shown
    assert "interactiveshell" not in shown
    assert "first" not in shell.user_ns


def test_a_cell_that_awaits_is_told_what_to_write(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    assert not shell.run_cell("%%mlsys watch\nimport asyncio\nawait asyncio.sleep(0)").success
    assert "`with mlsys_studio.watch():`" in capsys.readouterr().err
    assert "asyncio" not in shell.user_ns


def test_nothing_is_expanded(shell: InteractiveShell):
    shell.run_cell("x = 1\nd = {'x': 5}")
    shell.run_cell("%%mlsys watch\nkept = '{x} $x'")
    assert shell.user_ns["kept"] == "{x} $x"
    assert shell.run_cell("%mlsys weigh --model {'x':x}").result.given["model"] == {"x": 1}


def test_ipythons_own_syntax_works_inside(shell: InteractiveShell):
    shell.run_cell("%%mlsys watch\nfolder = %pwd\n")
    assert isinstance(shell.user_ns["folder"], str)


def test_the_same_code_may_run_again(shell: InteractiveShell):
    from mlsys_studio.magics.cell import Cell

    shell.run_cell("count = 0")
    cell = Cell("count += 1", header="%%mlsys watch", verb="watch", shell=shell)
    cell.run()
    cell.run()
    assert shell.user_ns["count"] == 2


def test_an_object_is_named_as_in_python(shell: InteractiveShell):
    shell.run_cell("nets = {'the small': [7]}")
    assert shell.run_cell("%mlsys weigh --model nets['the small']").result.given == {"model": [7], "face": "magic"}


@pytest.mark.parametrize(
    "line", ["%mlsys nothing", "%mlsys gauge x --stpes 1", "%mlsys refuse", "%%mlsys doctor\nx = 1"]
)
def test_a_refusal_is_one_line_and_stops_the_notebook(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str
):
    assert not shell.run_cell(line).success
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("UsageError: ")
    assert len(said.err.splitlines()) == 1


def test_a_refusal_leaves_the_last_exception_to_be_explained(shell: InteractiveShell):
    shell.run_cell("1 / 0")
    failed = sys.last_value
    assert isinstance(failed, ZeroDivisionError)
    shell.run_cell("%mlsys diagnos")
    assert sys.last_value is failed and sys.last_traceback is failed.__traceback__
    shell.run_cell("%mlsys diagnos\nnothing")
    shell.run_cell("int('x')")
    assert isinstance(sys.last_value, ValueError)  # a newer one is kept as ever
    assert shell.events.callbacks["post_run_cell"] == []


def test_after_a_refusal_alone_there_is_nothing_to_explain(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        monkeypatch.delattr(sys, name, raising=False)
    shell.run_cell("%mlsys diagnos")
    assert not hasattr(sys, "last_value")


def test_help_is_printed_and_nothing_is_raised(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    result = shell.run_cell("%mlsys watch --help")
    assert result.success
    assert result.result is None
    assert "usage: %mlsys watch" in capsys.readouterr().out


def test_question_mark_shows_the_generated_help(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    shell.run_cell("%mlsys?")
    assert "usage: %mlsys VERB" in capsys.readouterr().out


def test_json_is_alone_on_stdout(shell: InteractiveShell, capfd: pytest.CaptureFixture[str]):
    shell.run_cell("%%mlsys watch --json\nprint('noise')\n'a last expression'")
    said = capfd.readouterr()
    assert json.loads(said.out) == {"given": {"names": 4}, "exit_code": 0}
    assert "noise" in said.err


def completions(shell: InteractiveShell, line: str) -> list[str]:
    with provisionalcompleter():
        return [c.text for c in shell.Completer.completions(line, len(line))]


def test_tab_completes_verbs_options_and_names(shell: InteractiveShell):
    shell.run_cell("model_of_mine = 1")
    assert completions(shell, "%mlsys gau") == ["gauge"]
    assert completions(shell, "p = %mlsys gau") == ["gauge"]
    assert completions(shell, "%%mlsys gauge x --on") == ["--only-slow"]
    assert completions(shell, "%mlsys weigh --model model_of") == ["model_of_mine"]


def test_loading_twice_and_unloading_leave_nothing_behind(one_shell: InteractiveShell):
    magics, matchers = one_shell.magics_manager.magics, one_shell.Completer.custom_matchers
    before = (set(magics["line"]), set(magics["cell"]), list(matchers))
    from mlsys_studio import load_ipython_extension, unload_ipython_extension

    load_ipython_extension(one_shell)
    load_ipython_extension(one_shell)
    assert len(matchers) == len(before[2]) + 1
    unload_ipython_extension(one_shell)
    assert (set(magics["line"]), set(magics["cell"]), list(matchers)) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fix  1 ", ["fix", "1"]),
        ("--model nets['a b'].x --n 2", ["--model", "nets['a b'].x", "--n", "2"]),
        ("--model Net(3, width=[4, 5])", ["--model", "Net(3, width=[4, 5])"]),
        ("--title 'a b' --path C:\\x", ["--title", "a b", "--path", "C:\\x"]),
        ('--title="it\'s here"', ["--title=it's here"]),
        ("'a' + 'b'", ["a", "+", "b"]),
        ("", []),
    ],
)
def test_words_of_a_line(line: str, words: list[str]):
    assert split(line) == words


@pytest.mark.parametrize("line", ["--model f(1", "--title 'open"])
def test_an_open_bracket_or_quote_is_named(line: str):
    with pytest.raises(UsageError, match="is missing in"):
        split(line)
