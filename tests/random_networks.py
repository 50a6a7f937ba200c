"""For property tests: networks of random blocks that nobody chose, on images of 6 x 6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU, nn.Tanh, nn.GELU, nn.Hardtanh, nn.Sigmoid, nn.Softplus, nn.SiLU, nn.Identity,
]  # fmt: skip
NOT_ZERO_AT_ZERO: list[Callable[[], nn.Module]] = [nn.Sigmoid, nn.Hardsigmoid, nn.Softplus]
MAX_WIDTH = 16


class Chunked(nn.Module):
    """The product of two halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        return one * other


class Shuffled(nn.Module):
    """A channel shuffle."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class Gated(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, hidden: int, gate: nn.Module) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(self.up(self.down(F.adaptive_avg_pool2d(x, 1)).relu()))
        return x * gate


class Network(nn.Module):
    """Layers in execution order; each reads one or two earlier values and makes the next one."""

    def __init__(self, layers: list[nn.Module | str], sources: list[tuple[int, ...]], head: nn.Module) -> None:
        super().__init__()
        self.kinds = ["" if isinstance(layer, nn.Module) else layer for layer in layers]
        self.layers = nn.ModuleList(nn.Identity() if isinstance(layer, str) else layer for layer in layers)
        self.sources, self.head = sources, head

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for kind, layer, sources in zip(self.kinds, self.layers, self.sources, strict=True):
            found = [values[source] for source in sources]
            if kind == "add":
                values.append(found[0] + found[1])
            elif kind == "cat":
                values.append(torch.cat(found, 1))
            else:
                values.append(layer(*found))
        y: Tensor = self.head(values[-1])
        return y


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _convolution(draw: st.DrawFn, width: int, out: int, groups: int = 1) -> nn.Module:
    kernel = draw(st.sampled_from([1, 3]))
    return nn.Conv2d(width, out, kernel, padding=kernel // 2, groups=groups, bias=draw(st.booleans()))


def _layer(draw: st.DrawFn, width: int, *, image: bool) -> tuple[nn.Module, int]:
    """A layer that reads `width` channels, and how many it makes; of the image, convolutions only."""
    kinds = ["norm", "act", "constant", "grouped", "depthwise", "gate", "shuffle", "chunk", "pool"]
    kind = "conv" if image else draw(st.sampled_from(["conv", *kinds]))
    if kind == "norm":
        return nn.BatchNorm2d(width), width
    if kind == "act":
        return draw(st.sampled_from(ACTIVATIONS))(), width
    if kind == "constant":  # what comes after it folds it, or holds
        out = draw(st.integers(2, MAX_WIDTH))
        return nn.Sequential(draw(st.sampled_from(NOT_ZERO_AT_ZERO))(), _convolution(draw, width, out)), out
    if kind == "grouped":
        groups = draw(st.sampled_from(divisors(width)[:-1] or [1]))
        out = groups * draw(st.integers(1, max(1, MAX_WIDTH // groups)))
        return _convolution(draw, width, out, groups), out
    if kind == "depthwise":
        out = width * draw(st.sampled_from([1, 2] if 2 * width <= MAX_WIDTH else [1]))
        return _convolution(draw, width, out, width), out
    if kind == "gate":
        return Gated(width, draw(st.integers(1, 4)), draw(st.sampled_from([nn.Sigmoid, nn.Hardsigmoid]))()), width
    if kind == "shuffle":
        return Shuffled(draw(st.sampled_from(divisors(width)))), width
    if kind == "chunk" and width % 2 == 0:
        return Chunked(), width // 2
    if kind == "pool":
        return draw(st.sampled_from([nn.AvgPool2d, nn.MaxPool2d]))(3, 1, 1), width
    out = draw(st.integers(2, MAX_WIDTH))
    return _convolution(draw, width, out), out


@st.composite
def random_networks(draw: st.DrawFn, most: int = 9) -> Network:
    """Networks for images [b, 3, 6, 6] with 3 outputs."""
    widths, layers, sources = [3], list[nn.Module | str](), list[tuple[int, ...]]()

    def append(layer: nn.Module | str, width: int, *read: int) -> None:
        layers.append(layer)
        sources.append(read)
        widths.append(width)

    append(*_layer(draw, 3, image=True), 0)
    for _ in range(draw(st.integers(2, most))):
        last = len(widths) - 1
        other = draw(st.integers(1, last))
        kind = draw(st.sampled_from(["layer", "layer", "layer", "add", "cat"]))
        if kind == "add":
            if widths[other] != widths[last]:
                append(_convolution(draw, widths[other], widths[last]), widths[last], other)
            append("add", widths[last], last, other if widths[other] == widths[last] else last + 1)
        elif kind == "cat" and widths[last] + widths[other] <= 2 * MAX_WIDTH:
            append("cat", widths[last] + widths[other], last, other)
        else:
            append(*_layer(draw, widths[last], image=False), last)
    return Network(layers, sources, _head(draw, widths[-1]))


def _head(draw: st.DrawFn, width: int) -> nn.Module:
    side = draw(st.sampled_from([1, 2]))
    head: list[Any] = [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    inputs, hidden = width * side * side, draw(st.integers(2, 6))
    if draw(st.booleans()):
        head += [nn.Linear(inputs, hidden), draw(st.sampled_from(ACTIVATIONS))()]
        inputs = hidden
    return nn.Sequential(*head, nn.Linear(inputs, 3))
