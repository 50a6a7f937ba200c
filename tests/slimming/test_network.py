"""Slimming: the slim network computes what the masked one computes, and faults do not get past the certificate."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import chosen_groups, paper_groups, random_masks, randomise_, toy
from torch import Tensor, nn

from chase.errors import RecipeError
from chase.models import build
from chase.slimming import Slimmed, slim, slimmed
from chase.slimming.certificate import TOLERANCE
from chase.slimming.groups import Group, prunable
from chase.slimming.network import cut, kept_units, sliced_masks
from chase.slimming.surgery import rebuild_
from chase.sparse.masks import Masks

EXAMPLE = torch.zeros(1, 3, 8, 8)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vgg8": lambda: build("vgg8", num_classes=5, width=0.25),
    "cifar-resnet20": lambda: build("cifar-resnet20", num_classes=5),
    "cifar-resnet50": lambda: build("cifar-resnet50", num_classes=10),
    "mlp": lambda: build("mlp", num_classes=5, side=8, hidden=[24, 20]),
    "toy": toy,
}


@functools.cache
def prepared(name: str) -> tuple[nn.Module, tuple[Group, ...]]:
    """A network with random numbers everywhere, and its groups; the toy's skip groups are among them."""
    torch.manual_seed(0)
    model = MODELS[name]()
    randomise_(model)
    if name == "cifar-resnet50":
        return model, prunable(paper_groups(name))  # whose trace takes seconds
    return model, chosen_groups(model, EXAMPLE, prune_skip=name == "toy")


def slimmed_toy(seed: int = 1) -> tuple[nn.Module, Masks, Slimmed]:
    """The masked toy, its masks, and its slim network."""
    model, groups = prepared("toy")
    masks = random_masks(model, groups, seed=seed)
    masked = copy.deepcopy(model)
    masks.apply_(masked)
    return masked, masks, slimmed(model, masks, example=EXAMPLE, round_to=1)


@pytest.mark.parametrize("name", MODELS)
def test_slim_is_masked_in_float64(name: str) -> None:
    model, groups = prepared(name)
    masks = random_masks(model, groups)

    result = slimmed(model, masks, example=EXAMPLE, round_to=1, samples=torch.rand(2, 3, 8, 8))

    assert masks.removed > 0
    assert {key: len(units) for key, units in result.kept.items()} == masks.widths()
    assert result.certificate["max_rel"] <= TOLERANCE == 1e-10
    other = {} if name == "mlp" else {"other_size": 1}  # an MLP takes images of one size
    assert result.certificate["dtype"] == "float64"
    assert result.certificate["errors"].keys() == {"random", "real", *other}
    assert result.certificate["samples"] == {"random": 3, "real": 2, **other}
    assert {key: list(weight.shape) for key, weight in result.model.named_parameters() if key in masks.weights} == {
        key: list(shape) for key, shape in masks.shapes().items()
    }


@pytest.mark.parametrize("name", ["vgg8", "mlp", "toy"])
@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_widths_are_rounded_up_to_the_grid_and_stay_exact(name: str, round_to: int) -> None:
    model, groups = prepared(name)
    masks = random_masks(model, groups, seed=2)

    result = slimmed(model, masks, example=EXAMPLE, round_to=round_to)

    for group in groups:
        living = int(masks.alive[group.name].sum())
        grid = -(-living // round_to) * round_to
        assert len(result.kept[group.name]) == min(grid, group.size)
        assert masks.alive[group.name].nonzero().flatten().tolist() == [
            unit for unit in result.kept[group.name].tolist() if masks.alive[group.name][unit]
        ]


def test_slim_and_masked_agree_for_every_batch_size_in_float32() -> None:
    masked, _, result = slimmed_toy()

    for size in (1, 2, 5):
        x = torch.rand(size, 3, 8, 8)
        torch.testing.assert_close(result.model.eval()(x), masked.eval()(x))


def test_nothing_dead_leaves_the_network_as_it_is() -> None:
    model, groups = prepared("toy")

    result = slimmed(model, Masks.dense(model, groups), example=EXAMPLE, round_to=8)

    assert result.plan.to_dict() == {"shapes": {}, "attributes": {}, "constants": {}}
    assert result.certificate["max_rel"] == 0
    ours, theirs = model.state_dict(), result.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_original_network_and_its_masks_are_left_as_they_are() -> None:
    model, groups = prepared("toy")
    model.train()
    masks = random_masks(model, groups, seed=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    held = {name: mask.clone() for name, mask in masks.weights.items()}

    slim(model, masks, example=EXAMPLE)

    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(held[name], mask) for name, mask in masks.weights.items())
    assert model.training


def test_a_slim_network_trains_on() -> None:
    model = slimmed_toy()[2].model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    model(torch.rand(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()

    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["toy", "cifar-resnet20"])
def test_the_plan_and_the_state_dict_rebuild_the_slim_network_bit_for_bit(name: str) -> None:
    model, groups = prepared(name)
    result = slimmed(model, random_masks(model, groups), example=EXAMPLE, round_to=1)
    again = MODELS[name]()

    rebuild_(again, result.plan.to_dict())
    again.load_state_dict(result.model.state_dict(), strict=True)

    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), result.model.eval()(x))
    assert repr(again) == repr(result.model)


def test_masks_are_cut_as_their_weights_are() -> None:
    _, masks, result = slimmed_toy()

    sliced = sliced_masks(masks, result.kept)

    for name, mask in sliced.items():
        weight = result.model.get_parameter(name)
        assert mask.shape == weight.shape
        assert torch.equal(mask == 0, weight == 0)


@pytest.mark.parametrize(
    ("living", "round_to", "kept"),
    [
        ([1, 4], 1, [1, 4]),
        ([1, 4], 4, [1, 3, 4, 5]),
        ([1, 4], 8, [0, 1, 2, 3, 4, 5]),
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([], 1, [1]),
        ([], 4, [1, 3, 4, 5]),
        ([1, 4], {"2": 4}, [1, 4]),
        ([1, 4], {"0": 3, "*": 4}, [1, 4, 5]),
    ],
)
def test_the_grid_is_filled_with_the_dead_units_of_the_largest_weights(
    living: list[int], round_to: int | dict[str, int], kept: list[int]
) -> None:
    model = nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 1))
    model[0].weight.data = torch.tensor([[0.1], [9.0], [0.2], [-0.4], [8.0], [-0.5]])
    model[2].weight.data = torch.tensor([[100.0, 0, 0, 0, 0, 0]])  # a consumer's weights do not count
    groups = chosen_groups(model, torch.zeros(1, 1))
    masks = Masks.dense(model, groups)
    masks.alive["0"][:] = False
    masks.alive["0"][living] = True
    masks.bury()

    assert kept_units(model, masks, round_to)["0"].tolist() == kept


def test_a_group_that_died_out_keeps_one_channel_so_that_the_network_runs() -> None:
    model, groups = prepared("toy")
    masks = Masks.dense(model, groups)
    masks.alive["2.conv1"][:] = False
    masks.bury()

    assert len(slimmed(model, masks, example=EXAMPLE, round_to=1).kept["2.conv1"]) == 1


@pytest.mark.parametrize(
    ("grid", "message"),
    [(0, "round_to must be a whole number of at least 1, not 0"), ({"fc": 0}, "round_to for 'fc' must be .* not 0")],
)
def test_a_grid_below_one_is_refused(grid: int | dict[str, int], message: str) -> None:
    model, groups = prepared("toy")

    with pytest.raises(RecipeError, match=message):
        slim(model, Masks.dense(model, groups), example=EXAMPLE, round_to=grid)


@pytest.mark.parametrize("name", ["mlp", "toy"])
def test_what_reads_a_dead_channel_need_not_be_masked(name: str) -> None:
    """The units of a dead channel are silent by themselves; its consumers' columns still hold weights."""
    model, groups = prepared(name)
    masks = Masks.dense(model, groups)
    for alive in masks.alive.values():
        alive[::3] = False

    result = slimmed(model, masks, example=EXAMPLE, round_to=1)

    assert masks.nonzero == masks.total
    assert {key: len(units) for key, units in result.kept.items()} == masks.widths()


class Offset(nn.Module):
    """A sigmoid between a convolution of 6 channels and a grouped or plain one, which reads σ(0) of what is dead."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x).sigmoid())
        return y


@pytest.mark.parametrize("groups", [1, 2])
def test_a_dead_channel_that_arrives_as_a_constant_is_folded_into_the_bias(groups: int) -> None:
    model: Any = Offset(groups)
    masks = Masks.dense(model, chosen_groups(model, EXAMPLE))
    masks.alive["first"][[1, 5]] = False  # one of each convolution group

    small: Any = cut(model, masks)[0]

    rows = model.last.weight.detach().sum((2, 3))
    gone = rows[:, 1] + rows[:, 5] if groups == 1 else torch.cat([rows[:2, 1], rows[2:, 2]])
    torch.testing.assert_close(small.last.bias.detach(), model.last.bias.detach() + 0.5 * gone)
    assert small.last.weight.shape == (4, 4 // groups, 3, 3)
    assert slimmed(model, masks, example=EXAMPLE, round_to=1).certificate["max_rel"] <= TOLERANCE
    bias = model.double().last.bias.clone()
    assert slimmed(model, masks, example=EXAMPLE, round_to=1).certificate["max_rel"] <= 1e-14
    assert torch.equal(model.last.bias, bias)


def test_a_constant_that_the_weight_masks_let_through_in_part_is_folded_as_masked() -> None:
    model: Any = Offset(1)
    masks = Masks.dense(model, chosen_groups(model, EXAMPLE))
    masks.alive["first"][0] = False
    masks.weights["last.weight"][:, 0, 0] = 0

    small: Any = cut(model, masks)[0]

    gone = model.last.weight.detach()[:, 0, 1:].sum((1, 2))
    torch.testing.assert_close(small.last.bias.detach(), model.last.bias.detach() + 0.5 * gone)
