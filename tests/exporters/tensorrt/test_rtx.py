"""Real builds by TensorRT for RTX, which needs no GPU to build."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_graphs import SHAPE, network

from chase.artifact import Artifact
from chase.errors import ExportError, MissingDependency, RecipeError
from chase.exporters.tensorrt.build import Plan, build_engine
from chase.exporters.tensorrt.settings import BuildSettings
from chase.runtimes.tensorrt import RtxEngine

ODD = ((37, 1), (111, 1), (111, 3))  # (width, groups)
DATATYPES = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8"}


def built(onnx: bytes, *targets: str, **arguments: Any) -> Plan:
    return build_engine(onnx, BuildSettings(flavour="tensorrt-rtx", compute_capabilities=targets), **arguments)


def convolutions(plan: Plan) -> list[dict[str, Any]]:
    assert plan.layers is not None
    return [layer for layer in plan.layers if "[ONNX Layer: conv" in layer["Metadata"]]


@pytest.mark.parametrize("target", ["sm86", "sm89", "sm120"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_odd_widths_and_groups_build_in_the_precision_of_the_graph(precision: str, target: str) -> None:
    plan = built(network(*ODD, precision=precision), target)

    inputs = {tensor["Datatype"] for layer in convolutions(plan) for tensor in layer["Inputs"][:1]}
    widths = {tensor["Dimensions"][1] for layer in convolutions(plan) for tensor in layer["Outputs"]}
    assert DATATYPES[precision] in inputs
    assert {37, 111} <= widths
    assert plan.built_for["compute_capabilities"] == [{"sm86": "8.6", "sm89": "8.9", "sm120": "12.0"}[target]]


def test_rounded_widths_build() -> None:
    plan = built(network((40, 1), (112, 1), (112, 4), precision="fp16"), "sm86")

    assert {112} <= {tensor["Dimensions"][1] for layer in convolutions(plan) for tensor in layer["Outputs"]}


def test_an_engine_has_fewer_layers_than_its_network() -> None:
    plan = built(network(*ODD), "sm86")

    assert plan.layers is not None
    assert 3 <= len(plan.layers) < plan.parsed_layers
    assert plan.layers[-1]["Outputs"][0]["Name"] == "logits"


def test_one_engine_is_built_for_several_gpus_or_for_all() -> None:
    several, portable = built(network(), "SM86", "sm120"), built(network())

    assert several.built_for["compute_capabilities"] == ["8.6", "12.0"]
    assert (portable.built_for["compute_capabilities"], portable.built_for["gpu"]) == (["8.0+"], None)


def test_fp8_builds_for_the_gpus_that_have_it_and_no_others() -> None:
    plan = built(network(*ODD, precision="fp8"), "sm89")
    assert {"FP8"} <= {tensor["Datatype"] for layer in convolutions(plan) for tensor in layer["Inputs"]}

    with pytest.raises(ExportError, match=r"for sm86: .*HW-specific datatypes: fp8_e4m3"):
        built(network(*ODD, precision="fp8"), "sm86")


def test_fp32_products_for_turing_are_refused_with_the_reason() -> None:
    with pytest.raises(ExportError) as caught:
        built(network(), "sm75", name="net.engine")

    message = str(caught.value)
    assert "cannot build net.engine for sm75: " in message
    assert "Turing (SM75): FP32 GEMM is not supported" in message
    assert "\n" not in message


def test_an_operator_that_nobody_knows_is_named_with_its_node() -> None:
    with pytest.raises(ExportError, match=r"cannot read net: node 'strange', Mystery: .*Plugin not found.*VALID_NODE"):
        built(network(odd="Mystery"), name="net")


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(ExportError, match="Failed to parse the ONNX model"):
        built(b"no graph" * 9)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ExportError, match="has 0 inputs"):
        built(b"")


def test_a_gpu_that_rtx_does_not_know_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"does not build for 'sm90'; known: sm75, sm80, sm86, sm89, sm120"):
        built(network(), "sm90")


def test_a_workspace_that_is_too_small_is_named() -> None:
    settings = BuildSettings(flavour="tensorrt-rtx", workspace_mb=1, batch_sizes=(1, 32, 512))

    with pytest.raises(ExportError, match="within workspace limit"):
        build_engine(network(*ODD), settings)


def test_progress_rises_to_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int, str]] = []

    built(network(*ODD), "sm86", progress=lambda *state: told.append(state))

    done = [state[0] for state in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 100)
    assert len(set(done)) > 10
    assert {"Building engine", "Optimizing graph"} <= {state[2] for state in told}
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_during_a_build_is_raised_once_it_is_cancelled(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    def interrupt(done: int, total: int, what: str) -> None:
        told.append(what)
        if what == "Optimizing graph":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        built(network(*ODD), "sm86", progress=interrupt)

    assert "Computing profile costs" not in told  # which comes after
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_an_engine_without_a_gpu_to_run_it_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.engine"
    path.write_bytes(built(network()).content)
    artifact = Artifact(path=path, format="tensorrt-rtx", input_shape=SHAPE)

    with pytest.raises(MissingDependency, match="is an engine, which runs on an NVIDIA GPU; torch finds none here$"):
        RtxEngine(artifact, device=torch.device("cpu"))
