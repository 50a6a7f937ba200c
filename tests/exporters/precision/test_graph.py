from __future__ import annotations

import pytest
import torch
from precision_networks import FAMILIES, family, flat_family, images
from torch import Tensor, fx, nn
from torch.nn import functional as F

from chase.exporters.precision.graph import flat, layers
from chase.exporters.precision.operators import Kind, kind


def operations(module: fx.GraphModule) -> list[str]:
    return [str(node.target).split(".")[1] for node in module.graph.nodes if node.op == "call_function"]


def random_(model: nn.Module) -> nn.Module:
    """With every tensor random, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_flat_graph_answers_as_its_network_at_any_batch_size(name: str) -> None:
    x = images(3)

    torch.testing.assert_close(flat_family(name)(x), family(name)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_node_that_computes_belongs_to_one_layer_and_no_other_node_does(name: str) -> None:
    graph = flat_family(name).graph

    assert [node for node in graph.nodes if (kind(node) is Kind.COMPUTES) != bool(node.meta.get("layer"))] == []


def test_layers_have_the_names_of_modules_and_of_what_modules_compute_themselves() -> None:
    found = layers(flat_family("resnet"))

    assert found[:6] == (
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer1.0:add",
        "layer2.0.conv1",
        "layer2.0.conv2",
    )
    assert found[6:8] == ("layer2.0.downsample.0", "layer2.0:add")
    assert found[-2:] == ("avgpool", "fc")
    operations = ("linear", "mul", "matmul", "add", "softmax", "matmul.2", "linear.2")
    assert layers(flat_family("swin"))[2:10] == (
        "features.1.0.norm1",
        *(f"features.1.0.attn:{operation}" for operation in operations),
    )


def test_layers_are_named_the_same_every_time() -> None:
    assert layers(flat_family("odd")) == layers(flat(family("odd"), images(2, seed=5)))


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, affine=False), (2, 4, 5, 5)),
        (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 5)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), (2, 4)),
    ],
)
def test_batch_norm_is_folded_into_what_feeds_it(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    model = random_(nn.Sequential(layer, norm))
    x = torch.randn(shape)

    folded = flat(model, x)

    assert len(operations(folded)) == 1
    assert layers(folded) == ("0",)
    assert set(folded.state_dict()) == {"0.weight", "0.bias"}
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """A convolution that is called twice, before a norm and without one, and a norm that stands first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.norm = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.norm(self.conv(x)) + self.conv(x)
        return out


class Read(nn.Module):
    """A convolution whose own result is read beside its norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = x - self.norm(x)
        return out


def test_batch_norm_is_left_alone_where_it_cannot_be_folded() -> None:
    x = torch.randn(2, 4, 5, 5)
    shared, read = random_(Shared()), random_(Read())

    assert operations(flat(shared, x)) == ["batch_norm", "conv2d", "conv2d", "add"]
    assert operations(flat(read, x)) == ["conv2d", "batch_norm", "sub"]
    for model in (shared, read):
        torch.testing.assert_close(flat(model, x)(x), model(x), rtol=1e-5, atol=1e-5)


class Standardised(nn.Module):
    """A weight that is made of parameters in every forward pass, and a mask that is written piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        mask = x.new_zeros(x.shape[2:])
        mask[:2] = 1
        return F.conv2d(x * mask, weight).relu_()


def test_what_depends_on_weights_alone_is_computed() -> None:
    model, x = Standardised(), torch.randn(2, 3, 5, 5)

    module = flat(model, x)

    assert operations(module) == ["mul", "conv2d", "relu"]
    torch.testing.assert_close(module(x), model(x))
