"""A command run once more, in a fresh process with blocking launches: a CUDA error is then told where it was made.

Launches are asynchronous: without CUDA_LAUNCH_BLOCKING the traceback shows the line that happened to wait, and what is
left of the process is a broken context.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

from ..profilers.errors import UsageError

BLOCKING = {"CUDA_LAUNCH_BLOCKING": "1", "PYTHONUNBUFFERED": "1"}
_BLOCK = 1 << 16  # bytes


def output_of(command: str) -> Iterator[bytes]:
    """What it prints on both streams, shown on standard error as it comes. Raises `UsageError` where nothing can run."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--again {command!r} is no command ({error}); quote it as in a shell") from None
    if not words:
        raise UsageError("--again needs a command; type `mlsys diagnose --again 'python train.py'`")
    try:
        run = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **BLOCKING},
        )
    except OSError as error:
        raise UsageError(f"--again: {words[0]!r} does not start ({error.strerror}); name a program") from None
    assert run.stdout is not None
    try:
        while block := run.stdout.read1(_BLOCK):  # type: ignore[attr-defined] - a pipe in binary mode is buffered
            sys.stderr.write(block.decode("utf-8", "replace"))
            yield block
        code = run.wait()
        yield f"\nexit code: {code}\n".encode() if code else b""
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait()
        run.stdout.close()
