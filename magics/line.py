"""The words on a magic's line. A shell's rules would eat the quotes of `--model nets['small']`."""

from __future__ import annotations

from ..profilers.errors import UsageError

_CLOSING = {"(": ")", "[": "]", "{": "}"}


def split(line: str) -> list[str]:
    """Blanks part words, except inside quotes and brackets: `--model Net(3, width=4)` is two words.

    Quotes inside a word stay, as they are Python; a word that is one quoted string loses them; `\\` is a plain character.
    """
    words: list[str] = []
    word, expected = "", [""]  # the closing marks still to come, innermost last
    for mark in line:
        inner = expected[-1]
        if inner and mark == inner:
            expected.pop()
        elif inner not in ("'", '"'):  # a quote hides brackets and blanks, a bracket only blanks
            if mark in "'\"":
                expected.append(mark)
            elif mark in _CLOSING:
                expected.append(_CLOSING[mark])
        if mark.isspace() and len(expected) == 1:
            words += [word] if word else []
            word = ""
        else:
            word += mark
    if len(expected) > 1:
        raise UsageError(f"{expected[-1]} is missing in: {line.strip()}")
    return [_unquoted(word) for word in [*words, word] if word]


def _unquoted(word: str) -> str:
    if word.startswith("--") and "=" in word:
        option, _, value = word.partition("=")
        return f"{option}={_unquoted(value)}"
    quote = word[:1]
    whole = len(word) > 1 and quote in ("'", '"') and word[-1] == quote and quote not in word[1:-1]
    return word[1:-1] if whole else word
