"""The exported file: opens offline, runs nothing, appears whole or not at all."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.profile import Profile
from mlsys_studio.studio.report import export

from .pages import Page
from .profiles import empty, hostile, light, typical


@pytest.mark.parametrize("make", [typical, light, empty, hostile])
def test_the_page_is_a_whole_document_that_forbids_scripts_and_network(make, tmp_path: Path):
    text = export(make(), tmp_path / "a.html").read_text("utf-8")
    assert text.startswith("<!doctype html>\n")
    page = Page(text.removeprefix("<!doctype html>\n"), document=True)
    assert page.metas[0] == {"charset": "utf-8"}
    policy = next(meta["content"] for meta in page.metas if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "script" not in policy
    assert not any(re.search(r"(?i)url\(|@import|expression", style) for style in page.styles)


def test_no_address_in_an_ordinary_report(tmp_path: Path):
    assert not re.search(r"(?i)https?:|//|src=|href=", export(typical(), tmp_path / "a.html").read_text("utf-8"))


def test_json_reads_back(tmp_path: Path):
    assert Profile.from_json(export(typical(), tmp_path / "base.JSON").read_text()) == typical()


@pytest.mark.parametrize("make", [typical, hostile])
def test_markdown_is_one_fence_that_nothing_closes(make, tmp_path: Path):
    lines = export(make(), tmp_path / "a.md").read_text("utf-8").split("\n")
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
    assert lines[0].startswith("# ") and fences[0] == 2 and fences[-1] == len(lines) - 2
    assert not re.search(r"(?<!\\)[<\[`]", lines[0])


def test_backticks_cannot_close_the_fence(tmp_path: Path):
    profile = Profile("t", "c", typical().steps, None, notes=("```` <b>", "`````"))
    text = export(profile, tmp_path / "a.md").read_text("utf-8")
    fence = text.split("\n")[2].removesuffix("text")
    assert text.count(fence) == 2


def test_names_are_left_out_on_request(tmp_path: Path):
    for name in ("a.html", "a.md", "a.json"):
        text = export(typical(), tmp_path / name, redact=True).read_text("utf-8")
        assert "gpu7" not in text and "/home/ann" not in text
        assert "gpu7" in export(typical(), tmp_path / name).read_text("utf-8")


def test_folders_are_made_and_files_replaced(tmp_path: Path):
    target = tmp_path / "new" / "deep" / "a.html"
    export(empty(), target)
    assert export(typical(), str(target)) == target
    assert "byte-level GPT" in target.read_text("utf-8")
    assert os.listdir(target.parent) == ["a.html"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o400


def test_the_format_can_be_named(tmp_path: Path):
    assert Profile.from_json(export(light(), tmp_path / "profile.txt", "json").read_text()) == light()


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("a.pdf", "'pdf'"),
        ("noend", "'noend' has no suffix; give a file that ends in one of: .html, .json, .md"),
        ("folder.html", "is a folder"),
        ("file.txt/a.html", "cannot write"),
        ("x" * 300 + ".html", "cannot write"),
    ],
)
def test_a_bad_path_is_one_sentence_and_leaves_nothing(place: str, says: str, tmp_path: Path):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file.txt").write_text("kept")
    with pytest.raises(UsageError, match=says) as error:
        export(typical(), tmp_path / place)
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "folder.html"]


def test_a_format_nobody_knows_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no report of format 'pdf'"):
        export(typical(), tmp_path / "a.html", "pdf")  # type: ignore[arg-type]


def test_no_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UsageError, match=r"cannot write .*permission denied; give another path"):
        export(typical(), tmp_path / "a.html")
    assert os.listdir(tmp_path) == []
