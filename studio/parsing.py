"""From the words a user typed to a call that can be made: the same for the magic and the command.

Each verb's argparse parser is built from its parameters. Nothing here exits or prints: help is raised as `HelpAsked`, and
whatever is wrong as a `UsageError` that names the word and says what to type.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import fill, wrap
from typing import Any, NoReturn

from ..profilers.errors import UsageError
from . import verbs
from .registry import Parameter, Verb, every, find

WIDTH = 80  # columns of every help


class HelpAsked(Exception):
    """`--help` or `--version`: the text is the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: a verb and its values. Expressions are still text."""

    prog: str  # "mlsys" | "%mlsys"
    verb: Verb
    values: dict[str, Any]
    json: bool


def parse(words: Sequence[str], prog: str, *, has_cell: bool = False) -> Request:
    """The request these words make. `prog` is what the user typed before them."""
    if not words or words[0] in ("-h", "--help", "help"):
        raise HelpAsked(overview(prog))
    if words[0] == "--version":
        from .. import __version__

        raise HelpAsked(f"mlsys-studio {__version__}")
    name, *rest = words
    if name not in verbs.NAMES:
        raise UsageError(f"{prog} has no verb {name!r}{meant(name, verbs.NAMES)} Its verbs: {', '.join(verbs.NAMES)}.")
    verb = find(name)
    trailing = next((p for p in verb.parameters if p.trailing), None)
    after: list[str] = []
    if trailing and "--" in rest:
        # By hand: argparse gives `script.py --steps 3 -- --lr 1` to the trailing words too early, and empty.
        cut = rest.index("--")
        rest, after = rest[:cut], rest[cut + 1 :]
    _check_options(verb, prog, rest)
    values, extra = parser(verb, prog).parse_known_args(rest)
    _check_cell(verb, prog, has_cell)  # after the parser, so that --help is answered anywhere
    if extra:
        hint = f" (words for {trailing.name} go after `--`)" if trailing else ""
        raise UsageError(f"{prog} {name} does not take {' '.join(extra)!r}{hint}; type `{prog} {name} --help`.")
    named = vars(values)
    json = named.pop("json")
    if trailing:
        named[trailing.name] = [_converter(trailing)(word) for word in after]
    return Request(prog, verb, named, json)


def parser(verb: Verb, prog: str) -> argparse.ArgumentParser:
    tree = _Parser(
        prog=f"{prog} {verb.name}",
        description=_paragraphs(verb.help),
        epilog=_epilog(verb),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=WIDTH),
        add_help=False,
        allow_abbrev=False,  # an abbreviation that works today breaks when an option is added
    )
    for parameter in verb.parameters:
        if not parameter.trailing:
            _add(tree, parameter)
    tree.add_argument("--json", action="store_true", help="print the result as JSON on stdout, and nothing else")
    tree.add_argument("-h", "--help", action=_Help, nargs=0, help="show this and stop")
    return tree


def overview(prog: str) -> str:
    """What `mlsys --help` and `%mlsys?` say."""
    listed = every()
    width = max(len(verb.name) for verb in listed)
    lines = [f"usage: {prog} VERB [options]", "", "Where your hardware's time went, why, and what to change.", ""]
    for verb in listed:
        lines += wrap(f"  {verb.name:{width}}  {verb.summary}", WIDTH, subsequent_indent=" " * (width + 4))
    lines += ["", f"`{prog} VERB --help` shows a verb's options. Every verb takes --json."]
    under_cell = [verb.name for verb in listed if verb.cell != "none"]
    if under_cell and prog.startswith("%"):
        lines += wrap(f"As %%mlsys, on the first line of a cell, they act on its code: {', '.join(under_cell)}.", WIDTH)
    return "\n".join(lines)


def meant(word: str, valid: Sequence[str]) -> str:
    """How a sentence about an unknown word ends: with the valid word next to it, if one is near."""
    from difflib import get_close_matches

    close = get_close_matches(word, valid, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def options(verb: Verb) -> list[str]:
    return [*(p.flag for p in verb.parameters if p.option), "--json", "--help"]


def _paragraphs(text: str) -> str:
    """Filled; what is indented stays as it was written."""
    blocks = text.split("\n\n")
    return "\n\n".join(block if block.startswith(" ") else fill(block, WIDTH) for block in blocks)


def _epilog(verb: Verb) -> str:
    notes = [f"After `--`: {p.says}." for p in verb.parameters if p.trailing]
    if verb.cell == "optional":
        notes.append(f"With %%mlsys {verb.name} on a cell's first line it acts on that cell.")
    if verb.cell == "required":
        notes.append(f"Put %%mlsys {verb.name} on the first line of the cell it is to act on.")
    return "\n".join(fill(note, WIDTH) for note in notes)


def _check_cell(verb: Verb, prog: str, has_cell: bool) -> None:
    if has_cell and verb.cell == "none":
        raise UsageError(f"{verb.name} does not act on a cell; type `%mlsys {verb.name}` on a line of its own.")
    if verb.cell == "required" and not has_cell:
        where = "the cell" if prog.startswith("%") else "a notebook cell"
        raise UsageError(f"{verb.name} acts on a cell; put `%%mlsys {verb.name}` on the first line of {where}.")


def _check_options(verb: Verb, prog: str, words: Sequence[str]) -> None:
    """Before argparse, which would complain of a missing word first and of the misspelt option never."""
    valid = options(verb)
    for word in words:
        if word == "--":
            return
        option = word.partition("=")[0]
        if option.startswith("--") and option not in valid:
            says = f"{prog} {verb.name} has no option {option!r}{meant(option, valid)}"
            raise UsageError(f"{says} Its options: {', '.join(valid)}.")


def _add(tree: argparse.ArgumentParser, parameter: Parameter) -> None:
    says = parameter.says.replace("%", "%%")
    settings: dict[str, Any] = {}
    if parameter.type is bool:
        action = "store_false" if parameter.default else "store_true"
        tree.add_argument(parameter.flag, dest=parameter.name, action=action, help=says)
        return
    if not parameter.required:
        settings["default"] = parameter.default
        if parameter.default is not None and parameter.default != []:
            says = f"{says} (default: {parameter.default})"
    settings.update(type=_converter(parameter), metavar=_metavar(parameter), help=says)
    if parameter.many:
        settings["nargs"] = "+" if parameter.required or parameter.option else "*"
    if parameter.option:
        tree.add_argument(parameter.flag, dest=parameter.name, required=parameter.required, **settings)
    else:
        if not parameter.required and not parameter.many:
            settings["nargs"] = "?"
        tree.add_argument(parameter.name, **settings)


def _converter(parameter: Parameter) -> Callable[[str], Any]:
    def convert(word: str) -> Any:
        if parameter.choices:
            by_word = {str(choice): choice for choice in parameter.choices}
            if word not in by_word:
                says = f"{word!r} is not one of {', '.join(by_word)}{meant(word, list(by_word))}"
                raise argparse.ArgumentTypeError(says)
            return by_word[word]
        try:
            return parameter.type(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word!r} is not {_NOUNS.get(parameter.type, 'valid')}") from None

    return convert


_NOUNS: dict[Any, str] = {int: "a whole number", float: "a number"}


def _metavar(parameter: Parameter) -> str:
    if parameter.choices:
        return "{" + ",".join(map(str, parameter.choices)) + "}"
    return "EXPR" if parameter.expression else parameter.name.upper()


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise HelpAsked(parser.format_help().rstrip())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument ")
        stop = "" if said.endswith(("?", ".")) else "."
        raise UsageError(f"{self.prog}: {said}{stop} Type `{self.prog} --help`.")
