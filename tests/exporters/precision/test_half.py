from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from typing import Any

import pytest
import torch
from precision_networks import FAMILIES, family, flat_family, images, onnx_of
from torch import Tensor, fx, nn
from torch.nn import functional as F

from chase.exporters.job import exported
from chase.exporters.parity import reference, signal_to_noise
from chase.exporters.precision.graph import flat, layers
from chase.exporters.precision.half import halved
from chase.exporters.precision.simulate import Simulation
from chase.packages import require

HALF, BF16 = torch.float16, torch.bfloat16


def casts(module: fx.GraphModule) -> list[str]:
    """What is cast, and to what."""
    found = module.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default)
    return [f"{node.args[0]} to {str(node.kwargs['dtype']).removeprefix('torch.')}" for node in found]


def snr_db(expected: Tensor, actual: Tensor) -> float:
    return signal_to_noise(expected.double(), actual.double()) or 1000.0


@pytest.mark.parametrize("dtype", [HALF, BF16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_in_half_precision_answers_as_in_fp32_and_as_simulated(name: str, dtype: torch.dtype) -> None:
    x = images()
    expected = reference(family(name), x)

    actual = reference(halved(flat_family(name), dtype), x)
    simulated = Simulation(flat_family(name), dtype).answers(x)

    assert actual.dtype == torch.float32
    assert snr_db(expected, actual) >= (40 if dtype == HALF else 30)
    assert snr_db(actual, simulated) >= (50 if dtype == HALF else 36)


def test_a_plain_network_has_two_casts_and_all_its_weights_in_the_reduced_type() -> None:
    module = halved(flat_family("resnet"), HALF)

    assert casts(module) == ["x to float16", "linear to float32"]
    assert {tensor.dtype for tensor in module.state_dict().values()} == {HALF}


def test_casts_stand_where_the_precision_changes_and_nowhere_else() -> None:
    module = halved(flat_family("resnet"), HALF, {"layer1.0.conv1", "layer1.0.conv2"})

    # what is kept is cast behind its ReLU, and the input of the two is cast once
    assert casts(module) == ["x to float16", "max_pool2d to float32", "conv2d_2 to float16", "linear to float32"]
    kept = [name for name, tensor in module.state_dict().items() if tensor.dtype == torch.float32]
    assert sorted(kept) == [f"layer1.0.conv{each}.{part}" for each in (1, 2) for part in ("bias", "weight")]


@pytest.mark.parametrize("name", FAMILIES)
def test_with_every_layer_kept_nothing_changes(name: str) -> None:
    module, x = flat_family(name), images(2)

    kept = halved(module, HALF, layers(module))

    assert casts(kept) == []
    assert torch.equal(kept(x), module(x))
    assert torch.equal(Simulation(module, HALF).answers(x, layers(module)), module(x))


class Tied(nn.Module):
    """One weight for two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def test_a_weight_that_is_read_in_both_precisions_is_stored_once_in_fp32() -> None:
    module = flat(Tied(), torch.randn(2, 4))
    assert layers(module) == ("first", "second")

    mixed = halved(module, HALF, {"second"})

    stored = {name: tensor.dtype for name, tensor in mixed.state_dict().items()}
    assert stored == {"second.weight": torch.float32, "first.bias": HALF, "second.bias": torch.float32}
    assert casts(mixed) == ["x to float16", "second_weight to float16", "linear to float32"]


class Explicit(nn.Module):
    """Types, constants and masks that a forward pass writes down."""

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], dtype=torch.float32)
        rows = torch.full((x.shape[0], 1), 0.5)
        scores = (x.float() * steps).masked_fill(x > 1, -1e9).softmax(1, dtype=torch.float32) + (x > 0).float()
        chosen = x[:, torch.tensor([1, 0, 2, 3])]
        picked = scores.gather(1, x.argmax(1, keepdim=True)) + rows
        return torch.where(chosen > 0, scores.clamp(-1e5, 1e6), chosen) * 0.1 + picked


class Attention(nn.Module):
    """Every way to mask and scale; with the boolean mask, the first token may look at nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.eye(4) - torch.eye(4)[0])

    def forward(self, x: Tensor) -> Tensor:
        plain = functools.partial(F.scaled_dot_product_attention, x, x * 2, x + 1)
        masked = plain(attn_mask=self.bias) + plain(attn_mask=self.bias > 0)
        out: Tensor = masked + plain(is_causal=True) + plain(scale=0.3)
        return out


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.group, self.batch = nn.LayerNorm(4, 1e-12), nn.GroupNorm(2, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.split(self.batch(self.layer(x)), [1, 3], dim=1)
        variance, mean = torch.var_mean(high, 1, keepdim=True)
        out: Tensor = self.group(torch.cat([low * variance, high - mean], 1))
        return out


CASES: dict[str, tuple[nn.Module, Tensor]] = {
    "explicit types": (Explicit(), torch.randn(3, 4, generator=torch.Generator().manual_seed(2))),
    "attention": (Attention(), torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(2))),
    "norms": (Normed().eval(), torch.randn(3, 4, generator=torch.Generator().manual_seed(2))),
}


@pytest.mark.parametrize("case", CASES)
def test_operations_with_types_masks_and_constants_are_handled(case: str) -> None:
    model, x = CASES[case]
    module = flat(model, x)
    expected = model(x).detach()

    for dtype, least in ((HALF, 50), (BF16, 30)):
        actual = halved(module, dtype)(x).detach()

        assert actual.dtype == torch.float32
        assert snr_db(expected, actual) >= least
        assert snr_db(actual, Simulation(module, dtype).answers(x)) >= least


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ((x * 3).double() / 3).float() * 3


def test_what_works_in_another_type_is_left_to_it() -> None:
    x = torch.randn(2, 4)

    module = halved(flat(Doubled(), x), HALF)

    assert casts(module)[:2] == ["x to float16", "mul to float32"]
    assert snr_db(Doubled()(x), module(x)) > 50


@pytest.mark.parametrize("name", ["swin", pytest.param("vit", marks=pytest.mark.slow)])
def test_it_can_be_traced_and_frozen_for_any_batch_size(name: str) -> None:
    module, x = halved(flat_family(name), HALF, {layers(flat_family(name))[3]}), images(5)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
        traced = torch.jit.freeze(torch.jit.trace(module, (x[:1],), check_trace=False))
        torch.testing.assert_close(traced(x), module(x))


@pytest.mark.parametrize("name", ["odd", *(pytest.param(each, marks=pytest.mark.slow) for each in ("swin", "vit"))])
def test_it_can_be_exported_again_for_any_batch_size(name: str) -> None:
    module, x = halved(flat_family(name), HALF, {layers(flat_family(name))[3]}), images(5)

    torch.testing.assert_close(exported(module, x).module()(x), module(x))


def weights_by_type(graph: Any) -> dict[str, list[str]]:
    """The names of a graph's tensors by their type."""
    onnx = require("onnx", purpose="this test", install="onnx")
    found: defaultdict[str, list[str]] = defaultdict(list)
    for tensor in graph.initializer:
        found[onnx.TensorProto.DataType.Name(tensor.data_type)].append(tensor.name)
    return found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("odd", BF16), *(pytest.param(name, HALF, marks=pytest.mark.slow) for name in ("resnet", "vit", "swin"))],
)
def test_its_onnx_graph_has_two_casts_and_no_weight_in_fp32(name: str, dtype: torch.dtype) -> None:
    opset = 22 if dtype == BF16 else 20

    graph = onnx_of(halved(flat_family(name), dtype), images(1), opset=opset).graph

    assert set(weights_by_type(graph)) == {"BFLOAT16" if dtype == BF16 else "FLOAT16", "INT64"}
    assert sum(node.op_type == "Cast" for node in graph.node) == 2


def test_its_onnx_graph_keeps_the_weights_of_kept_layers() -> None:
    graph = onnx_of(halved(flat_family("odd"), HALF, {"3"}), images(1)).graph

    assert weights_by_type(graph)["FLOAT"] == ["3.weight", "3.bias"]
    assert len(weights_by_type(graph)["FLOAT16"]) == 6
    assert sum(node.op_type == "Cast" for node in graph.node) == 4
