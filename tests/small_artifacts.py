"""A tiny network and its files, for the tests of runtimes: written by hand where an exporter would take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.packages import require
from chase.runtimes.torchscript import no_deprecation

SHAPE = (3, 4, 4)


def tiny() -> nn.Sequential:
    """Logits [b, 5] of [b, 3, 4, 4]."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5)).eval()


def images(count: int) -> Tensor:
    """Random inputs [count, 3, 4, 4], always the same."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def artifact(path: Path, format: str, **facts: Any) -> Artifact:
    """An artifact for `tiny`, whose sidecar is written and whose file need not be there."""
    made = Artifact(path=path, format=format, input_shape=SHAPE, **facts)
    made.save()
    return made


def torchscript_file(folder: Path) -> Artifact:
    """`tiny` as TorchScript."""
    made = artifact(folder / "tiny.ts", "torchscript")
    with no_deprecation():
        torch.jit.save(torch.jit.freeze(torch.jit.trace(tiny(), (images(2),))), str(made.path))
    return made


def onnx_file(folder: Path, dtype: str = "FLOAT", name: str = "tiny", **facts: Any) -> Artifact:
    """`tiny` as ONNX, for inputs and with outputs of a type such as FLOAT, FLOAT16 or UINT8 (inputs alone)."""
    onnx: Any = require("onnx", purpose="this test", install="onnx")
    helper, types = onnx.helper, onnx.TensorProto
    linear: Any = tiny()[2]
    real = "FLOAT" if dtype == "UINT8" else dtype
    kind = helper.tensor_dtype_to_np_dtype(getattr(types, real))
    weights = [
        onnx.numpy_helper.from_array(tensor.detach().numpy().astype(kind), key)
        for key, tensor in (("weight", linear.weight), ("bias", linear.bias))
    ]
    nodes = [
        helper.make_node("Cast", ["input"], ["real"], to=getattr(types, real)),
        helper.make_node("Flatten", ["real"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    shape = [SHAPE[1], SHAPE[2], SHAPE[0]] if dtype == "UINT8" else list(SHAPE)
    inputs = [helper.make_tensor_value_info("input", getattr(types, dtype), ["batch", *shape])]
    outputs = [helper.make_tensor_value_info("logits", getattr(types, real), ["batch", 5])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    made = artifact(folder / f"{name}.onnx", "onnx", **facts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(made.path))
    return made
