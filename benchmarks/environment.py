"""The environment: what must be known of a machine before two of its numbers may be compared."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from chase import __version__


def environment() -> dict[str, Any]:
    """Versions, processor, threads, GPU and date, ready for JSON; what is not there is None."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "os": platform.platform(),
        "python": platform.python_version(),
        "chase": __version__,
        "torch": str(torch.__version__),
        "onnx": _version("onnx"),
        "onnxruntime": _version("onnxruntime-gpu", "onnxruntime"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": _gpu(),
    }


def _version(*distributions: str) -> str | None:
    """The version of the first of these that is installed."""
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; outside Linux what Python knows of it."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return {
        "name": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    """The version of the NVIDIA driver; None if nvidia-smi does not say."""
    if not (program := shutil.which("nvidia-smi")):
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None
