"""Trials: whether the forward pass follows the shapes of its tensors, and what stays where it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hazards import IMAGE, Toy, assert_exact, between, example_of, reason, reasons
from torch import Tensor, nn

from chase.slimming import channel_groups
from chase.slimming.surgery import tensors_of
from chase.slimming.trial import Trial, halved, trial_copy

EXAMPLE = example_of(IMAGE)
HALF: dict[str, tuple[int, ...]] = {"first.weight": (4, 3, 1, 1), "last.weight": (2, 2, 1, 1)}


def conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 1)


def test_a_split_whose_sizes_follow_the_width_is_free() -> None:
    def gated(net: Any, x: Any) -> Any:
        one, other = x.split(x.shape[1] // 2, dim=1)
        return one * other.tanh()

    assert_exact(between(gated, conv(4, 2)), EXAMPLE, {"first": 4}, HALF)


def test_a_split_into_as_many_parts_as_before_is_free() -> None:
    def thirds(net: Any, x: Any) -> Any:
        return torch.stack(torch.split(x, [x.shape[1] // 4] * 4, dim=1)).sum(0)

    assert_exact(between(thirds, conv(2, 2)), EXAMPLE, {"first": 2}, HALF | {"last.weight": (2, 1, 1, 1)})


@pytest.mark.parametrize(
    "halves",
    [
        lambda x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
        lambda x: x.chunk(2, dim=1),
    ],
    ids=["slices", "chunk"],
)
def test_halves_that_follow_the_width_are_free(halves: Any) -> None:
    def added(net: Any, x: Any) -> Any:
        one, other = halves(x)
        return one + other.tanh()

    assert_exact(between(added, conv(4, 2)), EXAMPLE, {"first": 4}, HALF)


@pytest.mark.parametrize(
    "halves",
    [lambda x: x.split(4, dim=1), lambda x: (x[:, :4], x[:, 4:8]), lambda x: x.split([4, 4], dim=1)],
    ids=["split", "slices", "sizes"],
)
def test_halves_at_a_number_in_the_code_hold_their_channels(halves: Any) -> None:
    def added(net: Any, x: Any) -> Any:
        one, other = halves(x)
        return one + other

    assert "is cut at fixed positions by" in (reason(added, conv(4, 2)) or "")


def test_a_part_of_fixed_width_holds_its_channels_and_those_of_no_other_layer() -> None:
    model = Toy(
        lambda net, x: net.out(net.mid(net.first(x)[:, :3]).relu()),
        first=conv(3, 8),
        mid=conv(3, 6),
        out=conv(6, 2),
    )

    found = reasons(model, EXAMPLE)

    assert "is cut at fixed positions by" in (found["first"] or "")
    assert found["mid"] is None


class Asserting(nn.Module):
    """A forward pass that checks the number of channels of its first layer, on two lines."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(3, 8), conv(8, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        assert x.shape[1] == 8, f"expected 8 channels, not {x.shape[1]}\nand more"
        y: Tensor = self.last(self.second(x).relu())
        return y


def test_a_check_in_the_forward_pass_holds_what_it_checks_and_says_so() -> None:
    assert reasons(Asserting(), EXAMPLE) == {
        "first": "the forward pass fixes their number: expected 8 channels, not 4",
        "second": None,
        "last": "is an output of the model",
    }


class Silent(Asserting):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.shape[1] != 8:
            raise ValueError
        y: Tensor = self.last(self.second(x).relu())
        return y


def test_an_error_without_a_word_is_named() -> None:
    assert reasons(Silent(), EXAMPLE)["first"] == "the forward pass fixes their number: ValueError"


class Counting(Asserting):
    """Another width is not refused, but leads elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x[:, : x.shape[1] // 2] if x.shape[1] == 8 else x[:, :2] * 3
        y: Tensor = self.last(nn.functional.pad(x, (0, 0, 0, 0, 0, 2)))
        return y


def test_sizes_that_follow_in_the_trial_by_another_way_are_not_believed() -> None:
    assert reasons(Counting(), EXAMPLE)["first"] is not None


class OnTheCpu(nn.Module):
    """A tensor made on the CPU in the forward pass."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.first, self.second, self.last, self.fixed = conv(3, 8), conv(8, 6), conv(6, 2), fixed

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) * torch.ones(1, device="cpu")
        x = x.view(x.shape[0], 8 if self.fixed else -1, *x.shape[2:])
        y: Tensor = self.last(self.second(x).relu())
        return y


@pytest.mark.parametrize("fixed", [True, False])
def test_a_network_that_does_not_run_on_the_meta_device_is_tried_on_fake_tensors(fixed: bool) -> None:
    model = OnTheCpu(fixed)
    found = reasons(model, EXAMPLE)

    assert Trial(model, EXAMPLE, training=False).failure([]) is not None  # not on the meta device
    assert found["second"] is None
    if fixed:
        assert (found["first"] or "").startswith("the forward pass fixes their number: shape '[2, 8, 8, 8]'")
    else:
        assert found["first"] is None


def test_a_number_in_a_view_holds_its_own_group_among_many() -> None:
    def forward(net: Any, x: Any) -> Any:
        for index, layer in enumerate(net.layers):
            x = layer(x).relu()
            if index in (2, 5):
                x = x.view(-1, 8, 8, 8)
        return net.last(x)

    layers = nn.ModuleList([conv(3 if index == 0 else 8, 8) for index in range(8)])
    found = reasons(Toy(forward, layers=layers, last=conv(8, 2)), EXAMPLE)

    fixed = {name for name, why in found.items() if why is not None}
    assert fixed == {"layers.2", "layers.5", "last"}
    assert all("the forward pass fixes their number: " in (found[name] or "") for name in ("layers.2", "layers.5"))


def test_a_trial_leaves_the_network_as_it_was_and_reads_no_values() -> None:
    model = Asserting().train()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in tensors_of(model).items()}

    groups = channel_groups(model, EXAMPLE)

    assert model.training
    assert all(
        id(tensor) == before[name][0] and torch.equal(tensor, before[name][1])
        for name, tensor in tensors_of(model).items()
    )
    small = trial_copy(model, [groups[1]], "meta")
    assert {tensor.device.type for tensor in small.parameters()} == {"meta"}
    assert small.get_parameter("second.weight").shape == (3, 8, 1, 1)
    assert small.get_submodule("second").out_channels == 3


def test_half_of_each_group_is_tried_and_never_none() -> None:
    model = Toy(lambda net, x: net.last(net.one(net.first(x))), first=conv(3, 1), one=conv(1, 5), last=conv(5, 2))

    kept = halved(channel_groups(model, EXAMPLE))

    assert {name: len(units) for name, units in kept.items()} == {"first": 1, "one": 2, "last": 1}


def test_what_a_trial_accepts_is_what_runs() -> None:
    model = Asserting()
    groups = [group for group in channel_groups(model, EXAMPLE) if group.name != "last"]
    trial = Trial(model, EXAMPLE, training=False)

    assert [group.name for group in trial.accepted(groups)] == ["second"]
    assert trial.reasons == {"first": "expected 8 channels, not 4"}
    assert trial.accepted([]) == []
