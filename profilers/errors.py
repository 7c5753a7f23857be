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

    def _render_traceback_(self) -> list[str]:
        """What IPython shows where a function of ours was called: the user's own line, then the sentence."""
        return [*_users_line(self), f"{type(self).__name__}: {self}"]


def _users_line(error: BaseException) -> list[str]:
    """The innermost line that is not ours, where its source is known."""
    import linecache  # late: every command imports this file
    import traceback
    from pathlib import Path

    ours = __name__.partition(".")[0]
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] != ours:
            source = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).strip()
            file = Path(frame.f_code.co_filename)
            where = f"{file.name}, line {number}" if file.is_file() else f"line {number}"
            return [f"{where}: {source}"] if source else []
    return []
