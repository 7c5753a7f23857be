"""What torch.compile needs to build kernels for a CPU: a C++ compiler, Python's headers, and paths without blanks.

Read off torch._inductor.cpp_builder of torch 2.13: the compiler is $CXX, else g++ (clang++ on macOS); Python.h is included
in every kernel; and the command line is put together without quotes, so one folder with a blank in its path ends it.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Toolchain:
    compiler: str  # as named
    found: bool
    headers: Path | None  # where Python.h should be
    headers_found: bool
    torch: Path | None  # its folder; None: not installed
    cache: Path  # where kernels are built

    def lack(self) -> tuple[str, str] | None:
        """What is wrong and what to type, or None."""
        if not self.found:
            if "CXX" in os.environ:
                return f"CXX names {self.compiler!r}, which is not there", "unset CXX, or export CXX=g++"
            return f"there is no C++ compiler ({self.compiler})", f"apt-get install {self.compiler}"
        if not self.headers_found:
            package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
            return f"Python.h is not in {self.headers}", f"apt-get install {package}"
        if self.torch is not None and _blank(self.torch):
            return (
                f"torch is in {str(self.torch)!r}, a path with a blank in it",
                "put the clone and its .venv into a folder without one, and type make there",
            )
        if self.headers is not None and _blank(self.headers):
            return f"Python's headers are in {str(self.headers)!r}, a path with a blank in it", "use another Python"
        if _blank(self.cache):
            return (
                f"kernels are built in {str(self.cache)!r}, a path with a blank in it",
                "export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor",
            )
        return None


def toolchain() -> Toolchain:
    """This process's."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    include = sysconfig.get_path("include")
    headers = Path(include) if include else None
    spec = find_spec("torch")
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor_{_user()}")
    return Toolchain(
        compiler=compiler,
        found=shutil.which(compiler) is not None,
        headers=headers,
        headers_found=headers is not None and (headers / "Python.h").is_file(),
        torch=Path(spec.origin).parent if spec and spec.origin else None,
        cache=Path(cache),
    )


def _blank(path: Path) -> bool:
    return any(letter.isspace() for letter in str(path))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in many containers
        return "unknown"
