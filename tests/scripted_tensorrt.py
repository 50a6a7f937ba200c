"""The fake TensorRT at work: a small engine whose building, failing and running follow a script."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from fake_tensorrt import Api
from scripted_engine import Runtime


@dataclass
class Script:
    """What is to happen, and in `seen` what did."""

    gpu: str = "NVIDIA H200"
    capability: tuple[int, int] = (9, 0)
    parser_errors: list[tuple[str, str, str, str]] = field(default_factory=list)  # code, node, operator, reason
    build_error: str = ""
    load_error: str = ""
    run_error: str = ""
    capturing: bool = False
    seen: dict[str, Any] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)  # in the order of their making
    ran: list[Any] = field(default_factory=list)


class World:
    """The behaviours of all classes, which share the script and the version."""

    def __init__(self, version: str, script: Script) -> None:
        self.script = script
        self.api = Api(
            version,
            {
                "Builder": lambda logger: Builder(self, logger),
                "OnnxParser": lambda network, logger: Parser(self, network, logger),
                "Runtime": lambda logger: Runtime(self, logger),
                "ILogger": SimpleNamespace,
                "IProgressMonitor": SimpleNamespace,
                "Dims": lambda shape=(): Dims(shape),
            },
        )
        self.trt = self.api.module

    def fail(self, logger: Any, reason: str) -> None:
        logger.log(self.trt.ILogger.Severity.ERROR, reason)

    def dims(self, shape: Any) -> Any:
        return self.api.wrap("Dims", Dims(shape))


class Dims:
    def __init__(self, shape: Any) -> None:
        self.shape = tuple(shape)

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, arg0: Any) -> Any:
        return self.shape[arg0]


class Builder:
    def __init__(self, world: World, logger: Any) -> None:
        self.world, self.logger = world, logger

    def create_network(self, flags: int = 0) -> Any:
        self.world.script.seen["network_flags"] = flags
        return self.world.api.wrap("INetworkDefinition", Network(self.world))

    def create_builder_config(self) -> Any:
        return self.world.api.wrap("IBuilderConfig", Config(self.world, self.logger))

    def create_optimization_profile(self) -> Any:
        return self.world.api.wrap("IOptimizationProfile", Profile())

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        world, settings, graph = self.world, config._behaviour, network._behaviour
        world.script.seen["config"] = settings
        if any(-1 in shape for _, shape in graph.inputs) and not settings.profiles:
            return world.fail(self.logger, "Network has dynamic or shape inputs, but no optimization profile")
        if not _tell(settings.progress_monitor):
            return world.fail(self.logger, "Error Code 7: BuildCanceled (Build canceled by user)")
        if world.script.build_error:
            return world.fail(self.logger, world.script.build_error)
        settings.cache["entries"] += 1
        plan = {
            "version": world.trt.__version__,
            "needs_code": settings.get_flag(world.trt.BuilderFlag.VERSION_COMPATIBLE),
            "detailed": settings.profiling_verbosity is world.trt.ProfilingVerbosity.DETAILED,
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            "profile": settings.profiles[0].shapes if settings.profiles else {},
            "layers": graph.num_layers // 2,
        }
        return world.api.memory(json.dumps(plan).encode())


def _tell(monitor: Any) -> bool:
    """The progress of a build: two steps, the first of them in three steps of its own; False if it is cancelled."""
    if monitor is None:
        return True
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Timing tactics", "Building engine", 3)
    going_on = all(monitor.step_complete("Timing tactics", step) for step in range(3))
    monitor.phase_finish("Timing tactics")
    going_on = going_on and all(monitor.step_complete("Building engine", step) for step in range(2))
    monitor.phase_finish("Building engine")
    return going_on


class Network:
    def __init__(self, world: World) -> None:
        self.world, self.num_layers = world, 0
        self.inputs: list[tuple[str, list[int]]] = []
        self.outputs: list[tuple[str, list[int]]] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Any:
        name, shape = self.inputs[index]
        return self.world.api.wrap("ITensor", SimpleNamespace(name=name, shape=self.world.dims(shape)))


class Parser:
    def __init__(self, world: World, network: Any, logger: Any) -> None:
        self.world, self.network = world, network._behaviour
        self.num_errors = len(world.script.parser_errors)

    def parse(self, model: bytes, path: Any = None) -> bool:
        graph = onnx.load_from_string(model).graph
        for into, values in ((self.network.inputs, graph.input), (self.network.outputs, graph.output)):
            for value in values:
                dims = value.type.tensor_type.shape.dim
                into.append((value.name, [-1 if each.dim_param else each.dim_value for each in dims]))
        self.network.num_layers = len(graph.node)
        return not self.num_errors

    def get_error(self, index: int) -> Any:
        code, node, operator, reason = self.world.script.parser_errors[index]
        texts = {"desc": reason, "node_name": node, "node_operator": operator, "code": self.world.trt.ErrorCode[code]}
        hooks = {name: (lambda value=value: value) for name, value in texts.items()}
        return self.world.api.wrap("ParserError", SimpleNamespace(**hooks))


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = [list(min), list(opt), list(max)]


class Config:
    def __init__(self, world: World, logger: Any) -> None:
        self.world, self.logger = world, logger
        self.set = {world.trt.BuilderFlag.TF32}
        self.pools: dict[str, int] = {}
        self.profiles: list[Profile] = []
        self.progress_monitor: Any = None
        self.profiling_verbosity = world.trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = world.trt.HardwareCompatibilityLevel.NONE
        self.builder_optimization_level = 3
        self.cache: dict[str, Any] = {"entries": 0}

    def set_flag(self, flag: Any) -> None:
        self.set.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.set.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self.set

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile._behaviour)
        return len(self.profiles) - 1

    def _here(self) -> dict[str, Any]:
        return {"gpu": self.world.script.gpu, "version": self.world.trt.__version__}

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        content = json.loads(serialized_timing_cache or "{}") or {"entries": 0, **self._here()}
        return self.world.api.wrap("ITimingCache", TimingCache(self.world, content))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        content = cache._behaviour.content
        if not ignore_mismatch and self._here().items() - content.items():
            self.world.fail(self.logger, "Timing cache was created on another device")
            return False
        self.cache = content
        return True

    def get_timing_cache(self) -> Any:
        return self.world.api.wrap("ITimingCache", TimingCache(self.world, self.cache))


class TimingCache:
    def __init__(self, world: World, content: dict[str, Any]) -> None:
        self.world, self.content = world, content

    def serialize(self) -> Any:
        return self.world.api.memory(json.dumps(self.content).encode())


class Stream:
    """One of torch's streams, which writes down who waits for whom."""

    def __init__(self, script: Script, handle: int) -> None:
        self.script, self.cuda_stream = script, handle

    def wait_stream(self, other: Stream) -> None:
        self.script.streams.append(f"{self.cuda_stream} waits for {other.cuda_stream}")

    def synchronize(self) -> None:
        self.script.streams.append(f"{self.cuda_stream} is done")


def install(monkeypatch: pytest.MonkeyPatch, version: str, **script: Any) -> Script:
    """The fake of a version as `tensorrt`, on a machine with the GPU of the script."""
    made = Script(**script)
    monkeypatch.setitem(sys.modules, "tensorrt", World(version, made).trt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: made.gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: made.capability)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(made, 7))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(made, 0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: made.capturing)
    return made
