"""The `mlsys` command: words in, text or JSON out, an exit code. 0 done; 1 the verb says no; 2 typed wrongly; 130 stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from ..profilers.errors import UsageError
from .parsing import HelpAsked, Request, parse
from .registry import Call
from .running import run, to_json


def main(words: Sequence[str] | None = None) -> int:
    try:
        code = _answer(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("mlsys: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mlsys doctor | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _answer(words: Sequence[str]) -> int:
    try:
        return _perform(parse(words, "mlsys"))
    except HelpAsked as text:
        print(text)
        return 0
    except UsageError as error:
        print(f"mlsys: {error}", file=sys.stderr)
        return 2


def _perform(request: Request) -> int:
    with _stdout_kept_for_the_result() if request.json else _stdout() as out:

        def show(result: object) -> None:
            print(to_json(result) if request.json else result, file=out)

        result = run(request, Call("command", namespace=None, cell=None, show=show))
        if result is not None or request.json:
            show(result)
    return int(getattr(result, "exit_code", 0))


@contextmanager
def _stdout() -> Iterator[TextIO]:
    yield sys.stdout


@contextmanager
def _stdout_kept_for_the_result() -> Iterator[TextIO]:
    """While the verb runs, file descriptor 1 *is* stderr: prints of the user's code, of C libraries, of child processes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(kept, "w", encoding="utf-8", closefd=False) as out:
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
