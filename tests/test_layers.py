"""The house rules that a machine can check: layers, absolute imports, sizes of files and functions."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("chase", "exporters", "benchmarks", "cli")  # each may import those before it
SOURCES = sorted(
    path
    for layer in LAYERS
    for path in (ROOT / layer).rglob("*.py")
    if not (layer == "chase" and path.relative_to(ROOT / layer).parts[0] in LAYERS)
)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "chase"


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def body_lines(function: ast.FunctionDef) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = function.body[1:] if documented else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    mine = LAYERS.index(path.relative_to(ROOT).parts[0])

    for module in imports(path):
        assert module.split(".")[0] not in LAYERS[1:], f"{path}: import chase.{module} instead"
        if module.split(".")[0] == "chase":
            assert LAYERS.index(layer_of(module)) <= mine, f"{path} imports {module}"


def test_files_and_functions_are_short() -> None:
    lengths = {f"{path}:{each.name}": body_lines(each) for path in SOURCES for each in functions(path)}

    assert [path for path in SOURCES if len(path.read_text().splitlines()) > 300] == []
    assert [name for name, length in lengths.items() if length > 50] == []
    assert statistics.median(lengths.values()) < 10


def test_every_public_function_and_class_says_what_it_is() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in SOURCES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]

    assert missing == []
