"""For the tests of precision: one small network of every family, and networks with planted faults."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from chase.exporters.precision.graph import flat
from chase.packages import require

FAST = ("resnet", "swin", "odd")
SLOW = ("mobilenet", "densenet", "convnext", "vit", "efficientnet")
FAMILIES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@functools.cache
def family(name: str) -> nn.Module:
    """A small network of a family, with nothing zero, one or the identity by chance; shared, so leave it as it is."""
    torch.manual_seed(0)
    model: nn.Module = _BUILDERS[name]().eval()
    _randomise(model)
    return model


@functools.cache
def flat_family(name: str) -> fx.GraphModule:
    """The flat graph of `family(name)`; shared as well."""
    return flat(family(name), images(1))


def images(count: int = 4, *, seed: int = 0, size: int = 32) -> Tensor:
    """Random images [count, 3, size, size]."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def onnx_of(model: nn.Module, x: Tensor, *, opset: int = 20) -> Any:
    """The ONNX model that torch writes, checked."""
    onnx = require("onnx", purpose="this test", install="onnx")
    program: Any = torch.onnx.export(
        model.eval(),
        (torch.cat([x[:1]] * 2),),
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        input_names=["input"],
        output_names=["logits"],
        opset_version=opset,
        verbose=False,
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
    return program.model_proto


@functools.cache
def family_onnx(name: str) -> Any:
    """The ONNX model of `family(name)`; shared as well."""
    return onnx_of(family(name), images(1))


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.ndim == 1 and tensor.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
        elif tensor.is_floating_point() and not tensor.any():  # the head of a ViT
            tensor.normal_(0, 0.1, generator=generator)


def _resnet() -> Any:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def _mobilenet() -> Any:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig as Block
    from torchvision.models.mobilenetv3 import MobileNetV3

    settings = [
        (16, 3, 16, 16, True, "RE", 2, 1),
        (16, 3, 48, 24, False, "HS", 2, 1),
        (24, 5, 48, 24, True, "HS", 1, 1),
    ]
    return MobileNetV3([Block(*each, 1.0) for each in settings], 64, num_classes=10)


def _efficientnet() -> Any:
    from torchvision.models import efficientnet_b0

    return efficientnet_b0(num_classes=10)


def _densenet() -> Any:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=10)


def _convnext() -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], layer_scale=1.0, num_classes=10)


def _vit() -> Any:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)


def _swin() -> Any:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 16, depths=[2, 1], num_heads=[2, 4], window_size=[4, 4], num_classes=10)


def _odd() -> nn.Module:
    """As slimming leaves them: 37 and 111 channels, and 111 in 3 groups."""
    layers = [nn.Conv2d(3, 37, 3), nn.BatchNorm2d(37), nn.ReLU(), nn.Conv2d(37, 111, 3, bias=False)]
    layers += [nn.BatchNorm2d(111), nn.ReLU(), nn.Conv2d(111, 111, 3, groups=3), nn.BatchNorm2d(111), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(111, 10))


_BUILDERS: dict[str, Any] = {name: globals()[f"_{name}"] for name in (*FAST, *SLOW)}


class Overflow(nn.Module):
    """The identity, by way of numbers that fp16 cannot hold."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x * 3e4) * 3e4) / 9e8


class HandmadeNorm(nn.Module):
    """A norm whose sum of squares leaves the range of fp16."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x * 500 - (x * 500).mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()


class Block(nn.Module):
    """Two convolutions with something between them, and a shortcut."""

    def __init__(self, channels: int, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(channels, channels, 3, padding=1), between
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.first(x)).relu())
        return x + out


def blocks(*between: nn.Module, channels: int = 8) -> nn.Sequential:
    """A stem (0), a block for each module that is given (1, 2, ...), pooling, flattening and a classifier."""
    torch.manual_seed(0)
    body = [Block(channels, each) for each in between]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]
    return nn.Sequential(nn.Conv2d(3, channels, 3), *body, *head).eval()


@torch.no_grad()
def stretch_(block: Block, factor: float, channels: slice = slice(None)) -> None:
    """Make channels between the two convolutions of a block larger, without changing what it answers."""
    block.first.weight[channels] *= factor
    block.first.bias[channels] *= factor  # type: ignore[index]
    block.second.weight[:, channels] /= factor
