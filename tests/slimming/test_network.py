"""Slimming: the slim network computes what the masked one computes, and faults do not get past the certificate."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import chosen_groups, paper_groups, random_masks, randomise_
from torch import Tensor, nn

from chase.errors import EquivalenceError, RecipeError
from chase.models import build
from chase.models.resnet import BasicBlock
from chase.slimming import Slimmed, slim, slimmed
from chase.slimming.groups import Group, prunable
from chase.slimming.network import TOLERANCE, certify, kept_units, sliced_masks
from chase.slimming.surgery import rebuild_
from chase.sparse.masks import Masks

EXAMPLE = torch.zeros(1, 3, 8, 8)


def toy() -> nn.Module:
    """A stem, a block with a shortcut of its own and a classifier, for prune_skip."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), BasicBlock(8, 6, 2), BasicBlock(6, 6, 1), *head)


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
    assert result.certificate["errors"].keys() == {"random", "real"}
    assert result.certificate["samples"] == {"random": 3, "real": 2}
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

    assert result.plan.to_dict() == {"shapes": {}, "attributes": {}}
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
        ([1, 4], 4, [0, 1, 2, 4]),
        ([1, 4], 8, [0, 1, 2, 3, 4, 5]),
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([], 1, [0]),
        ([], 4, [0, 1, 2, 3]),
    ],
)
def test_the_grid_is_filled_with_the_first_dead_units(living: list[int], round_to: int, kept: list[int]) -> None:
    alive = torch.zeros(6, dtype=torch.bool)
    alive[living] = True

    assert kept_units(alive, round_to).tolist() == kept


def test_a_group_that_died_out_keeps_one_channel_so_that_the_network_runs() -> None:
    model, groups = prepared("toy")
    masks = Masks.dense(model, groups)
    masks.alive["2.conv1"][:] = False
    masks.bury()

    assert len(slimmed(model, masks, example=EXAMPLE, round_to=1).kept["2.conv1"]) == 1


def test_a_grid_below_one_is_refused() -> None:
    model, groups = prepared("toy")

    with pytest.raises(RecipeError, match="round_to must be at least 1, not 0"):
        slim(model, Masks.dense(model, groups), example=EXAMPLE, round_to=0)


def shift_a_channel(model: Any) -> None:
    model[2].conv1.weight.data = model[2].conv1.weight.data.roll(1, 0)


def spoil_a_running_mean(model: Any) -> None:
    model[2].bn2.running_mean[0] += 1e-6


def leak_a_beta(model: Any) -> None:
    model[2].bn2.bias.data[0] += 1e-6


@pytest.mark.parametrize("fault", [shift_a_channel, spoil_a_running_mean, leak_a_beta])
def test_a_planted_fault_is_caught(fault: Callable[[Any], None]) -> None:
    masked, _, result = slimmed_toy()
    fault(result.model)

    with pytest.raises(
        EquivalenceError, match=r"differs from the masked one by \d\.\d\de.\d\d relative \(allowed: 1e-10"
    ):
        certify(masked, result.model, example=EXAMPLE)


def test_a_living_channel_that_is_cut_is_caught() -> None:
    masked, masks, _ = slimmed_toy()
    masks.alive["3.conv1"][masks.alive["3.conv1"].nonzero()[0]] = False
    masks.bury()
    small = slim(prepared("toy")[0], masks, example=EXAMPLE, round_to=1)

    with pytest.raises(EquivalenceError, match="nothing was written"):
        certify(masked, small, example=EXAMPLE)


def test_an_mlp_whose_dead_rows_were_not_buried_is_caught() -> None:
    model, groups = prepared("mlp")
    masks = Masks.dense(model, groups)
    masks.alive["1"][:5] = False

    with pytest.raises(EquivalenceError, match="differs from the masked one"):
        slimmed(model, masks, example=EXAMPLE, round_to=1)


class Logarithm(nn.Module):
    """Not a number for large inputs only."""

    def forward(self, x: Tensor) -> Tensor:
        return (10 - x.abs()).sqrt().flatten(1)


def test_an_answer_that_is_not_a_number_is_no_proof_whichever_input_gives_it() -> None:
    with pytest.raises(EquivalenceError):
        certify(Logarithm(), Logarithm(), example=EXAMPLE, samples=torch.full((2, 3, 8, 8), 11.0))


def test_a_forward_pass_that_fixes_a_size_is_named() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(256, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(self.conv(x).view(-1, 256))
            return y

    model = Fixed()
    masks = random_masks(model, chosen_groups(model, EXAMPLE))

    with pytest.raises(EquivalenceError, match=r"may fix a size or a type: shape '\[-1, 256\]' is invalid"):
        slim(model, masks, example=EXAMPLE, round_to=1)
