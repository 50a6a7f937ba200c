"""How providers are asked for, on machines that there are not here: stand-ins for the package onnxruntime."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from small_artifacts import artifact

from chase.errors import MissingDependency
from chase.runtimes.base import torch_settings
from chase.runtimes.execution_providers import (
    CPU,
    Provider,
    check_provider,
    cuda_provider,
    open_session,
    rtx_provider,
    tensorrt_provider,
)

GPU = torch.device("cuda", 1)


def test_cuda_computes_in_fp32_unless_the_file_allows_tf32(tmp_path: Path) -> None:
    plain, loose = artifact(tmp_path / "a", "onnx"), artifact(tmp_path / "b", "onnx", settings={"tf32": True})

    options = cuda_provider(plain, GPU, cuda_graph=True).options
    assert options == {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "1"}
    assert cuda_provider(loose, GPU).options == {"device_id": "1", "use_tf32": "1", "enable_cuda_graph": "0"}


def test_cuda_follows_an_enclosing_block_where_the_file_says_nothing(tmp_path: Path) -> None:
    plain, strict = artifact(tmp_path / "a", "onnx"), artifact(tmp_path / "b", "onnx", settings={"tf32": False})

    with torch_settings(tf32=True):
        assert cuda_provider(plain, GPU).options["use_tf32"] == "1"
        assert cuda_provider(strict, GPU).options["use_tf32"] == "0"


def test_tensorrt_is_told_its_shapes_precision_and_cache(tmp_path: Path) -> None:
    source = artifact(tmp_path / "a", "onnx", precision="int8-fp16", batch_sizes=(1, 8, 32))
    bytes_in = artifact(tmp_path / "b", "onnx", preprocessing=True)

    options = dict(tensorrt_provider(source, GPU, cache=Path("kept")).options)
    assert options == {
        "device_id": "1",
        "trt_cuda_graph_enable": "0",
        "trt_fp16_enable": "1",
        "trt_bf16_enable": "0",
        "trt_int8_enable": "1",
        "trt_profile_min_shapes": "input:1x3x4x4",
        "trt_profile_opt_shapes": "input:8x3x4x4",
        "trt_profile_max_shapes": "input:32x3x4x4",
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_engine_cache_path": "kept",
        "trt_timing_cache_path": "kept",
    }
    chosen = rtx_provider(bytes_in, GPU, cuda_graph=True, batch_sizes=(2, 2, 4), cache=Path("kept"))
    assert dict(chosen.options) == {
        "enable_cuda_graph": "1",
        "nv_profile_min_shapes": "input:2x4x4x3",
        "nv_profile_opt_shapes": "input:2x4x4x3",
        "nv_profile_max_shapes": "input:4x4x4x3",
        "nv_runtime_cache_path": "kept",
    }
    assert not [key for key in tensorrt_provider(bytes_in, GPU).options if "shapes" in key or "cache" in key]
    assert chosen.note == tensorrt_provider(source, GPU).note == ", TF32 on"  # neither has an option for it


class FakeSession:
    """A session of a machine on which some providers load; it remembers its settings."""

    def __init__(self, machine: Machine, settings: FakeOptions, providers: Any) -> None:
        self.machine, self.settings = machine, settings
        asked = [name for name, _ in providers or []] or [settings.devices[0].ep_name]
        self.loaded = asked[0] if asked[0] in machine.loading else "CPUExecutionProvider"
        alone = settings.entries.get("session.disable_cpu_ep_fallback") == "1"
        if alone and (self.loaded not in asked or machine.on_cpu):
            raise RuntimeError("nodes are assigned to the CPU, but fallback to CPU EP has been explicitly disabled")

    def disable_fallback(self) -> None:
        self.settings.entries["fallback"] = "off"

    def get_providers(self) -> list[str]:
        return [self.loaded, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        assert self.settings.entries["session.record_ep_graph_assignment_info"] == "1"
        nodes = [types.SimpleNamespace(op_type=name) for name in self.machine.on_cpu]
        work = [types.SimpleNamespace(op_type="Conv")]
        return [
            types.SimpleNamespace(ep_name=self.loaded, get_nodes=lambda: work),
            types.SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes),
        ]


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: list[Any] = []

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.devices, self.options = devices, options


class Machine(types.ModuleType):
    """A stand-in for the package onnxruntime."""

    def __init__(self, *known: str, loading: tuple[str, ...] = (), on_cpu: tuple[str, ...] = ()) -> None:
        super().__init__("onnxruntime")
        self.known, self.loading, self.on_cpu = known, loading, on_cpu
        self.ep_devices: list[Any] = []
        self.SessionOptions = FakeOptions

    def get_available_providers(self) -> list[str]:
        return [*self.known, "CPUExecutionProvider"]

    def get_ep_devices(self) -> list[Any]:
        return self.ep_devices

    def InferenceSession(self, model: Any, *, sess_options: FakeOptions, providers: Any, enable_fallback: int) -> Any:
        assert enable_fallback == 0
        return FakeSession(self, sess_options, providers)


def opened(machine: Machine, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "onnxruntime", machine)
    return open_session(Path("net.onnx"), provider, 1)


CUDA = cuda_provider(None, GPU)


def test_a_provider_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MissingDependency, match=r"has no CUDAExecutionProvider; run: pip install 'chase-sparse\[gpu\]'"
    ):
        opened(Machine(), CUDA, monkeypatch)


def test_a_provider_that_does_not_load_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match="runs net.onnx on CPUExecutionProvider, not on CUDAExecutionProvider"):
        opened(Machine(CUDA.name), CUDA, monkeypatch)


def test_a_provider_that_computes_all_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(Machine(CUDA.name, loading=(CUDA.name,)), CUDA, monkeypatch)

    assert session.settings.entries["session.disable_cpu_ep_fallback"] == "1"
    assert session.settings.entries["fallback"] == "off"
    assert session.settings.log_severity_level == 4


def test_only_the_sides_of_tensors_may_be_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ("Shape", "Gather", "Concat")
    assert opened(Machine(CUDA.name, loading=(CUDA.name,), on_cpu=shapes), CUDA, monkeypatch).loaded == CUDA.name

    for_work = Machine(CUDA.name, loading=(CUDA.name,), on_cpu=("Softmax", *shapes, "Conv"))
    with pytest.raises(MissingDependency, match="leaves Conv, Softmax of net.onnx to the CPU; choose device cpu"):
        opened(for_work, CUDA, monkeypatch)


def test_an_onnxruntime_that_cannot_say_what_runs_where_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeSession, "get_provider_graph_assignment_info")

    with pytest.raises(MissingDependency, match="does not say what runs where; run: pip install 'onnxruntime>=1.24'"):
        opened(Machine(CUDA.name, loading=(CUDA.name,), on_cpu=("Shape",)), CUDA, monkeypatch)


def test_the_plug_in_is_given_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "NvTensorRTRTXExecutionProvider"
    machine = Machine(loading=(name,))
    machine.ep_devices = [types.SimpleNamespace(ep_name=name, at=index) for index in range(2)]
    provider = rtx_provider(None, GPU)
    plugin: Any = types.ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    plugin.get_ep_name = lambda: name
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)

    settings = opened(machine, provider, monkeypatch).settings
    assert [device.at for device in settings.devices] == [1]
    assert settings.options == provider.options

    machine.ep_devices.pop()
    with pytest.raises(MissingDependency, match=f"{name} finds 1 GPUs that it can use here: .* does not know this GPU"):
        opened(machine, provider, monkeypatch)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, so the plug-in loads")
def test_the_real_plug_in_says_that_it_needs_a_driver() -> None:
    pytest.importorskip("onnxruntime_ep_nv_tensorrt_rtx", reason="the plug-in is not installed")

    with pytest.raises(MissingDependency, match=r"does not load: libcuda.so.1.*; it needs a GPU and NVIDIA's driver"):
        check_provider(rtx_provider(None, torch.device("cuda", 0)))


def test_the_cpu_is_really_tried() -> None:
    check_provider(CPU)
