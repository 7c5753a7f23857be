"""How a process ended, in whatever words its parent tells it: a signal by name or number, or an exit code.

Codes from 129 to 159 are a shell's word for signals 1 to 31, negative ones Python's (subprocess.Popen.returncode).
"""

from __future__ import annotations

import re

SIGNALS = {"INT": 2, "ILL": 4, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "SEGV": 11, "TERM": 15, "XCPU": 24}
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes of a shell
# What each speaks for where nothing else is known: (category, cause). SIGTERM is a parent's will, and speaks for none.
MEANS = {
    -SIGNALS["INT"]: ("job_scheduler", "user_cancelled"),
    -SIGNALS["ILL"]: ("version_mismatch", "native_library_load_failure"),
    -SIGNALS["ABRT"]: ("gpu_kernel_compile", "native_segfault"),
    -SIGNALS["BUS"]: ("storage_io", "mmap_io_bus_error"),
    -SIGNALS["FPE"]: ("gpu_kernel_compile", "native_segfault"),
    -SIGNALS["KILL"]: ("host_oom", "killed_by_oom_suspected"),
    -SIGNALS["SEGV"]: ("gpu_kernel_compile", "native_segfault"),
    -SIGNALS["XCPU"]: ("job_scheduler", "time_limit"),
    NOT_EXECUTABLE: ("config_permission", "permission_denied"),
    NOT_FOUND: ("missing_dependency", "python_module_missing"),
}
_WINDOWS = {0xC0000005: -11, 0xC000001D: -4, 0xC00000FD: -11, 0xC0000409: -6}  # NTSTATUS
_ANY = re.compile(
    r"exit|sig|return|status|rc\b|kill|illegal|zsh", re.IGNORECASE
)  # one of them stands in each form below
_NAMED = re.compile(rf"\bSIG({'|'.join(SIGNALS)})\b")
_NUMBERED = re.compile(
    r"\bsignal[ :#]{1,2}\(?(\d{1,2})\b|\bWTERMSIG[ =:]{1,2}(\d{1,2})\b|\bExitCode[=:]\d+:([1-9]\d?)\b", re.IGNORECASE
)
_EXIT = re.compile(
    r"\bexit(?:ed|s)?[ _-]?(?:with )?(?:an? )?(?:non-?zero )?(?:(?:error|status|exit) )?(?:code|status|value)?\b[^\w\n-]{0,6}(-?\d{1,10})\b",
    re.IGNORECASE,
)
_RETURNED = re.compile(
    r"\b(?:returned|return[ _]?code|rc|status)\b[^\w\n-]{0,6}(-\d{1,10}|1[2-5]\d)\b(?!\.)", re.IGNORECASE
)
_TOLD = (
    (re.compile(r"\billegal (?:hardware )?instruction", re.IGNORECASE), -4),
    (re.compile(r"^zsh: abort\b"), -6),
    (re.compile(r"^(?:\[\d+\])?\s*\+?\s*\d+ killed\b|^zsh: killed\b"), -9),
)  # fmt: skip


def ending(text: str) -> int | None:
    """The exit code that a line tells of, as Python counts it: -9 for SIGKILL; None where it tells of none."""
    if not _ANY.search(text):
        return None
    if named := _NAMED.search(text):
        return -SIGNALS[named[1]]
    if numbered := _NUMBERED.search(text):
        return -int(next(number for number in numbered.groups() if number))
    for pattern, code in _TOLD:
        if pattern.search(text):
            return code
    coded = _EXIT.search(text) or _RETURNED.search(text)
    return normal(int(coded[1])) if coded else None


def normal(code: int) -> int:
    """128 + N of a shell and an NTSTATUS of Windows as -N."""
    if 128 < code < 160:
        return 128 - code
    return _WINDOWS.get(code & 0xFFFFFFFF, code)
