"""The one error a user can cause: a sentence that says what is wrong and what to type instead."""


class UsageError(Exception):
    """Shown as one line, without a traceback, by the magic and by the command (exit code 2)."""
