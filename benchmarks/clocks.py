"""Clocks: what the GPU's clock, temperature, power and brakes were while something was timed, by NVML."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from chase.errors import MissingDependency
from chase.packages import require

if TYPE_CHECKING:
    from typing_extensions import Self

INTERVAL_S = 0.2

REASONS = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "too hot (driver)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""The bits of NVML that say why the clock is below what was asked for; the others are idleness and settings."""


class Gpu:
    """One GPU as NVML sees it.

    Raises:
        MissingDependency: if pynvml is not installed, or the driver does not answer or does not know the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml = require("pynvml", purpose="reading the GPU's clocks", install="nvidia-ml-py")
        try:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        except Exception as error:  # NVMLError, which derives from Exception alone
            raise MissingDependency(f"NVML does not know {device} ({error}); the GPU's clocks are not read") from error

    def sample(self) -> dict[str, Any]:
        """The clock of its processors, temperature, power and what throttles it; None for what it does not tell."""
        nvml, handle = self._nvml, self._handle
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        return {
            "sm_mhz": self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "temperature_c": self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "power_w": None if power is None else power / 1000,
            "throttle": reasons(self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0),
        }

    def limits(self) -> dict[str, Any]:
        """The highest clock of its processors and the power that it may draw."""
        nvml, handle = self._nvml, self._handle
        power = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return {
            "max_sm_mhz": self._ask(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
            "power_limit_w": None if power is None else power / 1000,
        }

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where this GPU has none."""
        with contextlib.suppress(self._nvml.NVMLError):
            return question(*arguments)
        return None


def gpu_of(device: torch.device) -> tuple[Gpu | None, str | None]:
    """What NVML says of a device, or None and why it says nothing."""
    if device.type != "cuda":
        return None, None
    try:
        return Gpu(device), None
    except MissingDependency as error:
        return None, str(error)


def reasons(bits: int) -> list[str]:
    """What throttles a GPU, in words."""
    return [words for bit, words in REASONS.items() if bits & bit]


class Trace:
    """A thread that samples a GPU every INTERVAL_S seconds while the block runs, and once at each end; without a GPU
    it does nothing."""

    def __init__(self, gpu: Gpu | None, *, interval_s: float = INTERVAL_S) -> None:
        self.samples: list[dict[str, Any]] = []
        self._gpu = gpu
        self._interval_s = interval_s
        self._start = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def now(self) -> float:
        """Seconds since the trace was made, as in `t_s` of its samples."""
        return time.monotonic() - self._start

    def _watch(self) -> None:
        while not self._done.wait(self._interval_s):
            self._take()

    def _take(self) -> None:
        if self._gpu is not None:
            self.samples.append({"t_s": round(self.now(), 3), **self._gpu.sample()})

    def __enter__(self) -> Self:
        self._take()
        if self._gpu is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        if self._gpu is not None:
            self._thread.join()
        self._take()


def throttled(samples: Iterable[Mapping[str, Any]], since_s: float = 0.0) -> str | None:
    """The warning for what was timed since then, if the GPU was throttled."""
    found = [sample for sample in samples if sample["t_s"] >= since_s]
    hit = [sample for sample in found if sample["throttle"]]
    if not hit:
        return None
    why = sorted({reason for sample in hit for reason in sample["throttle"]})
    share = f"{100 * len(hit) / len(found):.0f} % of the time"
    return f"the GPU was throttled {share} ({', '.join(why)}); cool it, raise its power limit, or fix its clock"


def _uuid(device: torch.device) -> str:
    """NVML's name for a device of torch, whose numbers CUDA_VISIBLE_DEVICES changes."""
    found = str(torch.cuda.get_device_properties(device).uuid)
    return found if found.startswith("GPU-") else f"GPU-{found}"
