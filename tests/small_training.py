"""Small networks, optimizers and loops that several tests use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from chase.sparse import Masks, Sparsifier

Optimizer = torch.optim.Optimizer
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "foreach": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2, foreach=True),
    "sgd-fused": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2, fused=True),
    "adam": partial(torch.optim.Adam, lr=1e-2, amsgrad=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "adamw-fused": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, fused=True),
}


class ResidualNet(nn.Module):
    """Logits [n, 5] of images [n, 3, 6, 6]: stem, one residual block, a wide convolution with a bias, a classifier.

    Channels of `conv1` (8) and `wide` (16) may leave; those of `stem` and `conv2` (8) only with prune_skip.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 16, 3, stride=2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(x)).relu()
        x = (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()
        out: Tensor = self.fc(self.wide(x).relu().mean((2, 3)))
        return out


def small_mlp() -> nn.Sequential:
    """Logits [n, 5] of images [n, 3, 6, 6]; its two hidden layers (16, 12) may lose units."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5, bias=False)
    )


SMALL_MODELS: dict[str, Callable[[], nn.Module]] = {"residual": ResidualNet, "mlp": small_mlp}


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The model with weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def batch(step: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """Images [size, 3, 6, 6] and labels that depend on `step` alone."""
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randn(size, 3, 6, 6, generator=generator), torch.randint(5, (size,), generator=generator)


def loss_of(model: nn.Module, step: int) -> Tensor:
    """Cross-entropy on the batch of that step."""
    images, labels = batch(step)
    return nn.functional.cross_entropy(model(images), labels)


def backward(loss: Tensor) -> None:
    """`loss.backward()`, typed."""
    torch.autograd.backward(loss)


def plain_step(model: nn.Module, optimizer: Optimizer, step: int) -> None:
    """One step of an ordinary training loop."""
    optimizer.zero_grad()
    backward(loss_of(model, step))
    optimizer.step()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold the same numbers, bit for bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_nothing_masked_lives(sparse: Sparsifier) -> None:
    """Everything masked, and the optimizer's state for it, is exactly zero."""
    parameters = dict(sparse.model.named_parameters())
    for name, mask in (sparse.masks.weights | sparse.masks.vectors(sparse.model)).items():
        parameter, gone = parameters[name], mask == 0
        assert not parameter.detach()[gone].any(), name
        for key, value in sparse.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                assert not value[gone].any(), f"{key} of {name}"


def capacity(masks: Masks) -> int:
    """Weights that the living channels have room for."""
    return sum(math.prod(shape) for shape in masks.shapes().values())


class Double(nn.Module):
    """Logits of images [n, 1, 8, 8], computed in float64: two convolutions that may lose channels, with a norm."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32)
        self.two, self.fc = nn.Conv2d(32, 32, 3), nn.Linear(32, num_classes)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x.double())).relu()
        out: Tensor = self.fc(self.two(x).relu().mean((2, 3)))
        return out


class Plain(Double):
    """The same without a norm, in float32: what it computes of an image does not depend on the others."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.norm = nn.Identity()  # type: ignore[assignment]
        self.float()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.two(self.one(x).relu()).relu().mean((2, 3)))
        return out


class PlainDouble(Plain):
    """The same in float64."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())
