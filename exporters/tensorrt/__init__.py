"""TensorRT export: engines for NVIDIA's GPUs, built from the ONNX file and in its precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chase.exporters.job import Job
from chase.exporters.tensorrt.build import Plan, build_engine, workplace
from chase.exporters.tensorrt.settings import BuildSettings
from chase.recipe import coerce

__all__ = ["BuildSettings", "Plan", "build_engine", "write_tensorrt", "write_tensorrt_rtx"]


def write_tensorrt(
    job: Job,
    path: Path,
    *,
    batch_sizes: tuple[int, int, int] = (1, 8, 32),
    tf32: bool = False,
    workspace_mb: int | None = None,
    timing_cache: Path | str | None = None,
    sparse_weights: bool = False,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    optimization_level: int | None = None,
    opset: int | None = None,
) -> dict[str, Any]:
    """Write a TensorRT engine for this machine's GPU, and its layers beside it as JSON; gives what it is bound to.

    `batch_sizes` are the smallest, the one it is tuned for and the largest. `tf32` allows fp32 products to be rounded
    to 10 bits. `timing_cache` is a folder for measurements to be used again. `sparse_weights` allows the kernels for
    2:4 sparse weights. A `hardware_compatible` engine runs on all GPUs since Ampere, at some cost in speed; a
    `version_compatible` one is loaded by later versions of TensorRT too, but only where its code is trusted.

    Raises:
        ExportError: if TensorRT cannot read or build the network.
        RecipeError: if a setting makes no sense; CheckpointError if the timing cache is of another GPU or version.
        MissingDependency: if TensorRT or a GPU is not here.
    """
    options = {
        "tf32": tf32,
        "workspace_mb": workspace_mb,
        "timing_cache": timing_cache,
        "sparse_weights": sparse_weights,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
        "optimization_level": optimization_level,
    }
    return _write(job, path, "tensorrt", opset, {"batch_sizes": batch_sizes} | options)


def write_tensorrt_rtx(
    job: Job,
    path: Path,
    *,
    batch_sizes: tuple[int, int, int] = (1, 8, 32),
    tf32: bool = False,
    workspace_mb: int | None = None,
    compute_capabilities: tuple[str, ...] | str = (),
    opset: int | None = None,
) -> dict[str, Any]:
    """Write an engine of TensorRT for RTX, and its layers beside it as JSON; gives what it is bound to.

    It needs no GPU. `compute_capabilities` are those of the GPUs that it will run on, such as ("sm86", "sm89"); without
    them it runs on all RTX GPUs since Ampere. The other settings are as in `write_tensorrt`.

    Raises:
        ExportError: if TensorRT cannot read or build the network.
        RecipeError: if a setting makes no sense.
        MissingDependency: if TensorRT for RTX is not installed.
    """
    options = {
        "tf32": tf32,
        "workspace_mb": workspace_mb,
        "compute_capabilities": (
            compute_capabilities.split(",") if isinstance(compute_capabilities, str) else compute_capabilities
        ),
    }
    return _write(job, path, "tensorrt-rtx", opset, {"batch_sizes": batch_sizes} | options)


def _write(job: Job, path: Path, flavour: str, opset: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    from chase.exporters.onnx import onnx_proto

    settings = coerce(BuildSettings(flavour=flavour), options, flavour)
    workplace(settings)  # what is missing is said before the network is exported, which takes a while
    proto, facts = onnx_proto(job, opset=opset)
    plan = build_engine(proto.SerializeToString(), settings, name=path.name, progress=job.progress)
    path.write_bytes(plan.content)
    return facts | {
        "batch_sizes": plan.batch_sizes,
        "files": _write_layers(plan, path.with_name(f"{path.name}.layers.json")),
        "built_for": plan.built_for | {"engine": _engine(plan)},
        "settings": {name: _plain(getattr(settings, name)) for name in options},
    }


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _engine(plan: Plan) -> dict[str, Any]:
    """The engine in numbers."""
    return {
        "layers": None if plan.layers is None else len(plan.layers),
        "parsed_layers": plan.parsed_layers,
        "size_bytes": len(plan.content),
        "build_s": round(plan.build_s, 3),
    }


def _write_layers(plan: Plan, path: Path) -> tuple[str, ...]:
    if plan.layers is None:
        return ()
    path.write_text(json.dumps({"Layers": plan.layers}, indent=1) + "\n")
    return (path.name,)
