"""A GPU for tests of timing: work is queued by launches, and time passes only where the test says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch


class FakeCuda:
    """Two clocks: `host_s` is the host's, `free_s` is when the GPU will have done all that was launched."""

    def __init__(self) -> None:
        self.host_s = 100.0
        self.free_s = 0.0
        self.launches = 0

    def now(self) -> float:
        """The host's clock."""
        return self.host_s

    def launch(self, *, host_ms: float, gpu_ms: float, kernels: int = 1) -> None:
        """Start kernels, each of which takes the host and the GPU so long."""
        for _ in range(kernels):
            self.launches += 1
            self.host_s += host_ms / 1000
            self.free_s = max(self.free_s, self.host_s) + gpu_ms / 1000

    def kernel(self, *, host_ms: float, gpu_ms: float, kernels: int = 1) -> Callable[[], None]:
        """A runner that launches."""
        return lambda: self.launch(host_ms=host_ms, gpu_ms=gpu_ms, kernels=kernels)

    def synchronize(self, device: object = None) -> None:
        """Wait for the GPU."""
        self.host_s = max(self.host_s, self.free_s)

    def event(self, *, enable_timing: bool) -> FakeEvent:
        """An event, which is reached when all before it is done."""
        assert enable_timing
        return FakeEvent(self)

    def install(self, patch: pytest.MonkeyPatch) -> FakeCuda:
        """Put this GPU in the place of torch's."""
        patch.setattr(torch.cuda, "Event", self.event)
        patch.setattr(torch.cuda, "synchronize", self.synchronize)
        patch.setattr(torch.cuda, "current_stream", lambda device: "stream")
        return self


class FakeEvent:
    """A point in the queue of a FakeCuda."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.time_s = 0.0

    def record(self, stream: object) -> None:
        """Queue it."""
        assert stream == "stream"
        self.time_s = max(self._cuda.free_s, self._cuda.host_s)

    def elapsed_time(self, later: FakeEvent) -> float:
        """Milliseconds until another one."""
        return 1000 * (later.time_s - self.time_s)
