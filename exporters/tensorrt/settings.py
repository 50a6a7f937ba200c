"""What an engine is built with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chase.errors import ExportError, RecipeError
from chase.exporters.job import checked_batch_sizes

LEVELS = range(6)
"""Of optimisation: the higher, the longer TensorRT looks for fast kernels; 3 is its default."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How an engine is built by `flavour`, "tensorrt" or "tensorrt-rtx".

    `batch_sizes` are the smallest, the usual and the largest. `compute_capabilities` ("sm86") are for tensorrt-rtx, and
    `timing_cache` is a folder.

    Raises:
        RecipeError: if a value makes no sense.
    """

    flavour: str = "tensorrt"
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    tf32: bool = False
    workspace_mb: int | None = None
    timing_cache: Path | None = None
    sparse_weights: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    optimization_level: int | None = None
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_batch_sizes(self.batch_sizes)
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise RecipeError(f"workspace_mb is {self.workspace_mb}; it must be 1 or more")
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise RecipeError(f"optimization_level is {self.optimization_level}; it must be 0 to {LEVELS[-1]}")


def configure(trt: Any, config: Any, settings: BuildSettings) -> None:
    """Set up an IBuilderConfig.

    Raises:
        RecipeError: if there is no such compute capability.
    """
    (config.set_flag if settings.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if settings.sparse_weights:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb << 20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the layer table needs it
    _aim(config, targets(trt, settings))


def _aim(config: Any, chosen: list[Any]) -> None:
    if chosen and hasattr(config, "num_compute_capabilities"):  # of TensorRT-RTX, as are the targets
        config.num_compute_capabilities = len(chosen)
        for index, target in enumerate(chosen):
            config.set_compute_capability(target, index)


def targets(trt: Any, settings: BuildSettings) -> list[Any]:
    """The members of ComputeCapability that are built for; without any, TensorRT-RTX builds for all since Ampere.

    Raises:
        RecipeError: if there is no such compute capability.
    """
    if not settings.compute_capabilities:
        return []
    if not hasattr(trt, "ComputeCapability"):
        raise RecipeError("TensorRT builds for the GPU of this machine; leave compute_capabilities out")
    known = {name.lower(): each for name, each in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    for name in settings.compute_capabilities:
        if name.lower() not in known:
            raise RecipeError(f"TensorRT-RTX does not build for {name!r}; known: {', '.join(known)}")
    return [known[name.lower()] for name in settings.compute_capabilities]


def add_profile(builder: Any, config: Any, network: Any, batch_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Tell the builder which batch sizes there will be; gives them, or those of a network that takes only one.

    Raises:
        ExportError: if the network has another number of inputs than one, or leaves more than the batch size open.
    """
    if network.num_inputs != 1:
        raise ExportError(f"the ONNX file has {network.num_inputs} inputs; an engine of Chase has one")
    tensor = network.get_input(0)
    shape = tuple(tensor.shape)
    if -1 in shape[1:]:
        raise ExportError(
            f"the input {list(shape)} leaves more than the batch size open; export with a fixed image size"
        )
    if shape[0] != -1:
        return (shape[0], shape[0], shape[0])
    profile = builder.create_optimization_profile()
    smallest, usual, largest = ((size, *shape[1:]) for size in batch_sizes)
    profile.set_shape(tensor.name, smallest, usual, largest)
    config.add_optimization_profile(profile)
    return batch_sizes
