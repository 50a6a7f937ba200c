"""Runtimes: one way to run a network or an exported file, whatever computes it.

with open_runtime("model.onnx", device="cuda") as runtime:
    logits = runtime.run(x)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from chase.artifact import Artifact
from chase.errors import ChaseError, RecipeError
from chase.registry import Registry, did_you_mean
from chase.runtimes.aoti import Aoti
from chase.runtimes.base import Runtime, RuntimeType, resolve_device
from chase.runtimes.compiled import Compiled
from chase.runtimes.cuda_graph import CudaGraph
from chase.runtimes.eager import Eager
from chase.runtimes.executorch import ExecuTorch
from chase.runtimes.onnxruntime import OnnxRuntime, OnnxTensorRT, OnnxTensorRTRtx
from chase.runtimes.openvino import OpenVino
from chase.runtimes.tensorrt import Engine, RtxEngine
from chase.runtimes.torch_export import TorchExport
from chase.runtimes.torchscript import TorchScript

if TYPE_CHECKING:
    from chase.checkpoint import Network

__all__ = [
    "RUNTIMES",
    "Runtime",
    "RuntimeType",
    "available",
    "format_of",
    "load_source",
    "open_runtime",
    "runtime_for",
    "runtimes_for",
]

RUNTIMES: Registry[RuntimeType] = Registry(
    "runtime",
    {
        "eager": Eager,
        "compiled": Compiled,
        "torchscript": TorchScript,
        "torch-export": TorchExport,
        "aoti": Aoti,
        "onnxruntime": OnnxRuntime,
        "onnxruntime-tensorrt": OnnxTensorRT,
        "onnxruntime-tensorrt-rtx": OnnxTensorRTRtx,
        "openvino": OpenVino,
        "executorch": ExecuTorch,
        "tensorrt": Engine,
        "tensorrt-rtx": RtxEngine,
    },
)


def open_runtime(
    source: nn.Module | Artifact | Network | Path | str,
    *,
    runtime: str | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    cuda_graph: bool = False,
    **options: Any,
) -> Runtime:
    """A runtime that is ready to run `source`; by default the first one in RUNTIMES that takes its format.

    `threads` is the number of CPU threads; None leaves torch's setting, which the others then take over. `cuda_graph`
    captures the kernels of a call, once for each shape of input, and launches them together. `options` are the
    runtime's own.

    Raises:
        UnknownName: if there is no such runtime.
        RecipeError: if the runtime cannot run this format, or the device, the threads or the options make no sense.
        CheckpointError: if the file is missing, truncated, foreign, or was built for another machine.
        MissingDependency: if the runtime or the device is not there.
    """
    if isinstance(source, (str, Path)):
        source = load_source(source)
    if isinstance(source, Artifact):
        source = source.inner()
    name = runtime_for(format_of(source), runtime)
    if threads is not None and threads < 1:
        raise RecipeError(f"threads is {threads}; it must be 1 or more")
    place = resolve_device(device)
    payload = source if isinstance(source, (nn.Module, Artifact)) else source.model
    if not cuda_graph:
        return _opened(name, payload, device=place, threads=threads, **options)
    if place.type != "cuda":
        raise RecipeError(f"cuda_graph needs a CUDA device, not {place}; choose device cuda")
    if getattr(RUNTIMES[name], "captures", False):
        return _opened(name, payload, device=place, threads=threads, cuda_graph=True, **options)
    return CudaGraph(_opened(name, payload, device=place, threads=threads, **options))


def load_source(path: Path | str) -> Artifact | Network:
    """What a file of Chase holds: a network (`.pt`) or an exported artifact (with its sidecar).

    Raises:
        CheckpointError: if the file is missing or neither of them.
    """
    path = Path(path)
    if path.suffix == ".pt" and not path.with_name(path.name + ".json").is_file():
        from chase.checkpoint import load_network

        return load_network(path)
    return Artifact.load(path)


def format_of(source: nn.Module | Artifact | Network) -> str:
    """The format of what runs: that of an artifact or of the file inside it, and "module" for what PyTorch has."""
    return source.inner().format if isinstance(source, Artifact) else "module"


def runtimes_for(format: str) -> list[str]:
    """The names of the runtimes that take a format, the default one first.

    Raises:
        RecipeError: if there is none.
    """
    if names := [name for name, entry in RUNTIMES.items() if format in entry.formats]:
        return names
    raise RecipeError(f"no runtime takes the format {format!r}; the known runtimes: {', '.join(RUNTIMES)}")


def runtime_for(format: str, name: str | None = None) -> str:
    """The runtime called `name`, which takes a format, or the default one for it.

    Raises:
        UnknownName: if there is no such runtime.
        RecipeError: if it does not take the format, or none does.
    """
    able = runtimes_for(format)
    if name is not None and format not in RUNTIMES[name].formats:
        raise RecipeError(f"{name} cannot run files of the format {format}; choose {' or '.join(able)}")
    return name or able[0]


def available() -> dict[str, str | None]:
    """What keeps each runtime from working on this machine, in one line; None if nothing does.

    Every one is really tried, as far as that goes without a file. What a runtime can do beside its main road has an
    entry of its own, such as "onnxruntime on cuda".
    """
    found: dict[str, str | None] = {}
    for name, entry in RUNTIMES.items():
        tries = {name: getattr(entry, "check", None)} | getattr(entry, "more_checks", {})
        found |= {each: _missing(check) for each, check in tries.items()}
    return found


def _missing(check: Callable[[], object] | None) -> str | None:
    try:
        if check is not None:
            check()
    except ChaseError as error:
        return str(error)
    return None


def _opened(name: str, payload: nn.Module | Artifact, **arguments: Any) -> Runtime:
    """The runtime, whose options are checked first."""
    entry: Any = RUNTIMES[name]
    known = inspect.signature(entry).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in known.values()):
        own = known.keys() - {"source", "device", "threads", "cuda_graph"}
        for option in arguments.keys() - known.keys():
            hint = did_you_mean(option, own) if own else "it has none"
            raise RecipeError(f"the runtime {name} has no option {option!r}; {hint}")
    runtime: Runtime = entry(payload, **arguments)
    return runtime
