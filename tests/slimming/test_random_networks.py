"""Slim equals masked, for networks, dead channels and grids that nobody chose."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import chosen_groups, random_masks, randomise_
from torch import Tensor, nn

from chase.slimming import slimmed

ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.Tanh, nn.GELU, nn.Hardtanh, nn.Sigmoid, nn.Identity]


class Residual(nn.Module):
    """x + f(x) with f: convolution, norm, activation, convolution."""

    def __init__(self, channels: int, hidden: int, activation: nn.Module, norm: bool) -> None:
        super().__init__()
        middle = nn.BatchNorm2d(hidden) if norm else nn.Identity()
        self.inner = nn.Sequential(nn.Conv2d(channels, hidden, 1), middle, activation, nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


@st.composite
def random_networks(draw: st.DrawFn) -> nn.Module:
    """Convolutions with or without norms, biases and residual blocks, then one or two linear layers."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 7))
        layers.append(nn.Conv2d(channels, width, draw(st.sampled_from([1, 3])), padding=1, bias=draw(st.booleans())))
        layers += [nn.BatchNorm2d(width)] if draw(st.booleans()) else []
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
        channels = width
        if draw(st.booleans()):
            activation = draw(st.sampled_from(ACTIVATIONS))()
            layers.append(Residual(channels, draw(st.integers(1, 5)), activation, draw(st.booleans())))
    layers += [nn.AdaptiveAvgPool2d(draw(st.sampled_from([1, 2]))), nn.Flatten(), nn.LazyLinear(6)]
    layers += [nn.ReLU(), nn.Linear(6, 3)] if draw(st.booleans()) else []
    return nn.Sequential(*layers)


@settings(max_examples=15, deadline=None)
@given(random_networks(), st.booleans(), st.integers(0, 2**16), st.sampled_from([1, 2, 4]))
def test_slim_is_masked_for_random_networks(model: nn.Module, prune_skip: bool, seed: int, round_to: int) -> None:
    example = torch.zeros(1, 3, 4, 4)
    torch.manual_seed(seed)
    model(example.expand(2, -1, -1, -1))
    randomise_(model, seed)
    masks = random_masks(model, chosen_groups(model, example, prune_skip=prune_skip), sparsity=0.2, seed=seed)

    assert slimmed(model, masks, example=example, round_to=round_to).certificate["max_rel"] <= 1e-10
