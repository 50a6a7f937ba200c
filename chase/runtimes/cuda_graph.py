"""CUDA graphs: one launch for all kernels of a call, around any runtime that works on torch's stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chase.errors import RecipeError, reason
from chase.runtimes.base import Runtime

if TYPE_CHECKING:
    from typing_extensions import Self

WARM_UP = 3
"""Calls before the capture: libraries choose their kernels and take their memory in the first ones."""


class CudaGraph:
    """A runtime whose calls are captured, once for each shape and type of input, and then replayed.

    Raises:
        RecipeError: if the runtime is not on a CUDA device.
    """

    def __init__(self, runtime: Runtime) -> None:
        if runtime.device.type != "cuda":
            raise RecipeError(f"cuda_graph needs a CUDA device; {runtime.name} is on {runtime.device}")
        self.name = runtime.name
        self.provider = f"{runtime.provider}, CUDA graph"
        self.device = runtime.device
        self._runtime = runtime
        self._captured: dict[tuple[torch.Size, torch.dtype], Captured] = {}
        self._pool: Any = None

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w], in memory of their own.

        Raises:
            RecipeError: if the runtime cannot run x, or its call cannot be captured.
        """
        key = x.shape, x.dtype
        with torch.inference_mode(), torch.cuda.device(self.device):
            if key not in self._captured:
                self._captured[key] = self._capture(x)
            captured = self._captured[key]
            captured.x.copy_(x)
            captured.graph.replay()
            return captured.logits.clone()

    def _capture(self, x: Tensor) -> Captured:
        x = x.clone()
        self._warm_up(x)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                logits = self._runtime.run(x)
        except (RuntimeError, RecipeError) as error:
            why = reason(error)
            raise RecipeError(f"{self.name} cannot be captured in a CUDA graph: {why}; leave cuda_graph out") from error
        self._pool = graph.pool()  # replays never overlap and results are copied, so all graphs share their memory
        return Captured(graph=graph, x=x, logits=logits)

    def _warm_up(self, x: Tensor) -> None:
        """Call it on a stream at the side, as capturing requires."""
        current, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._runtime.run(x)
        current.wait_stream(side)

    def __enter__(self) -> Self:
        self._runtime.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._captured.clear()
        self._runtime.__exit__(*error)


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A graph and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    x: Tensor
    logits: Tensor
