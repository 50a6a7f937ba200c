"""ONNX Runtime: an ONNX file on one of its execution providers, and never on another than was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import CheckpointError
from chase.runtimes.base import BaseRuntime, dtype_name
from chase.runtimes.execution_providers import (
    CPU,
    Provider,
    check_provider,
    cuda_provider,
    open_session,
    package,
    rtx_provider,
    tensorrt_provider,
)

_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8,
}


class OnnxSession(BaseRuntime):
    """A session of ONNX Runtime; its subclasses choose the provider."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    captures: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        source: Artifact,
        provider: Provider,
        *,
        device: torch.device,
        threads: int | None,
        cuda_graph: bool,
    ) -> None:
        title = provider.name + provider.note
        super().__init__(name, provider=title, device=device, threads=threads, artifact=source)
        self._session: Any = open_session(
            source.path, provider, threads or torch.get_num_threads(), precision=source.precision
        )
        self._ports = _ports(self._session, source.path)
        self._graph_option = provider.graph_option if cuda_graph else None
        self._slots: dict[torch.Size, Slot] = {}

    def compute(self, x: Tensor) -> Tensor:
        """The logits of an input that fits the file."""
        x = x.to(self._ports.input_type).contiguous()
        return self._run_arrays(x) if self.device.type == "cpu" else self._run_bound(x)

    def _run_arrays(self, x: Tensor) -> Tensor:
        """Through views of the same memory."""
        (logits,) = self._session.run([self._ports.output], {self._ports.input: x.numpy()})
        return torch.from_numpy(logits)

    def _run_bound(self, x: Tensor) -> Tensor:
        """From and into memory that torch owns on the device; returns when the logits are there."""
        slot = self._slots.get(x.shape) if self._graph_option else None
        if slot is None:
            slot = self._slot(x.clone() if self._graph_option else x)
        if self._graph_option:  # a graph always reads and writes the same memory
            self._slots[x.shape] = slot
            slot.x.copy_(x)
        if x.is_cuda:  # the session has a stream of its own
            torch.cuda.current_stream(x.device).synchronize()
        self._session.run_with_iobinding(slot.binding, slot.options)
        return slot.logits.clone() if self._graph_option else slot.logits

    def _slot(self, x: Tensor) -> Slot:
        """Memory for an input like x and its logits, bound to the session."""
        ports, place = self._ports, (x.device.type, x.device.index or 0)
        logits = torch.empty((len(x), *ports.sides), dtype=ports.output_type, device=x.device)
        binding = self._session.io_binding()
        binding.bind_input(ports.input, *place, dtype_name(x.dtype), list(x.shape), x.data_ptr())
        binding.bind_output(ports.output, *place, dtype_name(logits.dtype), list(logits.shape), logits.data_ptr())
        options = package().RunOptions()
        if self._graph_option:
            options.add_run_config_entry(self._graph_option, str(len(self._slots) + 1))
        return Slot(x=x, logits=logits, binding=binding, options=options)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._slots.clear()
        self._session = None


class OnnxRuntime(OnnxSession):
    """An ONNX file with one input and one output, on the CPU or with CUDA.

    Without `threads` it takes as many as torch does, so that the two can be compared. `cuda_graph` captures one graph
    for each shape of input and replays it.

    Raises:
        CheckpointError: if the file is missing, truncated or no ONNX model.
        MissingDependency: if onnxruntime is not installed, or its provider does not load or has no kernel for the file.
        RecipeError: if the device cannot be used.
    """

    def __init__(
        self, source: Artifact, *, device: torch.device, threads: int | None = None, cuda_graph: bool = False
    ) -> None:
        provider = CPU if device.type == "cpu" else cuda_provider(source, device, cuda_graph=cuda_graph)
        super().__init__("onnxruntime", source, provider, device=device, threads=threads, cuda_graph=cuda_graph)

    @staticmethod
    def check() -> None:
        """Try it on the CPU.

        Raises:
            MissingDependency: if it does not work.
        """
        check_provider(CPU)

    more_checks: ClassVar[dict[str, Callable[[], None]]] = {
        "onnxruntime on cuda": lambda: check_provider(cuda_provider(None, torch.device("cuda", 0)))
    }


class OnnxTensorRT(OnnxSession):
    """An ONNX file through ONNX Runtime's TensorRT provider, which builds an engine at the first call.

    It is tuned for `batch_sizes` (smallest, usual, largest), by default those of the artifact; where there are none, a
    new engine is built whenever a batch is outside the range seen so far. `cache` is a folder for engines to be used
    again: they are code, so keep it to yourself.

    Raises:
        CheckpointError, MissingDependency, RecipeError: as OnnxRuntime.
    """

    title: ClassVar[str] = "onnxruntime-tensorrt"
    provider_for: ClassVar[Callable[..., Provider]] = staticmethod(tensorrt_provider)

    def __init__(
        self,
        source: Artifact,
        *,
        device: torch.device,
        threads: int | None = None,
        cuda_graph: bool = False,
        batch_sizes: tuple[int, int, int] | None = None,
        cache: Path | None = None,
    ) -> None:
        settings: dict[str, Any] = {"cuda_graph": cuda_graph, "batch_sizes": batch_sizes, "cache": cache}
        provider = self.provider_for(source, device, **settings)
        super().__init__(self.title, source, provider, device=device, threads=threads, cuda_graph=cuda_graph)

    @classmethod
    def check(cls) -> None:
        """Try it on the first GPU.

        Raises:
            MissingDependency: if it does not work.
        """
        check_provider(cls.provider_for(None, torch.device("cuda", 0)))


class OnnxTensorRTRtx(OnnxTensorRT):
    """An ONNX file through the plug-in provider of TensorRT for RTX; the same in all else."""

    title = "onnxruntime-tensorrt-rtx"
    provider_for = staticmethod(rtx_provider)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The one input and the one output of a session; `sides` are those of the output without the batch."""

    input: str
    input_type: torch.dtype
    output: str
    output_type: torch.dtype
    sides: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Memory that a session reads and writes."""

    x: Tensor
    logits: Tensor
    binding: Any
    options: Any


def _ports(session: Any, path: Path) -> Ports:
    given, found = session.get_inputs(), session.get_outputs()
    if len(given) != 1 or len(found) != 1 or any(each.type not in _TYPES for each in (*given, *found)):
        ports = ", ".join(f"{each.name} {each.shape} {each.type}" for each in (*given, *found))
        raise CheckpointError(f"{path.name} is no network of one input and one output of real numbers: it has {ports}")
    return Ports(
        input=given[0].name,
        input_type=_TYPES[given[0].type],
        output=found[0].name,
        output_type=_TYPES[found[0].type],
        sides=tuple(found[0].shape[1:]),
    )
