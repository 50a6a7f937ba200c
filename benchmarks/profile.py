"""Profile: where the time of a network goes, layer by layer, beside where its multiplications are."""

from __future__ import annotations

import contextlib
import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from chase.benchmarks.candidates import Candidate
from chase.benchmarks.layers import REST, ROUNDS, Layer, rows, typical
from chase.benchmarks.onnx_profile import profile_onnx
from chase.counting import cost
from chase.errors import TraceError
from chase.runtimes.base import torch_settings


def profile_of(candidate: Candidate, device: torch.device, *, batch_size: int, threads: int | None) -> list[Layer]:
    """The layers of a candidate as its runtime runs them; none where that does not tell.

    Eager PyTorch tells the time of its modules, ONNX Runtime on a CPU that of its nodes.
    """
    artifact = candidate.artifact
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, *candidate.input_shape, generator=generator)
    if artifact is None and candidate.runtime == "eager":
        source: Any = candidate.source
        return profile_module(source if isinstance(source, nn.Module) else source.model, x.to(device), threads=threads)
    if artifact and candidate.runtime == "onnxruntime" and device.type == "cpu":
        return profile_onnx(artifact, artifact.encode(x), threads=threads)
    return []


def profile_module(model: nn.Module, x: Tensor, *, threads: int | None = None, rounds: int = ROUNDS) -> list[Layer]:
    """The modules of a network without children, in the order of their first call, and what is between them.

    Times are the lower quartiles of `rounds` passes; a module that is called more than once counts in sum.
    """
    model = copy.deepcopy(model).to(x.device).eval()
    macs = _counted(model, x)
    stops = _Stops(x.device)
    hooks = [hook for name, module in _leaves(model) for hook in stops.hooks(name, module)]
    try:
        with torch.inference_mode(), torch_settings(threads):
            found = [stops.forward(model, x) for _ in range(rounds + 2)][2:]
    finally:
        for hook in hooks:
            hook.remove()
    times = {name: typical([each[name] for each in found]) for name in found[0]}
    modules = dict(_leaves(model))
    ops = {name: type(modules[name]).__name__ if name in modules else "functions" for name in times}
    widths = {name: _width(modules[name]) for name in macs if name in modules}
    return rows(times, ops, macs, widths)


class _Stops:
    """Notes when each module of a forward pass begins and ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._notes: list[tuple[str, Any, Any]] = []
        self._begun: dict[str, Any] = {}

    def hooks(self, name: str, module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Attach to a module."""
        yield module.register_forward_pre_hook(lambda *_: self._begun.__setitem__(name, self._mark()))
        yield module.register_forward_hook(lambda *_: self._notes.append((name, self._begun[name], self._mark())))

    def forward(self, model: nn.Module, x: Tensor) -> dict[str, float]:
        """Milliseconds of each module in one pass, and of what is between them."""
        self._notes.clear()
        start = self._mark()
        model(x)
        end = self._mark()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        found: dict[str, float] = defaultdict(float)
        for name, begun, ended in self._notes:
            found[name] += self._ms(begun, ended)
        return {**found, REST: max(0.0, self._ms(start, end) - sum(found.values()))}

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _ms(self, begun: Any, ended: Any) -> float:
        ms: float = begun.elapsed_time(ended) if self._device.type == "cuda" else 1000 * (ended - begun)
        return ms


def _leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name or "model", module) for name, module in model.named_modules() if not list(module.children()))


def _counted(model: nn.Module, x: Tensor) -> dict[str, int]:
    """MACs of a batch by module, in the order of the graph; nothing where the network cannot be traced."""
    macs: dict[str, int] = defaultdict(int)
    with contextlib.suppress(TraceError):
        for layer in cost(model, x[:1]).layers:
            macs[layer.weight.rpartition(".")[0] or "model"] += len(x) * layer.macs
    return dict(macs)


def _width(module: nn.Module) -> tuple[int, int]:
    """Input and output channels of a module with a weight."""
    for kind in ("channels", "features"):
        if hasattr(module, f"in_{kind}"):
            return getattr(module, f"in_{kind}"), getattr(module, f"out_{kind}")
    weight: Any = module.weight  # of a class of the user's own, [out, in, ...] as everywhere in torch
    return weight.shape[1], weight.shape[0]
