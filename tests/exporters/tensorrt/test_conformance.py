"""Every name of TensorRT that the sources use exists in 10.16, 11.4 and TensorRT for RTX, or is asked for first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx
from fake_tensorrt import VERSIONS, Api

ROOT = Path(__file__).parents[3]
SOURCES = [
    *sorted((ROOT / "exporters" / "tensorrt").glob("*.py")),
    ROOT / "chase" / "runtimes" / "bindings.py",
    ROOT / "chase" / "runtimes" / "tensorrt.py",
]
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""The class of what the sources call by a name."""


def modules() -> dict[str, Any]:
    return {version: Api(version, {}).module for version in VERSIONS} | {"rtx": tensorrt_rtx}


def chains(source: str) -> Iterator[tuple[str, ...]]:
    """Names such as ("BuilderFlag", "TF32") of `trt.BuilderFlag.TF32`, but not in functions that ask hasattr."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    guarded = {id(inner) for node in functions if "hasattr(" in ast.unparse(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in guarded:
            names: list[str] = []
            while isinstance(node, ast.Attribute):
                names.insert(0, node.attr)
                node = node.value
            if isinstance(node, ast.Name) and node.id == "trt":
                yield tuple(names)
            elif isinstance(node, ast.Name) and node.id in CLASSES:
                yield CLASSES[node.id], names[0]


def missing(source: str, trt: Any) -> list[str]:
    found = []
    for names in set(chains(source)):
        value = trt
        for name in names:
            if not name.startswith("__") and value is not None:
                value = getattr(value, name, None)
                found += [".".join(names)] if value is None else []
    return sorted(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("version", [*VERSIONS, "rtx"])
def test_every_name_exists(path: Path, version: str) -> None:
    assert missing(path.read_text(), modules()[version]) == []


def test_the_names_are_found() -> None:
    found = {chain for path in SOURCES for chain in chains(path.read_text())}

    assert {("BuilderFlag", "TF32"), ("IBuilderConfig", "set_timing_cache"), ("OnnxParser", "parse")} <= found


def test_a_name_that_one_version_lacks_is_found() -> None:
    source = "def f(trt, config):\n    config.set_flag(trt.BuilderFlag.FP16)\n    config.int8_calibrator = None\n"

    assert {version: missing(source, trt) for version, trt in modules().items()} == {
        "10.16": [],
        "11.4": ["BuilderFlag.FP16", "IBuilderConfig.int8_calibrator"],
        "rtx": ["BuilderFlag.FP16", "IBuilderConfig.int8_calibrator"],
    }


def test_a_name_may_be_asked_for_first() -> None:
    source = "def f(trt):\n    return trt.ComputeCapability if hasattr(trt, 'ComputeCapability') else None\n"

    assert missing(source, modules()["11.4"]) == []
