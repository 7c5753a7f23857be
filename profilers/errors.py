"""The one error a user can cause: a sentence that says what is wrong and what to type instead."""

_LONGEST = 900  # characters: a value of ten thousand is not repeated whole
_END = 300  # of them from the end, which says what to type instead


class UsageError(Exception):
    """Shown as one line, without a traceback, by the magic and by the command (exit code 2).

    The value it complains of may be anything: what is not printable becomes a space, and a long middle an ellipsis.
    """

    def __init__(self, sentence: str) -> None:
        line = " ".join("".join(c if c.isprintable() else " " for c in str(sentence)).split())
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST - _END]} … {line[-_END:]}")
