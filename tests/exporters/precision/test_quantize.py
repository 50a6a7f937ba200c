from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from precision_networks import Block, blocks, family_onnx, images, onnx_of, stretch_
from torch import Tensor, nn

from chase.errors import ExportError, ParityError, RecipeError
from chase.exporters.job import Job
from chase.exporters.parity import GATES, Gate, reference
from chase.exporters.precision.calibrate import ranges
from chase.exporters.precision.names import matching
from chase.exporters.precision.quantize import Quantisation, quantized_within
from chase.exporters.precision.sites import sites

CALIBRATION, SAMPLES = images(16, seed=1, size=8), images(8, seed=2, size=8)


@functools.cache
def network() -> nn.Sequential:
    """Two blocks of 24 channels, in the second of which one channel is far larger than the others."""
    model = blocks(nn.Identity(), nn.Identity(), channels=24)
    block = model[2]
    assert isinstance(block, Block)
    stretch_(block, 1e4, slice(0, 1))
    return model


@functools.cache
def network_onnx() -> Any:
    return onnx_of(network(), images(1, size=8))


def quantized(
    proto: Any, calibration: Tensor, *, kind: str, keep_fp32: Sequence[str] = (), method: str = "minmax"
) -> Any:
    """An ONNX model quantised to `kind`, but for the layers that `keep_fp32` matches."""
    quantisation = Quantisation(proto, calibration, kind, method=method)
    return quantisation.model(matching(keep_fp32, quantisation.layers))


def linear_onnx(weight: Tensor, opset: int = 20) -> Any:
    """One linear layer, written by hand: its nodes do not say where they come from."""
    rows, columns = weight.shape
    given = [
        numpy_helper.from_array(weight.numpy(), "weight"),
        numpy_helper.from_array(torch.ones(rows).numpy(), "bias"),
    ]
    node = helper.make_node("Gemm", ["input", "weight", "bias"], ["logits"], name="linear", transB=1)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("input", columns), ("logits", rows))
    ]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


DIAGONAL = torch.eye(16) * torch.arange(16)[:, None] / 10  # the first row is zero


def tensors(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def quantised_tensors(model: Any) -> set[str]:
    return {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def job(**settings: Any) -> Job:
    model = network()
    given: dict[str, Any] = {
        "samples": SAMPLES,
        "calibration": CALIBRATION,
        "gate": Gate(snr_db=25),
        "precision": "int8",
    } | settings
    return Job(model=model, example=SAMPLES[:1], **given)


def test_scales_are_the_largest_magnitudes_over_127_and_zero_points_are_zero() -> None:
    calibration = torch.zeros(8, 16)
    calibration[3, 5], calibration[6, 1] = -2.54, 1.0

    found = tensors(quantized(linear_onnx(DIAGONAL), calibration, kind="int8"))

    assert float(found["input_scale"]) == pytest.approx(0.02)
    assert (found["input_zero_point"].dtype, int(found["input_zero_point"])) == (np.int8, 0)
    rows = torch.arange(16) / 10 / 127
    rows[0] = 1  # a row of zeros has no scale; any will do
    np.testing.assert_allclose(found["weight_scale"], rows, rtol=1e-6)
    np.testing.assert_array_equal(found["weight_quantized"], np.diag([0] + [127] * 15))
    assert not found["weight_zero_point"].any()
    assert found["bias"].dtype == np.float32
    assert "weight" not in found


def test_fp8_has_scales_over_448_and_is_stored_in_one_byte() -> None:
    model = quantized(linear_onnx(DIAGONAL), torch.full((8, 16), -4.48), kind="fp8")

    assert float(tensors(model)["input_scale"]) == pytest.approx(0.01)
    stored = {each.name: (each.data_type, len(each.raw_data)) for each in model.graph.initializer}
    assert stored["weight_quantized"] == (TensorProto.FLOAT8E4M3FN, 256)
    assert stored["input_zero_point"] == (TensorProto.FLOAT8E4M3FN, 1)


def test_inputs_of_convolutions_and_the_skip_of_a_sum_are_quantised_and_nothing_else() -> None:
    model = quantized(network_onnx(), CALIBRATION, kind="int8")
    producers = {output: node for node in model.graph.node for output in node.output}
    first, second = (node for node in model.graph.node if node.op_type == "Add")

    counts = Counter(node.op_type for node in model.graph.node)
    # the input, what each block reads (once, although two nodes read it) and its ReLU; the classifier is too small
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (5, 5 + 5)
    for each in (first, second):
        assert sorted(producers[name].op_type for name in each.input) == ["Conv", "DequantizeLinear"]
    assert all(node.input[2] in tensors(model) for node in model.graph.node if node.op_type == "Conv")
    onnx.checker.check_model(model, full_check=True)


def test_of_two_convolutions_that_are_added_the_shortcut_is_quantised() -> None:
    model = quantized(family_onnx("resnet"), images(8), kind="int8")

    sums = [site for site in sites(family_onnx("resnet").graph, "int8") if site.layers[0] == "layer2.0:add"]
    short = next(
        node.output[0] for node in model.graph.node if "layer2.0.downsample.0.weight_dequantized" in node.input
    )
    assert [(site.tensor, site.layers) for site in sums] == [(short, ("layer2.0:add", "layer2.0.conv2"))]
    assert short in quantised_tensors(model)


class Sizes(nn.Module):
    """Layers that are and that are not worth quantising, each with an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.narrow, self.wide = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 32, 1)
        self.plain, self.depthwise = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, groups=32, padding=1)
        self.pointwise_groups, self.patches = nn.Conv2d(32, 32, 1, groups=2), nn.Conv2d(32, 32, 6)
        self.product, self.few = nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.narrow(self.first(x * 2 + 1).tanh()).tanh()).tanh()
        x = self.pointwise_groups(self.depthwise(self.plain(x).tanh()).tanh()).tanh()
        x = self.product(self.patches(x).flatten(1).tanh()).tanh()
        tokens = x.reshape(-1, 2, 16)
        attention = tokens @ (tokens @ tokens.transpose(1, 2)).softmax(2).transpose(1, 2).repeat(1, 8, 8)
        out: Tensor = self.few(x + attention.flatten(1))
        return out


def test_what_is_too_small_to_gain_is_left_alone() -> None:
    proto, calibration = onnx_of(Sizes(), images(1, size=8)), images(8, size=8)
    large = {"plain", "patches", "product"}

    assert set(Quantisation(proto, calibration, "int8").quantised) == large | {"first", "depthwise"}
    assert set(Quantisation(proto, calibration, "fp8").quantised) == large - {"patches"}


def test_int8_fp16_keeps_named_layers_in_fp32_and_the_rest_in_fp16() -> None:
    model = quantized(network_onnx(), CALIBRATION, kind="int8-fp16", keep_fp32=["1.first"])

    types = {name: array.dtype for name, array in tensors(model).items()}
    floats = sorted(name for name, dtype in types.items() if dtype == np.float32)
    assert floats == ["1.first.bias", "1.first.weight"]
    assert types["1.second.weight_quantized"] == np.int8
    assert types["1.second.bias"] == np.float16


@pytest.mark.parametrize("kind", ["int8", "int8-fp16"])
def test_exactly_the_layer_that_int8_ruins_is_kept(kind: str) -> None:
    told: list[int] = []
    given = job(precision=kind, progress=lambda done, total, what: told.append(done))

    model, kept = quantized_within(network_onnx(), given, reference(network(), SAMPLES))

    assert kept == ("2.second",)
    assert "2.second.weight" in tensors(model)
    assert len(told) > 1


def test_what_the_user_keeps_stays_beside_what_the_gate_needs() -> None:
    given = job(keep_fp32=("0", "1*"))

    model, kept = quantized_within(network_onnx(), given, reference(network(), SAMPLES))

    assert kept == ("0", "1.first", "1.second", "1:add", "2.second")
    assert len(quantised_tensors(model)) == 1  # what 2.first reads; the sum of 2 is not, as its convolution is not


def test_nothing_more_is_kept_than_the_gate_needs() -> None:
    _, kept = quantized_within(network_onnx(), job(gate=Gate()), reference(network(), SAMPLES))

    assert kept == ()


@pytest.mark.slow
def test_layers_within_a_wrapper_have_the_names_of_the_network() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.network(x / 2 + 1).softmax(1)
            return out

    given = job(facts={"preprocessing": True}, keep_fp32=("2.second",), gate=Gate())

    _, kept = quantized_within(onnx_of(Wrapped(), SAMPLES[:1]), given, reference(network(), SAMPLES))

    assert kept == ("2.second",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration": None}, "0 calibration images are too few; give 8 or more images of the training set"),
        ({"calibration": CALIBRATION[:7]}, "7 calibration images are too few"),
        ({"method": "minmx"}, "no calibration method named 'minmx'; did you mean 'minmax'"),
        ({"kind": "int4"}, "no kind of quantisation named 'int4'; did you mean 'int8'"),
        ({"keep_fp32": ["3.*"]}, r"keep_fp32: no layer matches '3.\*'"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"calibration": CALIBRATION, "kind": "int8"} | changes

    with pytest.raises(RecipeError, match=message):
        quantized(network_onnx(), given.pop("calibration"), **given)


def test_what_cannot_be_quantised_is_told() -> None:
    small = linear_onnx(torch.ones(4, 4), opset=18)

    with pytest.raises(ExportError, match="no layer is large enough for int8; choose fp16"):
        quantized(small, torch.zeros(8, 4), kind="int8")
    with pytest.raises(RecipeError, match="opset 18 has no fp8; choose 19 or more"):
        quantized(small, torch.zeros(8, 4), kind="fp8")


def test_a_gate_that_fp32_misses_is_told() -> None:
    with pytest.raises(ParityError, match="not even all"):
        quantized_within(network_onnx(), job(gate=GATES["fp16"]), reference(network(), SAMPLES).flip(1))


def test_ranges_clip_nothing_or_what_is_rare_or_what_costs_least() -> None:
    proto = linear_onnx(DIAGONAL)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1250, 16, generator=generator)  # uniform in [0, 1], but for one value in 20,000
    values[7, 7] = 100.0

    found = {
        method: ranges(proto, ["input"], values, method=method, limit=127)["input"]
        for method in ("minmax", "percentile", "mse")
    }

    assert found["minmax"] == 100.0
    assert found["percentile"] == pytest.approx(1.0, abs=100 / 2048)
    assert 5 <= found["mse"] < 100


def test_a_tensor_that_is_always_zero_has_a_scale_all_the_same() -> None:
    for method in ("minmax", "percentile", "mse"):
        model = quantized(linear_onnx(DIAGONAL), torch.zeros(8, 16), kind="int8", method=method)

        assert float(tensors(model)["input_scale"]) == 1.0


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for method in ("minmax", "percentile", "mse"):
        Quantisation(linear_onnx(DIAGONAL), torch.randn(8, 16), "int8-fp16", method=method).answers(torch.randn(2, 16))

    assert capfd.readouterr() == ("", "")
