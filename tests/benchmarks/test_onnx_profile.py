from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from small_exports import exported_here
from small_profiles import ALIGNED, EXAMPLE, MACS, WIDTHS, network, weighted

from chase.artifact import Artifact
from chase.benchmarks.layers import REST
from chase.benchmarks.onnx_profile import profile_onnx


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported_here(network(), tmp_path_factory.mktemp("onnx") / "a.onnx", example=EXAMPLE[:1])


def test_nodes_of_an_onnx_file_go_back_to_layers(artifact: Artifact) -> None:
    found = profile_onnx(artifact, EXAMPLE, threads=1, rounds=2)

    assert weighted(found, "macs") == {name: 2 * macs for name, macs in MACS.items()}
    assert weighted(found, "width") == WIDTHS
    assert weighted(found, "aligned") == ALIGNED
    assert {each["op"] for each in found if each["macs"]} <= {
        "Conv",
        "Conv (blocked)",
        "FusedConv",
        "Gemm",
        "FusedGemm",
    }
    assert found[-1]["layer"] == REST
    assert sum(each["share_of_time"] for each in found) == pytest.approx(1)


def event(name: str, operator: str, shape: list[int], us: int) -> dict[str, Any]:
    return {
        "name": f"{name}_kernel_time",
        "dur": us,
        "args": {"op_name": operator, "output_type_shape": [{"f": shape}]},
    }


def test_fused_quantised_and_rounded_nodes_go_back_to_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x → Conv a → + x → Relu → Conv b, whose weight is quantised → Relu → Gemm c."""
    shapes = {"a.weight": (8, 8, 3, 3), "b.weight_quantized": (6, 2, 1, 1), "c.weight": (6, 4), "scale": ()}
    weights = [helper.make_tensor(name, TensorProto.FLOAT, dims, [0.0] * prod(dims)) for name, dims in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a_out"], name="node_a"),
        helper.make_node("Add", ["a_out", "x"], ["sum"], name="node_add"),
        helper.make_node("Relu", ["sum"], ["relu"], name="node_relu"),
        helper.make_node("DequantizeLinear", ["b.weight_quantized", "scale"], ["b_dq"], name="dq"),
        helper.make_node("Conv", ["relu", "b_dq"], ["b_out"], name="node_b", group=4),
        helper.make_node("Relu", ["b_out"], ["relu_1"], name="node_relu_1"),
        helper.make_node("Gemm", ["relu_1", "c.weight"], ["logits"], name="node_c"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8, 4, 4])
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [], weights)), tmp_path / "a.onnx")
    rounds = [
        event("sum_nchwc", "Conv", [2, 8, 4, 4], 30),
        event("node_relu", "Relu", [2, 8, 4, 4], 5),
        event("InsertedPrecisionFreeCast_relu_1", "FusedConv", [2, 6, 4, 4], 10),
        event("node_c", "Gemm", [2, 4], 1),
        {"name": "model_run", "dur": 50, "args": {}},
    ]
    monkeypatch.setattr("chase.benchmarks.onnx_profile._profiled", lambda *given, **options: rounds * 3)
    made = Artifact(path=tmp_path / "a.onnx", format="onnx", input_shape=(8, 4, 4))

    found = profile_onnx(made, torch.zeros(2, 8, 4, 4), threads=1)

    assert [(each["layer"], each["op"], each["macs"], each["width"]) for each in found] == [
        ("a", "Conv (blocked)", 2 * 16 * 8 * 72, [8, 8]),
        ("node_relu", "Relu", None, None),
        ("b", "FusedConv", 2 * 16 * 6 * 2, [8, 6]),
        ("c", "Gemm", 2 * 24, [6, 4]),
        (REST, "runtime", None, None),
    ]
    assert [each["ms"] for each in found] == pytest.approx([0.030, 0.005, 0.010, 0.001, 0.004])
