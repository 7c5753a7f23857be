"""A result as one file for somebody else: it opens offline, runs nothing; a profile can be stripped of names first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..profilers.errors import UsageError
from ..profilers.profile import Profile
from ..profilers.views.columns import crop
from ..profilers.views.markup import Markup, tag

Format = Literal["html", "json", "md"]
Showing = TypeVar("Showing", bound=Any)

# The views hold no script and load nothing; this makes the browser hold us to it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PAGE = """body { margin: 0 auto; padding: 32px 24px 48px; max-width: 1100px; background: #ffffff; color-scheme: light dark }
@media (prefers-color-scheme: dark) { body { background: #14171a } }
@media print { body { padding: 0; background: none } }
"""


def export(profile: Profile, path: str | Path, format: Format | None = None, redact: bool = False) -> Path:
    """Write `profile` to `path`, replacing what is there, and say where it is.

    The format is read off the suffix (.html, .json, .md) where none is named. `redact` takes out host names, user names
    and absolute paths. The file appears whole or not at all.
    """
    target = Path(path).expanduser()
    chosen = kind(Path(f"profile.{format}") if format else target)
    return write(target, _WRITERS[chosen](profile.redacted() if redact else profile), f"profile.{chosen}")


def with_files(compute: Callable[[], Showing], html: Path | None, figure: Path | None, title: str) -> Showing:
    """What is computed; where a path is given, written as the page a notebook shows, or as a figure to zoom into.

    Both files open offline. What cannot be written is told before anything is computed.
    """
    from . import figures

    files = [None if path is None else page_path(path) for path in (html, figure)]
    if figure is not None:
        figures.need_plotly()
    result = compute()
    if files[0] is not None:
        write(files[0], page(title, result._repr_mimebundle_()["text/html"]), "page.html")
    if files[1] is not None:
        write(files[1], figures.figure(result).to_html(include_plotlyjs=True, full_html=True), "figure.html")
    return result


def page_path(path: str | Path) -> Path:
    target = Path(path).expanduser()
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a page needs a file that ends in .html, and {crop(target.name, 40)!r} does not")
    return target


def write(target: Path, text: str, usual: str) -> Path:
    """The whole file or none of it, and its folder where there is none; `usual` names a file for one who named a folder."""
    try:
        if target.is_dir():
            raise UsageError(f"{target} is a folder; give a file in it, such as {target / usual}")
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text)
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {(error.strerror or str(error)).lower()}; give another path"
        ) from error
    return target.resolve()


def kind(path: Path) -> Format:
    """By the suffix; UsageError where it names none."""
    suffix = path.suffix[1:].lower()
    for known in _WRITERS:
        if {"htm": "html", "markdown": "md"}.get(suffix, suffix) == known:
            return known
    named = f"no report of format {crop(suffix, 20)!r}" if suffix else f"{crop(path.name, 40)!r} has no suffix"
    raise UsageError(f"{named}; give a file that ends in one of: .{', .'.join(_WRITERS)}")


def page(title: str, view: str) -> str:
    """A whole HTML document around the view that notebooks show."""
    head = (
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="generator" content="mlsys-studio">'),
        tag("title", crop(title, 120)),
        tag("style", Markup(_PAGE)),
    )
    body = tag("body", Markup(view))
    return "<!doctype html>\n" + tag("html", tag("head", *head), body, lang="en") + "\n"


def markdown(profile: Profile) -> str:
    """The text view in a fence that nothing inside it can close; the headline above it."""
    body = profile.text(100)
    fence = "`" * (1 + max(2, _longest_run(body)))
    title = "".join(
        f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|&~" else letter for letter in crop(profile.title, 120)
    )
    return f"# {title}\n\n{fence}text\n{body}\n{fence}\n"


def _longest_run(text: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == "`" else 0
        longest = max(longest, run)
    return longest


def _replace(target: Path, text: str) -> None:
    """Through a file beside it, so that a crash leaves the old one."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes it private; a report is to be passed on
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


_WRITERS: dict[Format, Callable[[Profile], str]] = {
    "html": lambda profile: page(profile.title, profile.html()),
    "json": Profile.to_json,
    "md": markdown,
}
