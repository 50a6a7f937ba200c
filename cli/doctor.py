"""chase doctor: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import typer

from chase.cli.console import Console

Check = tuple[bool, str]


def command(ctx: typer.Context) -> None:
    """Report what works here: ready to paste into an issue."""
    from chase.benchmarks.environment import environment

    console: Console = ctx.obj
    found = environment()
    stages = {"train": training(), "export to": exporting(), "run on": running(), "measure": measuring()}
    console.result(
        {
            "environment": found,
            "checks": {
                stage: {name: {"ok": ok, "detail": text} for name, (ok, text) in checks.items()}
                for stage, checks in stages.items()
            },
        }
    )
    console.table("environment", ("", ""), [(name, shown(value)) for name, value in found.items()])
    rows = [
        ("✓" if ok else "✗", f"{stage} {name}", text)
        for stage, checks in stages.items()
        for name, (ok, text) in checks.items()
    ]
    console.table("checks", ("", "stage", "detail"), rows)


def shown(value: object) -> str:
    """A value of the environment for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return "–" if value is None else str(value)


def training() -> dict[str, Check]:
    """Whether there is a GPU to train on, and room for runs."""
    import os
    import shutil
    from pathlib import Path

    import torch

    gpu = torch.cuda.is_available()
    here, free = Path(".").resolve(), shutil.disk_usage(".").free / 1e9
    writable = os.access(here, os.W_OK)
    return {
        "on a GPU": (gpu, torch.cuda.get_device_name() if gpu else "torch finds no CUDA GPU; training runs on the CPU"),
        "into this folder": (writable, f"{here}: {free:.0f} GB free" if writable else f"{here} cannot be written to"),
    }


def exporting() -> dict[str, Check]:
    """Whether each format can be written."""
    from chase.exporters import EXPORTERS

    missing = {name: exporter.missing() for name, exporter in EXPORTERS.items()}
    return {name: (why is None, why or EXPORTERS[name].about) for name, why in missing.items()}


def running() -> dict[str, Check]:
    """Whether each runtime works, which is tried."""
    from chase.runtimes import available

    return {name: (why is None, why or "works") for name, why in available().items()}


def measuring() -> dict[str, Check]:
    """Whether the clocks of the GPU can be watched while it is measured."""
    import importlib

    try:
        importlib.import_module("pynvml")
    except ImportError:
        return {"with GPU clocks": (False, "pip install nvidia-ml-py")}
    return {"with GPU clocks": (True, "NVML is installed")}
