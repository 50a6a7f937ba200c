"""The walk through a traced forward pass: weights that are used twice, memory that is written in place."""

from __future__ import annotations

import pytest
import torch
from networks import slices
from torch import Tensor, nn

from chase.slimming import channel_groups
from chase.slimming.groups import Group


def groups_of(model: nn.Module, *shape: int) -> dict[str, Group]:
    return {group.name: group for group in channel_groups(model, torch.zeros(1, *shape))}


class Twice(nn.Module):
    """One module that is used twice."""

    def __init__(self, image_first: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.shared = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 2, 1)
        self.image_first = image_first

    def forward(self, x: Tensor) -> Tensor:
        first = x if self.image_first else self.stem(x).relu()
        y: Tensor = self.head(self.shared(self.shared(first).relu()).relu())
        return y


def test_a_module_used_twice_ties_what_enters_it_both_times() -> None:
    groups = groups_of(Twice(image_first=False), 3, 2, 2)

    assert groups["stem"].producers == ("stem.weight", "shared.weight")
    assert {("shared.weight", 0), ("shared.weight", 1), ("head.weight", 1)} <= slices(groups["stem"])
    assert groups["stem"].why_not() is None


def test_a_module_that_also_sees_the_image_keeps_its_channels() -> None:
    groups = groups_of(Twice(image_first=True), 3, 2, 2)

    assert groups["shared"].why_not() == "is tied to channels that cannot leave"
    assert ("shared.weight", 1) not in slices(groups["shared"])


class Tied(nn.Module):
    """A decoder with the transposed weight of its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.encoder = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(self.first(x).relu()).relu()
        return nn.functional.linear(code, self.encoder.weight.transpose(0, 1))


def test_a_weight_that_is_used_transposed_as_well_makes_and_reads_the_same_units() -> None:
    """The code may lose units; the columns of the encoder are outputs of the decoder."""
    groups = groups_of(Tied(), 4)

    assert groups["encoder"].why_not() is None
    assert slices(groups["encoder"]) == {("encoder.weight", 0), ("encoder.bias", 0)}
    assert groups["first"].why_not() == "is an output of the model"
    assert slices(groups["first"]) == {("first.weight", 0), ("first.bias", 0), ("encoder.weight", 1)}


class Measured(Tied):
    """An encoder whose weight is also multiplied with itself, sorted."""

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(self.first(x).relu()).relu()
        scaled: Tensor = code * self.encoder.weight.sort(1).values.sum()
        return scaled


def test_a_weight_that_an_operator_without_a_rule_uses_holds_its_rows_and_columns() -> None:
    groups = groups_of(Measured(), 4)

    assert groups["first"].why_not() == "owns part of encoder.weight, which aten.sort also uses"
    assert groups["encoder"].pinned is not None


def test_one_weight_under_two_names_makes_one_group() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[3].weight = model[1].weight

    group = groups_of(model, 4)["0"]

    assert group.producers == ("0.weight", "1.weight")
    assert slices(group) == {
        ("0.weight", 0),
        ("0.bias", 0),
        ("1.weight", 0),
        ("1.weight", 1),
        ("1.bias", 0),
        ("3.bias", 0),
        ("5.weight", 1),
    }


class Several(nn.Module):
    """Something that an operator without a rule returns two of; one is used, and so is a plain part of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        largest, _ = self.first(x).sort(1)
        y: Tensor = self.last(self.second(largest).relu())
        return y


def test_what_an_operator_without_a_rule_returns_several_of_is_held_and_the_rest_is_free() -> None:
    groups = groups_of(Several(), 4)

    assert groups["first"].why_not() == "reaches aten.sort, which has no rule"
    assert groups["second"].why_not() is None


class InPlace(nn.Module):
    """A sigmoid written into the hidden layer, which is read before, after, or through a view that was made before."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(4, 6), nn.Linear(6, 2, bias=False), how

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        read = self.last(hidden) if self.how == "early" else hidden.view(-1, 6) if self.how == "view" else hidden
        hidden.sigmoid_()
        late: Tensor = read if self.how == "early" else self.last(read)
        return late


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("early", None),
        ("late", "arrives as the constant 0.5 with no bias of its own to fold it into, at last"),
        ("view", "is written in place by aten.sigmoid_ and read through another view"),
    ],
)
def test_what_is_written_in_place_is_seen_by_whoever_reads_it_later(how: str, reason: str | None) -> None:
    assert groups_of(InPlace(how), 4)["first"].why_not() == reason
