"""Builds by the fakes of TensorRT 10.16 and 11.4: the true names and arguments, the right settings, the errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_tensorrt import VERSIONS
from onnx_graphs import network
from scripted_tensorrt import Script, install

from chase.errors import CheckpointError, ExportError, MissingDependency, OutputError, RecipeError
from chase.exporters.tensorrt.build import build_engine
from chase.exporters.tensorrt.cache import cache_file
from chase.exporters.tensorrt.layers import logged
from chase.exporters.tensorrt.settings import BuildSettings
from chase.runtimes.base import machine


@pytest.fixture(params=VERSIONS)
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Script:
    return install(monkeypatch, request.param)


def trt() -> Any:
    return sys.modules["tensorrt"]


def test_a_plan_says_what_it_is_bound_to(script: Script) -> None:
    plan = build_engine(network(), BuildSettings(batch_sizes=(1, 4, 16)))

    assert plan.built_for == {
        "device": "cuda",
        "flavour": "tensorrt",
        "tensorrt": trt().__version__,
        "platform": machine(),
        "gpu": "NVIDIA H200",
        "compute_capabilities": ["9.0"],
        "version_compatible": False,
    }
    assert plan.batch_sizes == (1, 4, 16)
    assert json.loads(plan.content)["profile"] == {"input": [[1, 3, 8, 8], [4, 3, 8, 8], [16, 3, 8, 8]]}


def test_networks_are_strongly_typed_by_the_number_of_the_version(script: Script) -> None:
    build_engine(network(), BuildSettings())

    assert script.seen["network_flags"] == {"10": 0b10, "11": 0b01}[trt().__version__[:2]]


def test_the_layers_are_those_of_the_inspector(script: Script) -> None:
    plan = build_engine(network(), BuildSettings())

    assert plan.parsed_layers == 6  # Conv, Relu, GlobalAveragePool, Flatten, Gemm, Cast
    assert plan.layers == [{"Name": f"layer {index}", "LayerType": "fused"} for index in range(3)]


def test_by_default_tf32_is_off_and_nothing_else_is_changed(script: Script) -> None:
    build_engine(network(), BuildSettings())

    config = script.seen["config"]
    assert (config.set, config.pools) == (set(), {})
    assert config.hardware_compatibility_level is trt().HardwareCompatibilityLevel.NONE
    assert config.builder_optimization_level == 3


def test_every_setting_reaches_the_builder(script: Script) -> None:
    settings = BuildSettings(
        tf32=True,
        sparse_weights=True,
        version_compatible=True,
        hardware_compatible=True,
        workspace_mb=3,
        optimization_level=5,
    )

    plan = build_engine(network(), settings)

    config, flags = script.seen["config"], trt().BuilderFlag
    assert config.set == {flags.TF32, flags.SPARSE_WEIGHTS, flags.VERSION_COMPATIBLE}
    assert config.hardware_compatibility_level is trt().HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.pools == {"WORKSPACE": 3 * 1024**2}
    assert config.builder_optimization_level == 5
    assert (plan.built_for["gpu"], plan.built_for["compute_capabilities"]) == (None, ["8.0+"])
    assert plan.built_for["version_compatible"] is True


def test_a_network_of_one_batch_size_needs_no_profile(script: Script) -> None:
    plan = build_engine(network(batch=2), BuildSettings())

    assert plan.batch_sizes == (2, 2, 2)
    assert script.seen["config"].profiles == []


def test_a_network_of_open_size_is_refused(script: Script) -> None:
    with pytest.raises(ExportError, match=r"input \[-1, 3, -1, -1\] leaves more than the batch size open"):
        build_engine(network(size="size"), BuildSettings())


def test_progress_is_told(script: Script) -> None:
    told: list[Any] = []

    build_engine(network(), BuildSettings(), progress=lambda *state: told.append(state))

    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert (told[0], told[-1]) == ((0, 100, "Building engine"), (100, 100, "Building engine"))
    assert (16, 100, "Timing tactics") in told  # the first of three steps of the first half


def test_an_interrupt_in_the_listener_cancels_the_build(script: Script) -> None:
    def interrupt(done: int, total: int, what: str) -> None:
        if what == "Timing tactics":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(network(), BuildSettings(), progress=interrupt)


def test_the_first_parser_error_is_shown_with_node_operator_and_reason(script: Script) -> None:
    script.parser_errors = [
        ("INVALID_NODE", "dq_3", "DequantizeLinear", "Invalid Node - dq_3\ninput has type Int32\n[x] cudaError 35"),
        ("UNSUPPORTED_NODE", "u", "Unique", "false"),
    ]

    with pytest.raises(ExportError) as caught:
        build_engine(network(), BuildSettings(), name="net.engine")

    node = "node 'dq_3', DequantizeLinear: input has type Int32 (INVALID_NODE) (and 1 more)"
    assert str(caught.value) == f"TensorRT {trt().__version__} cannot read net.engine: {node}"


def test_a_parser_error_of_no_node_is_shown(script: Script) -> None:
    script.parser_errors = [("MODEL_DESERIALIZE_FAILED", "", "", "Failed to parse the ONNX model.")]

    with pytest.raises(ExportError, match=r"network: Failed to parse the ONNX model\. \(MODEL_DESERIALIZE_FAILED\)$"):
        build_engine(network(), BuildSettings())


def test_a_build_that_fails_says_what_the_log_says(script: Script) -> None:
    script.build_error = "Error Code 10: Could not find any implementation\nfor node conv_0"

    with pytest.raises(ExportError, match=r"cannot build net: Error Code 10: .* implementation for node conv_0$"):
        build_engine(network(), BuildSettings(), name="net")


def test_an_error_is_not_carried_into_the_next_build(script: Script) -> None:
    script.build_error = "the first reason"
    with pytest.raises(ExportError, match="the first reason$"):
        build_engine(network(), BuildSettings())

    script.build_error = "the second reason"
    with pytest.raises(ExportError, match=": the second reason$"):
        build_engine(network(), BuildSettings())


def test_a_timing_cache_is_kept_per_gpu_and_version(script: Script, tmp_path: Path) -> None:
    settings = BuildSettings(timing_cache=tmp_path / "cache")
    file = cache_file(tmp_path / "cache", "NVIDIA H200", trt().__version__)

    entries = []
    for _ in range(2):
        build_engine(network(), settings)
        entries.append(json.loads(file.read_text())["entries"])

    assert file.name == f"nvidia-h200.tensorrt-{trt().__version__}.timing"
    assert entries == [1, 2]
    assert list(file.parent.iterdir()) == [file]


def test_a_timing_cache_of_another_gpu_is_refused(script: Script, tmp_path: Path) -> None:
    settings = BuildSettings(timing_cache=tmp_path)
    file = cache_file(tmp_path, "NVIDIA H200", trt().__version__)
    file.write_text(json.dumps({"entries": 1, "gpu": "NVIDIA A100", "version": trt().__version__}))

    with pytest.raises(CheckpointError, match=r"timing is no timing cache of this GPU .*another device\); delete it$"):
        build_engine(network(), settings)


def test_a_failed_build_leaves_the_timing_cache_as_it_was(script: Script, tmp_path: Path) -> None:
    script.build_error = "no"
    with pytest.raises(ExportError):
        build_engine(network(), BuildSettings(timing_cache=tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_a_timing_cache_that_cannot_be_read_is_one_line(script: Script, tmp_path: Path) -> None:
    cache_file(tmp_path, "NVIDIA H200", trt().__version__).mkdir()

    with pytest.raises(OutputError, match="cannot read .*timing: Is a directory; name another folder"):
        build_engine(network(), BuildSettings(timing_cache=tmp_path))


def test_compute_capabilities_are_for_rtx(script: Script) -> None:
    with pytest.raises(RecipeError, match="builds for the GPU of this machine; leave compute_capabilities out"):
        build_engine(network(), BuildSettings(compute_capabilities=("sm86",)))


def test_without_a_gpu_the_user_is_told_what_to_do(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(MissingDependency, match=r"torch finds none here; .* export to tensorrt-rtx"):
        build_engine(network(), BuildSettings())


def test_a_builder_that_does_not_start_is_one_line(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(logger: Any) -> None:
        logger.log(trt().ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt(), "Builder", nothing)

    with pytest.raises(
        MissingDependency, match=r"cannot start: CUDA initialization failure with error: 35; is the GPU"
    ):
        build_engine(network(), BuildSettings())


def test_without_the_package_the_user_is_told_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(MissingDependency, match=r"pip install 'chase-sparse\[tensorrt\]'"):
        build_engine(network(), BuildSettings())


@pytest.mark.parametrize("version", ["10.11.0.33", "8.6.1"])
def test_versions_before_the_floor_are_refused(script: Script, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(trt(), "__version__", version)

    with pytest.raises(
        MissingDependency, match=rf"TensorRT {version} is older than 10\.12; run: pip install --upgrade"
    ):
        build_engine(network(), BuildSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": (32, 8, 1)}, "batch sizes 32:8:1 are not MIN:OPT:MAX in rising order"),
        ({"batch_sizes": (0, 8, 32)}, "batch sizes 0:8:32"),
        ({"batch_sizes": (1, 8)}, "batch sizes 1:8 "),
        ({"workspace_mb": 0}, "workspace_mb is 0; it must be 1 or more"),
        ({"optimization_level": 6}, "optimization_level is 6; it must be 0 to 5"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        BuildSettings(**settings)


def test_a_log_without_a_layer_table_gives_no_layers() -> None:
    assert logged("") is None


def test_the_layer_table_of_a_log_is_read() -> None:
    tensor = "{ Name: x_0, Dimensions: [-1,3], Strides: [3,1], Datatype: Half, Format: (Linear) Row major }"
    older = "{ Name: logits, Dimensions: [], Format/Datatype: Float }"
    line = (
        f"Name: fc, LayerType: kgen, Inputs: [ {tensor}], Outputs: [ {older}], TacticName: t, StreamId: 0, Metadata: m"
    )

    layers = logged(f"Layers:\n{line}\nsomething else\n\nI/O Tensors:\n Name: logits")

    assert layers == [
        {
            "Name": "fc",
            "LayerType": "kgen",
            "Inputs": [{"Name": "x_0", "Dimensions": [-1, 3], "Datatype": "Half"}],
            "Outputs": [{"Name": "logits", "Dimensions": [], "Datatype": "Float"}],
            "TacticName": "t",
            "Metadata": "m",
        },
        {"Name": "something else"},
    ]
