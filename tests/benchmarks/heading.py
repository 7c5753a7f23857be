"""The first lines of every result: without hardware, versions, command and date a figure says nothing."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from mlsys_studio.profilers.environment import environment


def heading(device: str = "cpu") -> str:
    facts = environment()
    threads = f", {facts['torch threads']} threads" if "torch threads" in facts else ""
    gpu = f", {facts['gpu']}" if device == "cuda" else ""
    return (
        f"# {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; python {shlex.join([f'tests/benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]])}\n"
        f"# {facts['cpu']}, {facts['cores']} cores{gpu}; Python {facts['python']}, torch {facts['torch']}{threads}"
    )
