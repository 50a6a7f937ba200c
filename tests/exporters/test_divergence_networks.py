"""The first layer that differs, in whole networks: none in correct files, the right one after each of many faults."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnxruntime import InferenceSession
from small_exports import job_for
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.exporters.divergence import first_divergence
from chase.exporters.onnx import onnx_proto
from chase.exporters.parity import Gate
from chase.program import from_program, to_program

pytestmark = pytest.mark.slow


def transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    sizes = {"image_size": 64, "patch_size": 16, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    model: nn.Module = VisionTransformer(**sizes, num_classes=10)
    return model


def windowed() -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    sizes = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    model: nn.Module = SwinTransformer(patch_size=[4, 4], **sizes, num_classes=10)
    return model


def torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision.models as models

        model: nn.Module = models.get_model(name, num_classes=10)
        return model

    return make


NETWORKS = {name: torchvision(name) for name in ("resnet18", "mobilenet_v3_small")}
NETWORKS |= {"vit": transformer, "swin": windowed}


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose norms have seen data, and inputs for it."""
    torch.manual_seed(0)
    model, x = NETWORKS[name](), torch.randn(8, 3, 64, 64)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.1)
    with torch.no_grad():
        model.train()(x)
    return model.eval(), x


def planted(proto: Any, node: Any) -> Any:
    """The file with the weight of one node off by up to a tenth."""
    made = copy.deepcopy(proto)
    (tensor,) = (each for each in made.graph.initializer if each.name == node.input[1])
    weight = numpy_helper.to_array(tensor)
    factors = np.random.default_rng(0).uniform(0.9, 1.1, weight.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(weight * factors, tensor.name))
    return made


def scopes(node: Any) -> list[str]:
    """The modules that a node lies in, from the outermost, and its name in torch."""
    labels = {entry.key: entry.value for entry in node.metadata_props}
    return list(ast.literal_eval(labels.get("pkg.torch.onnx.name_scopes", "[]")))


def distance(model: nn.Module, path: Path, x: Tensor) -> float:
    """How far the file's answers are from the network's, relative to the largest."""
    (found,) = InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})
    with torch.inference_mode():
        expected = model(x)
    return float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_planted_fault_is_found_in_its_module(name: str, tmp_path: Path) -> None:
    model, x = network(name)
    proto = onnx_proto(job_for(model, x))[0]
    path, gate = tmp_path / "model.onnx", Gate(max_rel=1e-5)
    artifact = Artifact(path=path, format="onnx", input_shape=(3, 64, 64))
    path.write_bytes(proto.SerializeToString())
    found = first_divergence(model, artifact, x, Gate(max_rel=1e-9))
    assert found is not None
    assert found.startswith("none of its ")

    weights = {tensor.name for tensor in proto.graph.initializer}
    products = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    nodes = [node for node in products if node.input[1] in weights]
    tried = 0
    for index in np.random.default_rng(0).permutation(len(nodes))[:10]:
        path.write_bytes(planted(proto, nodes[index]).SerializeToString())
        if distance(model, path, x[:2]) < 2e-5:
            continue  # a fault that the answers do not show
        module = scopes(nodes[index])[-2]
        assert f"the first layer that differs is {module} (" in str(first_divergence(model, artifact, x, gate))
        tried += 1
    assert tried > 2


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_a_program_is_told_by_the_names_of_its_weights(name: str, tmp_path: Path) -> None:
    model, x = network(name)
    program = from_program(to_program(model, x[:2])).eval()
    proto = onnx_proto(job_for(program, x))[0]
    artifact = Artifact(path=tmp_path / "model.onnx", format="onnx", input_shape=(3, 64, 64))
    artifact.path.write_bytes(proto.SerializeToString())
    assert str(first_divergence(program, artifact, x, Gate(max_rel=1e-9))).startswith("none of its ")

    layer = {"resnet18": "layer3.0.conv2", "vit": "encoder.layers.encoder_layer_1.self_attention.out_proj"}[name]
    (node,) = (each for each in proto.graph.node if f"network.{layer}.weight" in each.input)
    artifact.path.write_bytes(planted(proto, node).SerializeToString())

    found = str(first_divergence(program, artifact, x, Gate(max_rel=1e-5)))
    assert f"the first layer that differs is network.{layer.replace('.conv2', '.bn2')} (" in found


@pytest.mark.parametrize("precision", ["int8", "int8-fp16"])
def test_a_wrong_scale_is_found_in_a_quantised_file(precision: str, tmp_path: Path) -> None:
    model, x = network("resnet18")
    proto = onnx_proto(job_for(model, x, precision=precision, calibration=x, gate=Gate(snr_db=10)))[0]
    artifact = Artifact(path=tmp_path / "model.onnx", format="onnx", precision=precision, input_shape=(3, 64, 64))
    artifact.path.write_bytes(proto.SerializeToString())
    assert str(first_divergence(model, artifact, x, Gate(snr_db=15))).startswith("none of its ")

    made = {node.output[0]: node for node in proto.graph.node}
    (node,) = (each for each in proto.graph.node if "layer2.1.bn1" in scopes(each)[-2:-1])
    wrong = copy.deepcopy(proto)
    (scale,) = (each for each in wrong.graph.initializer if each.name == made[node.input[1]].input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 2, scale.name))
    artifact.path.write_bytes(wrong.SerializeToString())

    found = str(first_divergence(model, artifact, x, Gate(snr_db=15)))
    assert found.startswith("the first layer that differs is layer2.1.bn1 (BatchNorm2d, ")
