"""ResNets for small images, with torchvision's module names (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first one has the stride."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel=3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        out = self.bn2(self.conv2(out))
        shortcut = images if self.downsample is None else self.downsample(images)
        result: Tensor = self.relu(out + shortcut)
        return result


class Bottleneck(nn.Module):
    """A 3x3 convolution with the stride between two 1x1 ones, and a shortcut; ends four times as wide."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, kernel=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, kernel=1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = images if self.downsample is None else self.downsample(images)
        result: Tensor = self.relu(out + shortcut)
        return result


class ResNet(nn.Module):
    """Logits [n, num_classes] of images [n, in_channels, h, w]: a 3x3 stem, no max-pool, one stage per depth.

    `widths` are the stages' widths before expansion; each stage but the first halves the image.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        *,
        depths: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        fc_bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, widths[0], kernel=3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        channels = widths[0]
        self.stages = [f"layer{number}" for number in range(1, len(depths) + 1)]
        for stage, depth, width in zip(self.stages, depths, widths, strict=True):
            strides = [1 if stage == "layer1" else 2] + [1] * (depth - 1)
            inputs = [channels] + [width * block.expansion] * (depth - 1)
            blocks = [block(i, width, stride) for i, stride in zip(inputs, strides, strict=True)]
            self.add_module(stage, nn.Sequential(*blocks))
            channels = width * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes, bias=fc_bias)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        for stage in self.stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(out), 1))
        return logits


def _conv(channels: int, width: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(channels: int, width: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(_conv(channels, width, kernel=1, stride=stride), nn.BatchNorm2d(width))


def _wide(
    block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], num_classes: int, in_channels: int
) -> ResNet:
    widths = (64, 128, 256, 512)
    return ResNet(block, depths=depths, widths=widths, num_classes=num_classes, in_channels=in_channels)


def _narrow(depth: int, num_classes: int, in_channels: int) -> ResNet:
    model = ResNet(
        BasicBlock,
        depths=(depth,) * 3,
        widths=(16, 32, 64),
        num_classes=num_classes,
        in_channels=in_channels,
        fc_bias=True,
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


def cifar_resnet18(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Basic blocks 2-2-2-2, widths 64 to 512."""
    return _wide(BasicBlock, (2, 2, 2, 2), num_classes, in_channels)


def cifar_resnet34(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Basic blocks 3-4-6-3, widths 64 to 512."""
    return _wide(BasicBlock, (3, 4, 6, 3), num_classes, in_channels)


def cifar_resnet50(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """The paper's CIFAR ResNet-50: bottlenecks 3-4-6-3, widths 64 to 512 before expansion."""
    return _wide(Bottleneck, (3, 4, 6, 3), num_classes, in_channels)


def cifar_resnet8(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Basic blocks 1-1-1, widths 16 to 64: the smallest of the family, for quick checks."""
    return _narrow(1, num_classes, in_channels)


def cifar_resnet20(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Basic blocks 3-3-3, widths 16 to 64."""
    return _narrow(3, num_classes, in_channels)


def cifar_resnet32(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Basic blocks 5-5-5, widths 16 to 64."""
    return _narrow(5, num_classes, in_channels)
