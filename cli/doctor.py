"""chase doctor: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from chase.cli.console import Console


def command(ctx: typer.Context) -> None:
    """Report what works here: ready to paste into an issue."""
    from chase.benchmarks.environment import environment

    console: Console = ctx.obj
    found = environment()
    checks = {name: check() for name, check in CHECKS.items()}
    console.result(
        {
            "environment": found,
            "checks": {name: {"ok": ok, "detail": text} for name, (ok, text) in checks.items()},
        }
    )
    console.table(
        "environment", ("", ""), [(key, "–" if value is None else str(value)) for key, value in found.items()]
    )
    rows = [("✓" if ok else "✗", name, text) for name, (ok, text) in checks.items()]
    console.table("checks", ("", "stage", "detail"), rows)


Check = tuple[bool, str]


def _train_on_gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return False, "torch finds no CUDA GPU; training runs on the CPU"
    return True, torch.cuda.get_device_name()


def _export_onnx() -> Check:
    return _imports(("onnx", "onnxscript"), "pip install onnx onnxscript")


def _run_onnx() -> Check:
    ok, text = _imports(("onnxruntime",), "pip install onnxruntime")
    if not ok:
        return ok, text
    import onnxruntime

    return True, f"{text}: {', '.join(onnxruntime.get_available_providers())}"


def _tensorrt() -> Check:
    return False, "not in this version of Chase; export to ONNX and build an engine with trtexec"


def _imports(packages: tuple[str, ...], command: str) -> Check:
    """Whether the packages load, with their versions, or what to do."""
    import importlib

    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {getattr(importlib.import_module(package), '__version__', '')}".strip())
        except (ImportError, OSError) as error:
            return False, f"{package} does not load ({error}); {command}"
    return True, ", ".join(versions)


def _write_runs() -> Check:
    import os
    import shutil
    from pathlib import Path

    free: Any = shutil.disk_usage(".").free / 1e9
    writable = os.access(Path("."), os.W_OK)
    return (
        writable,
        f"{Path('.').resolve()}: {free:.0f} GB free" if writable else "this folder cannot be written to",
    )


CHECKS: dict[str, Callable[[], Check]] = {
    "train on a GPU": _train_on_gpu,
    "export to ONNX": _export_onnx,
    "run ONNX": _run_onnx,
    "build TensorRT engines": _tensorrt,
    "write runs here": _write_runs,
}
