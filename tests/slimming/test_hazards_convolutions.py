"""Hazards: grouped, depthwise, transposed and functional convolutions, channel and pixel shuffles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hazards import IMAGE, Operation, Toy, assert_exact, between, example_of, half_dead, reason, reasons, scramble_
from torch import Tensor, nn
from torch.nn import functional as F

from chase.slimming import channel_groups, prunable, slimmed

EXAMPLE = example_of(IMAGE)
Shapes = dict[str, tuple[int, ...]]


def conv(channels: int, width: int, kernel: int = 1, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, **settings)


def chain(**layers: nn.Module) -> Toy:
    """Layers one after the other, with ReLU before the last."""

    def forward(net: Any, x: Tensor) -> Tensor:
        *names, last = layers
        for name in names:
            x = getattr(net, name)(x)
        y: Tensor = getattr(net, last)(x.relu())
        return y

    return Toy(forward, **layers)


class ResNeXt(nn.Module):
    """A block with a grouped convolution and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 8), conv(8, 2)
        self.a, self.g, self.c = conv(8, 12, bias=False), conv(12, 12, 3, groups=4, bias=False), conv(12, 8)
        self.n, self.m = nn.BatchNorm2d(12), nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.m(self.g(self.n(self.a(x)).relu())).relu()
        result: Tensor = self.last((x + self.c(y)).relu())
        return result


def test_the_groups_of_a_convolution_keep_equally_many_but_different_channels() -> None:
    model = chain(a=conv(3, 8), g=conv(8, 12, 3, groups=4), last=conv(12, 2))
    scramble_(model)
    masks = half_dead(model, prunable(channel_groups(model, EXAMPLE)))
    masks.alive["a"] = torch.tensor([1, 0, 0, 1, 0, 1, 0, 0], dtype=torch.bool)
    masks.alive["g"] = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=torch.bool)
    result = slimmed(model, masks, example=EXAMPLE, round_to=1)
    small: Any = result.model

    assert {0, 3, 5} < set(result.kept["a"].tolist())
    assert {0, 4, 11} < set(result.kept["g"].tolist())
    assert [len(result.kept["a"]), len(result.kept["g"])] == [4, 4]
    assert (small.g.weight.shape, small.g.groups, small.g.in_channels) == ((4, 1, 3, 3), 4, 4)
    assert small.last.weight.shape == (2, 4, 1, 1)


def test_a_resnext_block_slims_on_the_grid_of_its_groups() -> None:
    result = assert_exact(ResNeXt(), EXAMPLE, {"stem": 8, "a": 12, "g": 12}, {"stem.weight": (4, 3, 1, 1)})
    a, g = result.plan.shapes["a.weight"][0], result.plan.shapes["g.weight"]

    assert a % 4 == 0
    assert g[0] % 4 == 0
    assert g[1] == a // 4
    assert result.plan.shapes["c.weight"] == [4, g[0], 1, 1]


@pytest.mark.parametrize("groups", [2, 3])
def test_a_grouped_convolution_of_two_producers_counts_their_channels_together(groups: int) -> None:
    model = Toy(
        lambda net, x: net.last(net.g(torch.cat([net.a(x), net.b(x)], 1))),
        a=conv(3, 4),
        b=conv(3, 8),
        g=conv(12, 6, groups=groups),
        last=conv(6, 2),
    )
    result = assert_exact(model, EXAMPLE, {"a": 12, "g": 6}, {})
    shapes = result.plan.shapes

    assert shapes["a.weight"][0] + shapes["b.weight"][0] == len(result.kept["a"]) == groups * shapes["g.weight"][1]
    assert len(result.kept["g"]) % groups == 0


def test_channels_between_two_grouped_convolutions_stay_even_for_both() -> None:
    model = chain(a=conv(3, 16), g=conv(16, 16, groups=2), h=conv(16, 8, groups=4), last=conv(8, 2))
    result = assert_exact(model, EXAMPLE, {"a": 16, "g": 16, "h": 8}, {})

    assert len(result.kept["a"]) % 2 == 0
    assert len(result.kept["g"]) % 4 == 0


DEPTHWISE: dict[str, tuple[Callable[[], Toy], Shapes]] = {
    "one filter a channel": (
        lambda: chain(a=conv(3, 8), d=conv(8, 8, 3, groups=8), last=conv(8, 2)),
        {"a.weight": (4, 3, 1, 1), "d.weight": (4, 1, 3, 3), "last.weight": (2, 4, 1, 1)},
    ),
    "two filters a channel": (
        lambda: chain(a=conv(3, 8), d=conv(8, 16, 3, groups=8), last=conv(16, 2)),
        {"a.weight": (4, 3, 1, 1), "d.weight": (8, 1, 3, 3), "last.weight": (2, 8, 1, 1)},
    ),
    "silences a constant": (
        lambda: chain(a=conv(3, 8), s=nn.Sigmoid(), d=conv(8, 8, 3, groups=8), last=conv(8, 2)),
        {"a.weight": (4, 3, 1, 1), "d.weight": (4, 1, 3, 3), "last.weight": (2, 4, 1, 1)},
    ),
    "transposed": (
        lambda: chain(a=conv(3, 8), d=nn.ConvTranspose2d(8, 8, 2, 2, groups=8), last=conv(8, 2)),
        {"a.weight": (4, 3, 1, 1), "d.weight": (4, 1, 2, 2), "last.weight": (2, 4, 1, 1)},
    ),
}


@pytest.mark.parametrize("name", DEPTHWISE)
def test_the_filters_of_a_depthwise_convolution_leave_with_its_channels(name: str) -> None:
    build, shapes = DEPTHWISE[name]
    small: Any = assert_exact(build(), EXAMPLE, {"a": 8}, shapes).model

    assert (small.d.groups, small.d.in_channels, small.d.out_channels) == (4, 4, shapes["d.weight"][0])


def test_a_transposed_convolution_loses_what_it_reads_and_what_it_makes() -> None:
    model = chain(a=conv(3, 8), t=nn.ConvTranspose2d(8, 6, 2, 2), last=conv(6, 2))

    assert_exact(model, EXAMPLE, {"a": 8, "t": 6}, {"t.weight": (4, 3, 2, 2), "last.weight": (2, 3, 1, 1)})


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(8, 6, 2, groups=2), nn.ConvTranspose2d(8, 4, 2, groups=4)])
def test_a_transposed_grouped_convolution_holds(layer: nn.ConvTranspose2d) -> None:
    last = conv(layer.out_channels, 2)

    assert reason(lambda net, x: net.t(x), last, t=layer) == "reaches aten.conv_transpose2d, which has no rule"


def test_a_constant_cannot_be_folded_into_a_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(8, 2, 2)

    assert reason(lambda net, x: x.sigmoid(), layer) == "arrives as something other than zero at last.weight"


def test_an_image_without_a_batch_axis_holds() -> None:
    found = reason(lambda net, x: net.inner(x[0])[None], conv(6, 2), inner=conv(8, 6))

    assert found == "reaches aten.conv2d, which has no rule"


def shuffled(groups: int) -> Operation:
    def forward(net: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)

    return forward


@pytest.mark.parametrize(("groups", "width"), [(2, 8), (3, 12), (4, 8)])
def test_a_channel_shuffle_ties_the_channels_at_one_place_of_each_group(groups: int, width: int) -> None:
    model = Toy(lambda net, x: net.last(shuffled(groups)(net, net.a(x))), a=conv(3, width), last=conv(width, 2))
    shapes: Shapes = {"a.weight": (width // 2, 3, 1, 1), "last.weight": (2, width // 2, 1, 1)}

    assert_exact(model, EXAMPLE, {"a": width // groups}, shapes)


def test_a_shuffle_back_never_passes_for_the_shuffle_forth() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, c // 2, 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    model = between(forward, conv(8, 2))
    scramble_(model)
    groups = prunable(channel_groups(model, EXAMPLE))

    slimmed(model, half_dead(model, groups), example=EXAMPLE, round_to=1)


def test_a_shuffle_with_numbers_in_the_code_holds_and_says_so() -> None:
    found = reason(lambda net, x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8), conv(8, 2))

    assert found is not None
    assert found == "is split by view into sizes that do not follow its width"


def test_the_channels_that_a_pixel_shuffle_puts_side_by_side_leave_together() -> None:
    model = between(lambda net, x: F.pixel_shuffle(x, 2), conv(2, 2))

    assert_exact(model, EXAMPLE, {"first": 2}, {"first.weight": (4, 3, 1, 1), "last.weight": (2, 1, 1, 1)})


def test_the_channels_that_a_pixel_unshuffle_makes_of_one_leave_together() -> None:
    model = between(lambda net, x: F.pixel_unshuffle(x, 2), conv(32, 2))

    assert_exact(model, EXAMPLE, {"first": 8}, {"first.weight": (4, 3, 1, 1), "last.weight": (2, 16, 1, 1)})


def test_a_functional_convolution_is_a_layer_like_any_other() -> None:
    model = between(
        lambda net, x: F.conv2d(x, net.w, net.v, padding=1).relu(),
        conv(8, 2),
        w=nn.Parameter(torch.zeros(8, 8, 3, 3)),
        v=nn.Parameter(torch.zeros(8)),
    )

    assert_exact(model, EXAMPLE, {"first": 8, "w": 8}, {"w": (4, 4, 3, 3), "v": (4,), "last.weight": (2, 4, 1, 1)})


def test_a_functional_depthwise_convolution_with_a_number_for_its_groups_holds() -> None:
    def held(groups: Operation) -> str | None:
        return reason(
            lambda net, x: F.conv2d(x, net.w, groups=groups(x)), conv(8, 2), w=nn.Parameter(torch.zeros(8, 1, 1, 1))
        )

    assert held(lambda x: x.shape[1]) is None
    assert held(lambda x: 8) == "the forward pass fixes their number: Invalid channel dimensions"


def test_filters_in_a_buffer_lose_what_they_read_and_make_no_channels_that_could_leave() -> None:
    model = between(lambda net, x: F.conv2d(x, net.w), conv(6, 2), w=torch.zeros(6, 8, 1, 1))

    assert_exact(model, EXAMPLE, {"first": 8}, {"w": (6, 4, 1, 1), "last.weight": (2, 6, 1, 1)})


def test_a_blur_in_a_buffer_leaves_with_its_channels_unless_they_are_constant() -> None:
    def blur(before: Operation) -> Operation:
        return lambda net, x: F.conv2d(before(x), net.w, groups=x.shape[1])

    model = between(blur(F.relu), conv(8, 2), w=torch.zeros(8, 1, 3, 3))

    assert_exact(model, EXAMPLE, {"first": 8}, {"w": (4, 1, 3, 3), "last.weight": (2, 4, 1, 1)})
    held = reason(blur(torch.sigmoid), conv(8, 2), w=torch.zeros(8, 1, 3, 3))
    assert held == "arrives as something other than zero at last"


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_with_what_is_there_lets_zeros_and_constants_leave(mode: str) -> None:
    shapes: Shapes = {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4, 3, 3)}

    assert_exact(between(lambda net, x: x.relu(), conv(8, 2, 3, padding_mode=mode)), EXAMPLE, {"first": 8}, shapes)
    assert_exact(between(lambda net, x: x.sigmoid(), conv(8, 2, 3, padding_mode=mode)), EXAMPLE, {"first": 8}, shapes)


@pytest.mark.parametrize("axes", [1, 3])
def test_convolutions_over_one_and_three_axes_slim_as_well(axes: int) -> None:
    layer: Any = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
    back: Any = {1: nn.ConvTranspose1d, 3: nn.ConvTranspose3d}[axes]
    norm: Any = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[axes]
    model = chain(a=layer(3, 8, 1), n=norm(8), d=layer(8, 8, 3, groups=8), t=back(8, 6, 2), last=layer(6, 2, 1))
    ones = (1,) * axes
    shapes: Shapes = {"a.weight": (4, 3, *ones), "n.running_var": (4,), "last.weight": (2, 3, *ones)}

    assert_exact(model, example_of((3, *[6] * axes)), {"a": 8, "t": 6}, shapes)


def test_the_output_of_the_network_stays_whatever_happens_before_it() -> None:
    model = chain(a=conv(3, 8), last=conv(8, 4, groups=2))

    assert reasons(model, EXAMPLE) == {"a": None, "last": "is an output of the model"}
