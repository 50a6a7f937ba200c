"""Build: ONNX bytes become the plan of an engine, the same way for TensorRT 10, 11 and TensorRT for RTX."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import torch

from chase.errors import ExportError, MissingDependency
from chase.exporters.job import Progress, silent
from chase.exporters.tensorrt.cache import cache_file, timing_cache
from chase.exporters.tensorrt.layers import inspected, logged
from chase.exporters.tensorrt.progress import interruptible, monitor_of
from chase.exporters.tensorrt.settings import BuildSettings, add_profile, configure, targets
from chase.runtimes.base import machine
from chase.runtimes.bindings import FLAVOURS, and_more, bindings, log_of, one_line

PORTABLE = "8.0+"
"""The compute capabilities of an engine for Ampere and all later GPUs."""

_EMPTY = re.compile("^Invalid Node|cudaError")  # what a parser adds to every error, and where there is no driver


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An engine as bytes; `layers` are its own (None: TensorRT did not list them), `parsed_layers` the network's."""

    content: bytes
    batch_sizes: tuple[int, ...]
    layers: list[Any] | None
    parsed_layers: int
    build_s: float
    built_for: dict[str, Any]


def build_engine(
    onnx: bytes, settings: BuildSettings, *, name: str = "the network", progress: Progress = silent
) -> Plan:
    """The plan for an ONNX file of one input; its precision is that of the graph. `name` is for messages.

    Raises:
        ExportError: if TensorRT cannot read or build the network; it names the node and the reason.
        RecipeError: if a setting makes no sense; CheckpointError if the timing cache is of another GPU or version.
        MissingDependency: if TensorRT, or the GPU that it builds on, is not here.
    """
    trt, title, gpu = workplace(settings)
    log = log_of(trt)
    log.clear()
    builder = _builder(trt, title)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, log)  # owns the weights: it must live as long as the build goes on
    if not parser.parse(onnx):
        raise ExportError(f"{title} cannot read {name}: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    configure(trt, config, settings)
    batch_sizes = add_profile(builder, config, network, settings.batch_sizes)
    monitor = config.progress_monitor = monitor_of(trt, progress)
    cache = settings.timing_cache and cache_file(settings.timing_cache, gpu or "", trt.__version__)
    begin = time.perf_counter()
    with timing_cache(trt, config, cache), interruptible(monitor):
        content = builder.build_serialized_network(network, config)
        if content is None and monitor.error is None:
            raise ExportError(f"{title} cannot build {name}{_for(settings)}: {log.reason()}")
    build_s = time.perf_counter() - begin
    plan = bytes(content)
    return Plan(
        content=plan,
        batch_sizes=batch_sizes,
        layers=logged(log.layers) if gpu is None else inspected(trt, plan),
        parsed_layers=network.num_layers,
        build_s=build_s,
        built_for=_built_for(trt.__version__, settings, gpu),
    )


def _builder(trt: Any, title: str) -> Any:
    try:
        return trt.Builder(log_of(trt))
    except TypeError as error:  # what the bindings make of a null pointer
        why = log_of(trt).reason()
        raise MissingDependency(f"{title} cannot start: {why}; is the GPU's driver new enough for it?") from error


def _for(settings: BuildSettings) -> str:
    return f" for {', '.join(settings.compute_capabilities)}" if settings.compute_capabilities else ""


def workplace(settings: BuildSettings) -> tuple[Any, str, str | None]:
    """The bindings, their name and version, and the GPU that is built for (None: TensorRT for RTX needs none).

    Raises:
        RecipeError: if the bindings do not build for what the settings name.
        MissingDependency: if TensorRT, or the GPU that it builds on, is not here.
    """
    trt = bindings(settings.flavour)
    title = f"{FLAVOURS[settings.flavour].title} {trt.__version__}"
    targets(trt, settings)
    if settings.flavour == "tensorrt-rtx":
        return trt, title, None
    if not torch.cuda.is_available():
        raise MissingDependency(
            f"{title} builds engines on the GPU that they are for, and torch finds none here; "
            f"build on that machine, or export to tensorrt-rtx, which needs none"
        )
    return trt, title, torch.cuda.get_device_name()


def _strongly_typed(trt: Any) -> int:
    """The flags of a network whose types are those of the ONNX file; their numbers differ between versions."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return and_more([_parser_error(error) for error in errors] or ["it gives no reason"])


def _parser_error(error: Any) -> str:
    """The node, the operator, and why; of several lines, what says more than that there is an error."""
    lines = [line for line in error.desc().splitlines() if not _EMPTY.search(line)]
    why = f"{one_line(lines[0] if lines else error.desc())} ({error.code().name})"
    return f"node {error.node_name()!r}, {error.node_operator()}: {why}" if error.node_operator() else why


def _built_for(version: str, settings: BuildSettings, gpu: str | None) -> dict[str, Any]:
    """What the engine is bound to; of a GPU that does not matter, there is no name."""
    built = {"device": "cuda", "flavour": settings.flavour, "tensorrt": version, "platform": machine()}
    if gpu is None:
        capabilities = [f"{name[2:-1]}.{name[-1]}" for name in settings.compute_capabilities] or [PORTABLE]
    elif settings.hardware_compatible:
        gpu, capabilities = None, [PORTABLE]
    else:
        capabilities = [".".join(map(str, torch.cuda.get_device_capability()))]
    known: dict[str, Any] = {"gpu": gpu, "compute_capabilities": capabilities}
    return built | known | {"version_compatible": settings.version_compatible}
