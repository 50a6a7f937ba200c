"""A stand-in for pynvml with the functions that Chase asks for; what a GPU does not tell raises NVMLError."""

from __future__ import annotations

from types import ModuleType


class NVMLError(Exception):
    """What pynvml raises."""


class FakeNvml(ModuleType):
    """One GPU, known as GPU-1234; its answers are attributes, and None means that it does not tell."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.mhz: int | None = 1980
        self.celsius: int | None = 61
        self.milliwatts: int | None = 700_000
        self.reasons: int | None = 0
        self.samples = 0

    def nvmlInit(self) -> None:
        """Always works."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        """The handle of the one GPU."""
        if uuid != "GPU-1234":
            raise NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        """MHz at the moment."""
        assert (handle, kind) == ("handle", self.NVML_CLOCK_SM)
        self.samples += 1
        return _told(self.mhz)

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        """MHz at most."""
        assert (handle, kind) == ("handle", self.NVML_CLOCK_SM)
        return 2010

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        """°C."""
        assert (handle, kind) == ("handle", self.NVML_TEMPERATURE_GPU)
        return _told(self.celsius)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        """mW."""
        assert handle == "handle"
        return _told(self.milliwatts)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        """mW."""
        assert handle == "handle"
        return 700_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        """Bits."""
        assert handle == "handle"
        return _told(self.reasons)


def _told(value: int | None) -> int:
    if value is None:
        raise NVMLError("Not Supported")
    return value
