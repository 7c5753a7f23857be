"""The house's rules: imports only go down, and the lower floors run on a bare machine with torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlsys_studio

ROOT = Path(mlsys_studio.__file__).resolve().parent
FLOORS = {"kernels": 1, "profilers": 2, "studio": 3, "magics": 4}
NOT_BELOW = {"IPython", "ipykernel", "ipywidgets", "plotly", "trackio", "mlflow", "fastapi", "aiohttp", "transformers"}
FILES = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]


def imports(source: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every imported module, late ones too, as parts of its name; relative ones as their full name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield module
            yield from ((*module, alias.name) for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_only_go_down(file: Path):
    inside = file.relative_to(ROOT).parts
    for module in imports(file.read_text(), ("mlsys_studio", *inside[:-1])):
        if module[0] == "mlsys_studio" and len(module) > 1:
            assert FLOORS.get(module[1], 0) <= FLOORS[inside[0]], f"{'/'.join(inside)} imports {'.'.join(module)}"
        if inside[0] in ("kernels", "profilers"):
            assert module[0] not in NOT_BELOW, f"{'/'.join(inside)} imports {module[0]}"


def test_the_rule_sees_every_way_to_import():
    source = "from ..studio import x\ndef f():\n    from .. import studio\n    import mlsys_studio.studio.parsing"
    found = set(imports(source, ("mlsys_studio", "profilers")))
    assert {("mlsys_studio", "studio", "x"), ("mlsys_studio", "studio")} <= found
    assert ("mlsys_studio", "studio", "parsing") in found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_first_lines_say_what_idea_a_file_holds(file: Path):
    assert ast.get_docstring(ast.parse(file.read_text())), f"{file.name} opens without a sentence"
