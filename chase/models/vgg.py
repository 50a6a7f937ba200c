"""VGG networks for small images, with batch normalisation and one linear layer (paper, section 5)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from chase.errors import RecipeError

POOL = "pool"
Plan = tuple[int | str, ...]

VGG8: Plan = (64, 64, POOL, 128, 128, POOL, 256, 256)
VGG16: Plan = (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3)
VGG19: Plan = (64, 64, POOL, 128, 128, POOL, *(256,) * 4, POOL, *(512,) * 4, POOL, *(512,) * 4)


class VGG(nn.Module):
    """Logits [n, num_classes] of images [n, in_channels, h, w].

    `plan` lists the widths of the 3x3 convolutions in order, with POOL where the image is halved. The modules
    are numbered as in torchvision: each convolution of `features` is followed by its norm and its ReLU.
    """

    def __init__(self, plan: Plan, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        width = [step for step in plan if isinstance(step, int)][-1]
        self.features = nn.Sequential(*_layers(plan, in_channels))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(images)), 1))
        return logits


def _layers(plan: Plan, channels: int) -> Iterator[nn.Module]:
    for step in plan:
        if isinstance(step, str):
            yield nn.MaxPool2d(2)
            continue
        yield nn.Conv2d(channels, step, kernel_size=3, padding=1)
        yield nn.BatchNorm2d(step)
        yield nn.ReLU()
        channels = step


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def vgg8(*, num_classes: int, in_channels: int = 3, width: float = 1.0) -> VGG:
    """Six convolutions for images of 8x8 and up; every width is times `width`, rounded to a multiple of 8.

    Raises:
        RecipeError: if `width` is not positive.
    """
    if not width > 0:
        raise RecipeError(f"width must be positive, not {width}; 1.0 is the full network")
    plan = tuple(step if isinstance(step, str) else max(8, 8 * round(step * width / 8)) for step in VGG8)
    return VGG(plan, num_classes=num_classes, in_channels=in_channels)


def vgg16(*, num_classes: int, in_channels: int = 3) -> VGG:
    """Thirteen convolutions and a linear layer, for images of 16x16 and up."""
    return VGG(VGG16, num_classes=num_classes, in_channels=in_channels)


def vgg19(*, num_classes: int, in_channels: int = 3) -> VGG:
    """The paper's VGG-19: sixteen convolutions and a linear layer, for images of 16x16 and up."""
    return VGG(VGG19, num_classes=num_classes, in_channels=in_channels)
