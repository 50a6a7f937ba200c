"""Steps: training steps to be timed, on one random batch that never changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from chase.benchmarks.statistics import speedup
from chase.benchmarks.timing import Series
from chase.models import build
from chase.slimming.groups import Group
from chase.sparse import Method, Sparsifier

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained on, and how: images [batch_size, 3, side, side], fused SGD with momentum.

    `precision` is "fp32", or what autocast computes in ("bf16", "fp16"; losses are not scaled, for timing alone).
    """

    model: str
    batch_size: int
    side: int = 32
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return dataclasses.asdict(self) | {"settings": dict(self.settings)}

    def build(self) -> nn.Module:
        """The network with weights from a fixed seed, in training mode, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(self.model, **self.settings).train()

    def example(self) -> Tensor:
        """One input [1, 3, side, side] on the CPU."""
        return torch.zeros(1, 3, self.side, self.side)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images and the labels 0 and 1, on the device."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.batch_size, 3, self.side, self.side, generator=generator)
        y = torch.randint(2, (self.batch_size,), generator=generator)
        return x.to(self.device, memory_format=self.layout), y.to(self.device)

    @property
    def layout(self) -> torch.memory_format:
        """How images and weights lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


class Trainee:
    """A network in training; with a `method` a Sparsifier watches its optimizer."""

    def __init__(
        self,
        work: Workload,
        method: Method | None = None,
        *,
        steps: int = 1,
        groups: tuple[Group, ...] | None = None,
    ) -> None:
        self.work = work
        self.model = work.build().to(work.device, memory_format=work.layout)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
        self._sparsifier: Sparsifier | None = None
        if method is not None:
            self._sparsifier = Sparsifier(self.model, self.optimizer, method, steps=steps, groups=groups)
        self._forward: Callable[[Tensor], Any] = (
            torch.compile(self.model, dynamic=False) if work.compiled else self.model
        )

    @property
    def sparsifier(self) -> Sparsifier:
        """What keeps it sparse."""
        assert self._sparsifier is not None, "it is trained densely"
        return self._sparsifier

    @cached_property
    def _batch(self) -> tuple[Tensor, Tensor]:
        return self.work.batch()

    def step(self) -> None:
        """One training step."""
        self._backward()
        self.update()

    def _backward(self) -> None:
        (x, y), dtype = self._batch, AUTOCAST.get(self.work.precision)
        with torch.inference_mode(False), torch.enable_grad():
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
                loss = nn.functional.cross_entropy(self._forward(x), y)
            loss.backward()

    def gradients(self) -> list[Tensor]:
        """Those of a batch, before anything masks them; they stay until the next step."""
        self._backward()
        return [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]

    def update(self) -> None:
        """The optimizer's part of a step alone, with the gradients that are there."""
        with torch.inference_mode(False):
            self.optimizer.step()


def slowdown(base: Series, other: Series) -> dict[str, Any]:
    """The ratio other / base by the best clock, with its 95 % interval."""
    found = speedup(best_ms(other), best_ms(base))
    return {"median": found["median"], "ci95": found["ci95"]}


def best_ms(series: Series) -> Sequence[float]:
    """Milliseconds between a GPU's events; on a CPU those of the processor if one thread computes, else the host's."""
    if series.gpu_ms:
        return series.gpu_ms
    return series.cpu_ms if torch.get_num_threads() == 1 else series.host_ms
