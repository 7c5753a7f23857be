"""A profile without the names of its people, machines and folders.

Known names (this machine's, and those the environment states) go wherever they stand as words; absolute paths go by
their form. Unquoted, a path ends at the first space: quote paths in evidence that may hold one.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .profile import Profile
from .schema import mapped

_HOST_KEYS = frozenset({"host", "hostname", "node", "machine name", "computer"})
_USER_KEYS = frozenset({"user", "username", "login", "logname"})
_FOLDER_KEYS = frozenset({"home", "cwd", "folder", "working directory", "working folder"})

# The ledger's own words are no names, even where a user is called "copy".
_VOCABULARY = frozenset(
    {"category", "phase", "phases", "cause", "dtype", "dtype_used", "bound", "key", "finding", "created"}
)

_PATH = re.compile(
    r"""(?P<quote>['"`])(?:file://)?(?:~|/|[A-Za-z]:[\\/]|\\\\)[^'"`\n]*(?P=quote)  # quoted: to the closing quote
      | file://[^\s'"<>|,;)\]]+
      | (?<![\w/.:~)\]])~?/(?:\\\s|[^\s'"`<>|:,;()\[\]])+                            # /home/ann/x, ~/x; not tokens/s
      | (?<![\w])(?:[A-Za-z]:[\\/]|\\\\)[^\s'"`<>|,;()\[\]]+                         # C:\Users\ann, \\server\share
      | (?<==)/[^\s'"`<>|:,;()\[\]]+                                                 # --data=/home/ann
    """,
    re.VERBOSE,
)
_COLON_PATH = re.compile(r"(?<=:)/(?!/)[^\s'\"`<>|:,;()\[\]]+")  # PATH-like lists: a:/b:/c


def redacted(profile: Profile) -> Profile:
    """The same profile with `<host>`, `<user>` and `<path>` where names were."""
    names = _names(profile.environment)
    clean = mapped(profile, lambda text: _without(text, names), spare=_VOCABULARY)
    hidden = {_without(key, names): _stand_in(key, value, names) for key, value in profile.environment.items()}
    return replace(clean, environment=hidden)


def _names(environment: Mapping[str, str]) -> dict[str, str]:
    """{name: what stands in for it}; longest first, so that a folder goes before the user in it."""
    found = {socket.gethostname(): "<host>", str(Path.home()): "<path>", os.getcwd(): "<path>"}
    with suppress(KeyError, OSError, ImportError):  # an id without a name, as in many containers
        found[getpass.getuser()] = "<user>"
    for key, value in environment.items():
        for keys, stand_in in ((_HOST_KEYS, "<host>"), (_USER_KEYS, "<user>"), (_FOLDER_KEYS, "<path>")):
            if key.strip().lower().replace("_", " ") in keys:
                found[value.strip()] = stand_in
    found |= {name.split(".")[0]: "<host>" for name, stand_in in list(found.items()) if stand_in == "<host>"}
    too_common = {"", "root", "localhost", "/"}  # no secret, and inside every other word
    return {name: found[name] for name in sorted(found, key=len, reverse=True) if name.lower() not in too_common}


def _without(text: str, names: Mapping[str, str]) -> str:
    for name, stand_in in names.items():
        if stand_in == "<path>":
            text = re.sub(re.escape(name) + r"(?![\w-])[^\s'\"`<>|:,;()\[\]]*", stand_in, text)
    text = _COLON_PATH.sub("<path>", _PATH.sub("<path>", text))
    for name, stand_in in names.items():
        if stand_in != "<path>":
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", stand_in, text, flags=re.IGNORECASE)
    return text


def _stand_in(key: str, value: str, names: Mapping[str, str]) -> str:
    return names.get(value.strip()) or _without(value, names)
