"""The environment: what must be known of a machine before two of its numbers may be compared."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from chase import __version__
from chase.benchmarks.clocks import gpu_of
from chase.packages import installed

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CGROUPS = Path("/sys/fs/cgroup")


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Versions, processor, threads, load, memory, GPU and date, ready for JSON; what is not there is None.

    The GPU is `device`, or the first one if that is none.
    """
    rtx, tensorrt = _version("tensorrt-rtx"), _version("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    return {
        "date": _now(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "chase": __version__,
        "torch": str(torch.__version__),
        "onnx": _version("onnx"),
        "onnxruntime": _version("onnxruntime-gpu", "onnxruntime"),
        "providers": _providers(),
        "openvino": _version("openvino"),
        "executorch": _version("executorch"),
        "tensorrt": tensorrt,
        "tensorrt_typing": typing_rule(tensorrt),
        "tensorrt_rtx": rtx,
        "cpu": _cpu(),
        "cpu_mhz": _mhz(),
        "cpu_governor": _line(_GOVERNOR),
        "cores": os.cpu_count(),
        "cpu_limit": _cpu_limit(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory("MemTotal"),
        "free_memory_bytes": _memory("MemAvailable"),
        "load_average_start": _load(),
        "gpu": _gpu(device if device and device.type == "cuda" else torch.device("cuda", 0)),
    }


def environment_after(before: dict[str, Any]) -> dict[str, Any]:
    """The environment of a run that is over: as it was `before`, and how busy the machine is by now."""
    return before | {"date_end": _now(), "load_average_end": _load()}


def typing_rule(tensorrt: str | None) -> str | None:
    """How a version of TensorRT chooses the precision of a layer: from version 11 on the network says it."""
    if tensorrt is None:
        return None
    return "strong" if int(tensorrt.partition(".")[0]) >= 11 else "strong or weak"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(*distributions: str) -> str | None:
    """The version of the first of these that is installed."""
    return next(iter(installed(distributions).values()), None)


def _providers() -> list[str]:
    """The execution providers that this ONNX Runtime was built with; whether they load is another question."""
    with contextlib.suppress(ImportError):
        found: list[str] = importlib.import_module("onnxruntime").get_available_providers()
        return found
    return []


def _line(path: Path) -> str | None:
    """The first line of a small file of the system, if it is there."""
    with contextlib.suppress(OSError, IndexError):
        return path.read_text().splitlines()[0].strip()
    return None


def _fields(path: Path) -> dict[str, str]:
    """The lines "name : value" of a file of the system; of several of a name the first."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found


def _cpu(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name; outside Linux what Python knows of it."""
    return _fields(cpuinfo).get("model name") or platform.processor() or platform.machine()


def _mhz(cpuinfo: Path = _CPUINFO) -> float | None:
    """The clock of the first core at this moment, as the system states it."""
    text = _fields(cpuinfo).get("cpu MHz")
    return float(text) if text else None


def _cpu_limit(cgroups: Path = _CGROUPS) -> float | None:
    """How many cores this container may use at a time; None if nothing limits it."""
    words = (_line(cgroups / "cpu.max") or "").split()
    if not words:
        older = (_line(cgroups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        words = [word for word in older if word is not None]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return float(words[0]) / float(words[1])


def _memory(name: str, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of main memory, all of it or what is available."""
    text = _fields(meminfo).get(name)
    return int(text.split()[0]) * 1024 if text else None


def _load() -> list[float] | None:
    """How many processes wanted a core, on average over 1, 5 and 15 minutes."""
    return [round(each, 2) for each in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _gpu(device: torch.device) -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(device)
    free, total = torch.cuda.mem_get_info(device)
    gpu, reason = gpu_of(device)
    return {
        "name": torch.cuda.get_device_name(device),
        "compute_capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
        "memory_bytes": total,
        "free_memory_bytes": free,
        "clocks": {**gpu.limits(), **gpu.sample()} if gpu else None,
        "no_clocks": reason,
    }


def _driver() -> str | None:
    """The version of the NVIDIA driver; None if nvidia-smi does not say."""
    if not (program := shutil.which("nvidia-smi")):
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None
