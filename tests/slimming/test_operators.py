"""What each operator does to units: which let channels leave (exactly), which hold them, and the reason given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from networks import chosen_groups, random_masks, randomise_
from torch import Tensor, fx, nn
from torch.nn import functional as F

from chase.slimming import slimmed
from chase.slimming.groups import Group, channel_groups
from chase.slimming.operators import RULES, Flow, keeps_zero
from chase.slimming.units import Labels

Operation = Callable[[Tensor], Tensor]
IMAGE, TOKENS, VECTOR = (3, 4, 4), (5, 4), (4,)


class Between(nn.Module):
    """A producer of 6 channels, an operation, and a consumer."""

    def __init__(self, operation: Operation, shape: tuple[int, ...], consumer: nn.Module) -> None:
        super().__init__()
        self.first: nn.Module = nn.Conv2d(3, 6, 1) if shape == IMAGE else nn.Linear(4, 6)
        self.last = consumer
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.operation(self.first(x)))
        return y


def first_group(model: nn.Module, shape: tuple[int, ...]) -> Group:
    return channel_groups(model, torch.zeros(1, *shape))[0]


def assert_exact(model: nn.Module, shape: tuple[int, ...], *, prune_skip: bool = False) -> None:
    """Slim equals masked, with channels of `first` among the dead."""
    example = torch.zeros(1, *shape)
    randomise_(model)
    masks = random_masks(model, chosen_groups(model, example, prune_skip=prune_skip))
    assert masks.alive["first"].sum() < len(masks.alive["first"])
    assert slimmed(model, masks, example=example, round_to=1).certificate["max_rel"] <= 1e-10


ON_IMAGES: dict[str, Operation] = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardtanh in place": lambda x: F.hardtanh_(x, -0.5, 2.0),
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "leaky relu": F.leaky_relu,
    "tanh": torch.tanh,
    "dropout": lambda x: F.dropout(x, training=False),
    "max pool": lambda x: F.max_pool2d(x, 2),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "mean over space": lambda x: x.mean((2, 3), keepdim=True),
    "times a number": lambda x: 2.5 * x / 3,
    "there and back": lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
    "unsqueezed": lambda x: x.unsqueeze(2).squeeze(2),
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_what_keeps_zero_or_moves_it_lets_channels_leave_exactly(name: str) -> None:
    model = Between(ON_IMAGES[name], IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None
    assert_exact(model, IMAGE)


@pytest.mark.parametrize(
    ("operation", "width"),
    [
        (lambda x: x.flatten(1), 96),
        (lambda x: x.view(x.shape[0], -1), 96),
        (lambda x: x.mean((2, 3)), 6),
        (lambda x: x.mean(-1).mean(2), 6),
        (lambda x: F.max_pool2d(x, 4).squeeze(-1).squeeze(-1), 6),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), 96),
    ],
    ids=["flatten", "view", "mean", "mean twice", "squeeze", "channels last flatten"],
)
def test_an_image_may_be_flattened_or_averaged_before_a_linear_layer(operation: Operation, width: int) -> None:
    model = Between(operation, IMAGE, nn.Linear(width, 2))
    group = first_group(model, IMAGE)
    columns = next(part for part in group.slices if part.tensor == "last.weight")

    assert group.why_not() is None
    assert columns.positions.tolist() == list(range(width))
    assert torch.bincount(columns.units).tolist() == [width // 6] * 6
    assert_exact(model, IMAGE)


def test_channels_of_tokens_may_leave_exactly() -> None:
    assert_exact(Between(F.gelu, TOKENS, nn.Linear(6, 2)), TOKENS)


def test_a_conversion_lets_channels_leave() -> None:
    model = Between(lambda x: x.double().float(), IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None


MADE_CONSTANT: dict[str, Operation] = {
    "sigmoid": torch.sigmoid,
    "sigmoid in place": lambda x: x.sigmoid_(),
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "exp": torch.exp,
    "plus a number": lambda x: x + 1,
    "minus a number in place": lambda x: x.sub_(1),
    "hardtanh without zero": lambda x: F.hardtanh(x, 0.5, 2.0),
    "and a relu after it": lambda x: (x + 1).relu(),
    "and an average after it": lambda x: x.exp().mean((2, 3), keepdim=True),
    "norm without affine": nn.BatchNorm2d(6, affine=False),
}


@pytest.mark.parametrize("name", MADE_CONSTANT)
def test_a_zero_that_becomes_a_constant_holds_its_channel_at_the_consumer(name: str) -> None:
    model = Between(MADE_CONSTANT[name], IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() == "arrives as a constant at last"


def test_an_affine_norm_silences_a_constant_again() -> None:
    model = Between(F.sigmoid, IMAGE, nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)))

    assert first_group(model, IMAGE).why_not() is None
    assert_exact(model, IMAGE)


def test_a_norm_over_another_axis_holds() -> None:
    model = Between(nn.BatchNorm1d(5), TOKENS, nn.Linear(6, 2))

    assert first_group(model, TOKENS).why_not() == "is not the channel axis of a norm"


def test_what_happens_to_the_image_itself_concerns_no_channel() -> None:
    class Centred(Between):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(1, keepdim=True))

    assert first_group(Centred(F.relu, IMAGE, nn.Conv2d(6, 2, 1)), IMAGE).why_not() is None


HELD: dict[str, tuple[Operation, str]] = {
    "cumsum": (lambda x: x.cumsum(1), "reaches aten.cumsum, which has no rule"),
    "softmax": (lambda x: x.softmax(1), "reaches aten.softmax, which has no rule"),
    "product of tensors": (lambda x: x * x.relu(), "reaches aten.mul, which has no rule"),
    "concatenation": (lambda x: torch.cat([x[:, :3], x[:, :3]], 1), "reaches aten.slice, which has no rule"),
    "mean over channels": (lambda x: x + x.mean(1, keepdim=True), "is summed over channels by aten.mean"),
    "mean over all": (lambda x: x - x.mean(), "is summed over channels by aten.mean"),
    "mixed axes": (lambda x: x.reshape(-1, 6, 2, 8).reshape(-1, 3, 32), "is mixed with other axes by aten.reshape"),
    "pooled over channels": (
        lambda x: F.avg_pool2d(x.permute(0, 2, 1, 3), (3, 1)).permute(0, 2, 1, 3),
        "is reshaped by aten.avg_pool2d",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_has_no_exact_rule_holds_and_names_the_operator(name: str) -> None:
    operation, reason = HELD[name]
    model = Between(operation, IMAGE, nn.Identity())

    assert first_group(model, IMAGE).why_not() == reason


def test_a_linear_layer_over_another_axis_holds() -> None:
    model = Between(F.relu, IMAGE, nn.Linear(4, 2))

    assert first_group(model, IMAGE).why_not() == "is not the channel axis at last"


def test_a_grouped_convolution_holds_and_is_named() -> None:
    model = Between(F.relu, IMAGE, nn.Conv2d(6, 6, 1, groups=2))

    assert first_group(model, IMAGE).why_not() == "reaches the grouped convolution last.weight"


class Weighted(nn.Module):
    """A linear layer whose weight is made in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.abs())


def test_a_weight_that_is_computed_holds_its_input() -> None:
    assert (
        first_group(Between(F.relu, VECTOR, Weighted()), VECTOR).why_not() == "reaches aten.linear, which has no rule"
    )


class Sum(nn.Module):
    """The producer's channels plus something else, or plus themselves."""

    def __init__(self, other: str, in_place: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 2, 1)
        self.offset = nn.Parameter(torch.randn(3, 1, 1))
        self.other, self.in_place = other, in_place

    def forward(self, x: Tensor) -> Tensor:
        ours = self.first(x).relu()
        theirs = {"image": x, "parameter": self.offset, "branch": self.second(ours), "itself": ours}[self.other]
        result: Tensor = self.last(ours.add_(theirs) if self.in_place else ours - theirs)
        return result


@pytest.mark.parametrize(("other", "node"), [("image", "sub"), ("parameter", "sub")])
def test_a_sum_with_something_that_is_no_channel_holds(other: str, node: str) -> None:
    reason = f"meets something that is not a channel at {node}"

    assert first_group(Sum(other), IMAGE).why_not() == reason


@pytest.mark.parametrize("in_place", [False, True])
def test_a_sum_of_branches_ties_them_exactly(in_place: bool) -> None:
    model = Sum("branch", in_place)
    group = first_group(model, IMAGE)

    assert group.producers == ("first.weight", "second.weight")
    assert group.skip
    assert_exact(model, IMAGE, prune_skip=True)


def test_a_sum_with_itself_ties_nothing_else() -> None:
    assert first_group(Sum("itself"), IMAGE).producers == ("first.weight",)


def test_what_is_written_in_place_is_seen_by_later_readers() -> None:
    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            hidden.sigmoid_()
            y: Tensor = self.last(hidden)
            return y

    assert first_group(Later(), VECTOR).why_not() == "arrives as a constant at last"


@pytest.fixture
def celu_rule() -> Iterator[None]:
    """A rule for `aten.celu`, taken out again."""

    def rule(flow: Flow, node: fx.Node) -> Labels | None:
        return keeps_zero(flow, node)

    RULES["aten.celu"] = rule
    yield
    del RULES["aten.celu"]


def test_an_operator_without_a_rule_holds_until_one_is_registered(request: pytest.FixtureRequest) -> None:
    model: Any = Between(F.celu, VECTOR, nn.Linear(6, 2))
    assert first_group(model, VECTOR).why_not() == "reaches aten.celu, which has no rule"

    request.getfixturevalue("celu_rule")

    assert first_group(model, VECTOR).why_not() is None
    assert_exact(model, VECTOR)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolutions_over_one_and_three_axes_have_groups_too(dimensions: int) -> None:
    conv: Any = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions]
    bn: Any = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[dimensions]
    model = nn.Sequential()
    model.first, model.norm, model.last = conv(3, 6, 1), bn(6), conv(6, 2, 1)
    shape = (3, *[2] * dimensions)

    assert_exact(model, shape)
