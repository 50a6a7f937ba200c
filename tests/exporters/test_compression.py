"""Files in which zeros cost little: the same answers, fewer bytes."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from chase.errors import ExportError
from chase.exporters.compression import deflated, sparse, transfer_bytes

ELEMENTS = {
    np.float32: TensorProto.FLOAT,
    np.float16: TensorProto.FLOAT16,
    np.float64: TensorProto.DOUBLE,
    np.int8: TensorProto.INT8,
    np.int64: TensorProto.INT64,
    np.bool_: TensorProto.BOOL,
}


def zeros_and(count: int, shape: tuple[int, ...] = (40, 30), dtype: Any = np.float32) -> Any:
    """An array of zeros but for `count` places."""
    rng = np.random.default_rng(0)
    values = np.zeros(np.prod(shape), dtype)
    values[rng.permutation(values.size)[:count]] = rng.integers(1, 7, count).astype(dtype)
    return values.reshape(shape)


def model_of(**weights: Any) -> Any:
    """An ONNX model whose outputs are x plus each of its weights, as float32."""
    nodes, outputs = [], []
    for name in weights:
        nodes += [helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Add", ["x", f"{name}_float"], [f"{name}_sum"])]
        outputs.append(helper.make_tensor_value_info(f"{name}_sum", TensorProto.FLOAT, weights[name].shape))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", [x], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"classes": '["cat"]'})
    return model


def answers(model: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {"x": np.array(0.5, np.float32)})
    return found


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_a_sparse_weight_is_computed_with_as_before(dtype: Any) -> None:
    dense = model_of(weight=zeros_and(60, dtype=dtype))

    made = sparse(dense)

    onnx.checker.check_model(made, full_check=True)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
    assert [node.op_type for node in made.graph.node] == ["Constant", "Cast", "Add"]
    assert (made.graph.node[0].name, list(made.graph.node[0].output)) == ("weight", ["weight"])
    assert len(made.graph.initializer) == 0
    assert made.ByteSize() < dense.ByteSize()
    assert np.array_equal(answers(made)[0], answers(dense)[0])


def test_names_labels_and_the_model_given_stay() -> None:
    dense = model_of(one=zeros_and(10), two=zeros_and(1200))
    before = dense.SerializeToString()

    made = sparse(dense)

    assert dense.SerializeToString() == before
    assert [tensor.name for tensor in made.graph.initializer] == ["two"]
    assert made.metadata_props == dense.metadata_props
    assert (made.graph.input, made.graph.output) == (dense.graph.input, dense.graph.output)


def test_a_weight_is_listed_only_where_that_is_smaller() -> None:
    least = {np.float32: 1 / 3, np.float16: 1 / 5, np.int8: 1 / 9}
    for dtype, density in least.items():
        for count, expected in ((int(1200 * density * 0.8), "Constant"), (int(1200 * density * 1.05), "Cast")):
            made = sparse(model_of(weight=zeros_and(count, dtype=dtype)))
            assert made.graph.node[0].op_type == expected, (dtype, count)
    tiny = sparse(model_of(weight=zeros_and(1, (2, 2))))  # a name costs more than it saves
    assert tiny.graph.node[0].op_type == "Cast"


def test_a_weight_of_zeros_alone_stays_one() -> None:
    dense = model_of(weight=zeros_and(0))

    made = sparse(dense)

    assert made.ByteSize() < 600
    assert np.array_equal(answers(made)[0], answers(dense)[0])


def test_a_negative_zero_comes_back_as_zero_and_what_is_no_number_as_it_was() -> None:
    values = zeros_and(0)
    values[0, :3] = [np.nan, -0.0, np.inf]
    values[1, 1] = np.float32(1e-42)  # no normal number

    made = sparse(model_of(weight=values))

    (listed,) = (each.sparse_tensor for each in made.graph.node[0].attribute)
    assert numpy_helper.to_array(listed.indices).tolist() == [0, 2, 31]
    assert np.array_equal(answers(made)[0], answers(model_of(weight=values))[0], equal_nan=True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("model/data/weight", bytes(3 << 20))
        opened.writestr("model/version", "3")
        opened.writestr("model/empty", "")
    return path


def test_an_archive_is_deflated_where_it_stands(archive: Path) -> None:
    before = archive.stat().st_size
    with zipfile.ZipFile(archive) as opened:
        content = [(entry.filename, entry.date_time, opened.read(entry)) for entry in opened.infolist()]

    deflated(archive)

    with zipfile.ZipFile(archive) as opened:
        assert [(entry.filename, entry.date_time, opened.read(entry)) for entry in opened.infolist()] == content
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_DEFLATED}
    assert archive.stat().st_size < before / 100
    assert list(archive.parent.iterdir()) == [archive]


def test_a_file_that_is_no_archive_or_a_broken_one_stays_as_it_is(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[1 << 20] ^= 1  # inside the weight, so its checksum is wrong
    for broken in (b"hello", bytes(content)):
        archive.write_bytes(broken)

        with pytest.raises(ExportError, match=r"model.pt2 cannot be compressed: it is no zip archive"):
            deflated(archive)
        assert archive.read_bytes() == broken
        assert list(archive.parent.iterdir()) == [archive]


def test_torch_reads_a_deflated_program_bit_by_bit(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    for name, tensor in model.state_dict().items():
        tensor.mul_(torch.rand_like(tensor) < 0.1 if "weight" in name else 1)
    x = torch.randn(2, 64)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    plain = (tmp_path / "model.pt2").stat().st_size

    deflated(tmp_path / "model.pt2")

    assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(x), model(x))
    assert (tmp_path / "model.pt2").stat().st_size < plain - 2 * 4 * 64 * 64 // 3


def test_transfer_bytes_are_those_of_zlib(tmp_path: Path) -> None:
    content = struct.pack("<40000f", *range(40000)) + bytes(3 << 20)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(content)
    (tmp_path / "a" / "b" / "two").write_bytes(b"")
    noise = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "noise").write_bytes(noise)

    one = len(zlib.compress(content, 6))
    assert transfer_bytes(tmp_path / "a" / "one") == one
    assert transfer_bytes(tmp_path / "a") == one + len(zlib.compress(b"", 6))
    assert len(noise) < transfer_bytes(tmp_path / "noise") < len(noise) * 1.001
