"""The system's files about itself, under /proc and /sys: which of them there are differs from machine to machine."""

from __future__ import annotations

from pathlib import Path


def text(file: Path) -> str:
    """Empty where this system has no such file, or does not let us read it."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
