from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper
from precision_networks import SLOW, family_onnx, flat_family

from chase.exporters.precision.graph import layers
from chase.exporters.precision.onnx_layers import onnx_layers


def node(kind: str, inputs: list[str], output: str, scopes: list[str] | None = None, target: str = "") -> Any:
    """A node with the notes that torch leaves on it."""
    made = helper.make_node(kind, inputs, [output], name=f"node_{output}")
    if scopes is not None:
        notes = {
            "name_scopes": str([*scopes, output]),
            "fx_node": f"%{output} = call_function[target=torch.ops.{target}]",
        }
        for key, value in notes.items():
            made.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return made


def graph(*nodes: Any) -> Any:
    """A graph whose tensors named like weights are weights."""
    names = dict.fromkeys(name for each in nodes for name in each.input if name.endswith("weight"))
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0]) for name in names]
    return helper.make_graph(nodes, "graph", [], [], weights)


def test_layers_are_read_from_the_notes_of_torch() -> None:
    block, norm, add = ["", "layer1"], "aten._native_batch_norm_legit_no_training.default", "aten.add.Tensor"
    found = onnx_layers(
        graph(
            node("Conv", ["x", "layer1.conv.weight"], "a", [*block, "layer1.bn"], norm),  # the norm was folded into it
            node("Relu", ["a"], "b", [*block, "layer1.relu"], "aten.relu.default"),
            node("MatMul", ["b", "val_weight"], "c", [*block, "layer1.fc"], "aten.linear.default"),
            node("Add", ["c", "bias"], "d", [*block, "layer1.fc"], "aten.linear.default"),
            node("Add", ["d", "x"], "e", block, add),
            node("Add", ["e", "x"], "f", block, add),
            node("Transpose", ["f"], "g", block, "aten.permute.default"),
        )
    )

    assert found == {"a": "layer1.conv", "c": "layer1.fc", "d": "layer1.fc", "e": "layer1:add", "f": "layer1:add.2"}


def test_nodes_of_one_operation_of_torch_are_one_layer() -> None:
    attention = node("MatMul", ["q", "k"], "a", ["", "attn"], "aten.scaled_dot_product_attention.default")
    softmax, product = node("Softmax", ["a"], "b"), node("MatMul", ["b", "v"], "c")
    for each in (softmax, product):
        each.metadata_props.extend(attention.metadata_props)

    assert onnx_layers(graph(attention, softmax, product)) == dict.fromkeys("abc", "attn")


def test_a_node_without_notes_is_a_layer_of_its_own() -> None:
    assert onnx_layers(graph(node("Gemm", ["x", "weight"], "a"))) == {"a": "node_a"}


def test_the_module_that_holds_the_network_is_not_part_of_a_name() -> None:
    linear = node("Gemm", ["x", "network.fc.weight"], "a", ["", "network", "network.fc"], "aten.linear.default")
    norm = node("Div", ["x", "std"], "b", [""], "aten.div.Tensor")

    assert onnx_layers(graph(norm, linear), within="network") == {"b": ":div", "a": "fc"}


@pytest.mark.parametrize("name", ["resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin", *SLOW))])
def test_layers_of_a_network_have_the_same_names_in_onnx(name: str) -> None:
    found = onnx_layers(family_onnx(name).graph)
    kinds = ("Conv", "Gemm", "MatMul", "Add")

    quantised = {found[each.output[0]] for each in family_onnx(name).graph.node if each.op_type in kinds}

    assert quantised <= set(layers(flat_family(name)))
    assert len(quantised) > 3
