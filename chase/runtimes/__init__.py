"""Runtimes: one way to run a network or an exported file, whatever computes it.

with open_runtime("model.onnx", device="cuda") as runtime:
    logits = runtime.run(x)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from chase.artifact import Artifact
from chase.errors import RecipeError
from chase.registry import Registry
from chase.runtimes.base import Runtime, RuntimeType, resolve_device
from chase.runtimes.eager import Eager
from chase.runtimes.onnxruntime import OnnxRuntime
from chase.runtimes.tensorrt import TensorRT
from chase.runtimes.torchscript import TorchScript

if TYPE_CHECKING:
    from chase.checkpoint import Network

__all__ = ["RUNTIMES", "Runtime", "RuntimeType", "format_of", "load_source", "open_runtime", "runtimes_for"]

RUNTIMES: Registry[RuntimeType] = Registry(
    "runtime",
    {"eager": Eager, "torchscript": TorchScript, "onnxruntime": OnnxRuntime, "tensorrt": TensorRT},
)


def open_runtime(
    source: nn.Module | Artifact | Network | Path | str,
    *,
    runtime: str | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
) -> Runtime:
    """A runtime that is ready to run `source`; by default the first one in RUNTIMES that takes its format.

    `threads` is the number of CPU threads; None leaves torch's setting, which ONNX Runtime then takes over.

    Raises:
        UnknownName: if there is no such runtime.
        RecipeError: if the runtime cannot run this format, or the device or the threads make no sense.
        CheckpointError: if the file is missing, truncated or foreign.
        MissingDependency: if the runtime or the device is not there.
    """
    if isinstance(source, (str, Path)):
        source = load_source(source)
    format = format_of(source)
    name = runtime or runtimes_for(format)[0]
    if format not in RUNTIMES[name].formats:
        raise RecipeError(f"{name} cannot run a {format}; choose {' or '.join(runtimes_for(format))}")
    if threads is not None and threads < 1:
        raise RecipeError(f"threads is {threads}; it must be 1 or more")
    return RUNTIMES[name](_payload(source), device=resolve_device(device), threads=threads)


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
    """The format of a source: an artifact's own, and "module" for what PyTorch runs as it is."""
    return source.format if isinstance(source, Artifact) else "module"


def runtimes_for(format: str) -> list[str]:
    """The names of the runtimes that take a format, the default one first.

    Raises:
        RecipeError: if there is none.
    """
    if names := [name for name, entry in RUNTIMES.items() if format in entry.formats]:
        return names
    raise RecipeError(f"no runtime takes the format {format!r}; the known runtimes: {', '.join(RUNTIMES)}")


def _payload(source: nn.Module | Artifact | Network) -> Any:
    """What the runtime's constructor takes: the module or the path."""
    if isinstance(source, nn.Module):
        return source
    return source.path if isinstance(source, Artifact) else source.model
