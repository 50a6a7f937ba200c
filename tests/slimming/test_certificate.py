"""The certificate: what it measures, and that faults do not get past it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import chosen_groups, random_masks, randomise_, toy
from torch import Tensor, nn

from chase.errors import EquivalenceError
from chase.slimming import Slimmed, channel_groups, slim, slimmed
from chase.slimming.certificate import TOLERANCE, TOLERANCE_FLOAT32, certify
from chase.slimming.groups import Slice
from chase.sparse.masks import Masks

EXAMPLE = torch.zeros(1, 3, 8, 8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """The toy with random numbers everywhere."""
    torch.manual_seed(0)
    made = toy()
    randomise_(made)
    return made


@pytest.fixture
def result(model: nn.Module) -> tuple[nn.Module, Masks, Slimmed]:
    """The masked toy, its masks, and its slim network."""
    masks = random_masks(model, chosen_groups(model, EXAMPLE, prune_skip=True), seed=1)
    masked = copy.deepcopy(model)
    masks.apply_(masked)
    return masked, masks, slimmed(model, masks, example=EXAMPLE, round_to=1)


def shift_a_channel(model: Any) -> None:
    model[2].conv1.weight.data = model[2].conv1.weight.data.roll(1, 0)


def spoil_a_running_mean(model: Any) -> None:
    model[2].bn2.running_mean[0] += 1e-6


def leak_a_beta(model: Any) -> None:
    model[2].bn2.bias.data[0] += 1e-6


@pytest.mark.parametrize("fault", [shift_a_channel, spoil_a_running_mean, leak_a_beta])
def test_a_planted_fault_is_caught(fault: Callable[[Any], None], result: tuple[nn.Module, Masks, Slimmed]) -> None:
    masked, _, slim_toy = result
    fault(slim_toy.model)

    with pytest.raises(
        EquivalenceError, match=r"differs from the masked one by \d\.\d\de.\d\d relative \(allowed: 1e-10"
    ):
        certify(masked, slim_toy.model, example=EXAMPLE)


def test_a_living_channel_that_is_cut_is_caught(model: nn.Module, result: tuple[nn.Module, Masks, Slimmed]) -> None:
    masked, masks, _ = result
    masks.alive["3.conv1"][masks.alive["3.conv1"].nonzero()[0]] = False
    masks.bury()
    small = slim(model, masks, example=EXAMPLE, round_to=1)

    with pytest.raises(EquivalenceError, match="nothing was written"):
        certify(masked, small, example=EXAMPLE)


def wrong_columns(part: Slice) -> Slice:
    return dataclasses.replace(part, units=part.units.roll(1)) if part.reads else part


def wrong_beta(part: Slice) -> Slice:
    return dataclasses.replace(part, units=part.units.flip(0)) if part.tensor.endswith("bn1.bias") else part


def another_constant(part: Slice) -> Slice:
    return dataclasses.replace(part, value=0.5, bias="6.bias") if part.tensor == "6.weight" and part.reads else part


@pytest.mark.parametrize("fault", [wrong_columns, wrong_beta, another_constant])
def test_a_group_that_is_wrong_about_a_slice_is_caught(fault: Callable[[Slice], Slice], model: nn.Module) -> None:
    groups = chosen_groups(model, EXAMPLE, prune_skip=True)
    wrong = [dataclasses.replace(group, slices=tuple(map(fault, group.slices))) for group in groups]
    masks = Masks.dense(model, wrong)
    for alive in masks.alive.values():
        alive[: len(alive) // 2] = False

    with pytest.raises(EquivalenceError, match="differs from the masked one"):
        slimmed(model, masks, example=EXAMPLE, round_to=1)


def test_a_forward_pass_that_fixes_a_size_is_named() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(256, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(self.conv(x).view(-1, 256))
            return y

    model = Fixed()
    group = channel_groups(model, EXAMPLE)[0]
    fixed = r"shape '\[-1, 256\]' is invalid"
    assert (group.why_not() or "").startswith("the forward pass fixes their number: ")

    masks = random_masks(model, [group])  # as if nobody had noticed
    with pytest.raises(EquivalenceError, match=f"cannot be compared; .* may fix a size: {fixed}"):
        slim(model, masks, example=EXAMPLE, round_to=1)


class Computed(nn.Module):
    """A function of the input as a network; `offset` is what sets one apart from another."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any], offset: float = 0.0) -> None:
        super().__init__()
        self.function = function
        self.offset = nn.Parameter(torch.tensor([offset]))

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.offset)


def pair(function: Callable[[Tensor, Tensor], Any], offset: float = 0.0) -> tuple[nn.Module, nn.Module]:
    return Computed(function), Computed(function, offset)


def test_an_answer_that_is_not_a_number_is_no_proof_whichever_input_gives_it() -> None:
    same = pair(lambda x, offset: (10 - x.abs()).sqrt())

    assert certify(*same, example=EXAMPLE)["max_rel"] == 0
    with pytest.raises(EquivalenceError, match="by nan relative"):
        certify(*same, example=EXAMPLE, samples=torch.full((2, 3, 8, 8), 11.0))
    with pytest.raises(EquivalenceError, match="by nan relative"):  # the second of the real inputs
        certify(*same, example=EXAMPLE, samples=torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 11.0)]))


def test_two_batch_sizes_another_size_and_the_real_inputs_are_measured_and_counted() -> None:
    seen = []

    def watch(x: Tensor, offset: Tensor) -> Tensor:
        seen.append((tuple(x.shape), x.dtype))
        return x + offset

    found = certify(*pair(watch), example=EXAMPLE, samples=torch.ones(4, 3, 8, 8))

    shapes = {(1, 3, 8, 8), (2, 3, 8, 8), (1, 3, 12, 12), (3, 3, 8, 8)}  # real inputs: the first, then the rest
    assert set(seen) == {(shape, torch.float64) for shape in shapes}
    assert found == {
        "max_rel": 0,
        "tolerance": TOLERANCE,
        "dtype": "float64",
        "errors": {"random": 0, "other_size": 0, "real": 0},
        "samples": {"random": 3, "other_size": 1, "real": 4},
    }


@pytest.mark.parametrize(("shape", "other"), [((3, 8, 8), (3, 12, 12)), ((3, 40), (3, 72)), ((5,), None)])
def test_another_size_is_larger_along_all_axes_but_the_first_two(
    shape: tuple[int, ...], other: tuple[int, ...] | None
) -> None:
    seen = set()

    def watch(x: Tensor, offset: Tensor) -> Tensor:
        seen.add(tuple(x.shape[1:]))
        return x

    certify(*pair(watch), example=torch.zeros(1, *shape))

    assert seen == {shape} | ({other} if other else set())


def test_another_size_that_the_masked_network_refuses_is_left_out() -> None:
    found = certify(*pair(lambda x, offset: x.view(-1, 192)), example=EXAMPLE)

    assert found["errors"].keys() == {"random"}


def test_another_size_that_only_the_slim_network_refuses_is_a_difference() -> None:
    masked, small = pair(lambda x, offset: x if offset == 0 else x.view(-1, 3, 8, 8), offset=1.0)

    with pytest.raises(EquivalenceError, match="may fix a size: shape"):
        certify(masked, small, example=EXAMPLE)


def test_a_difference_on_one_kind_of_input_is_enough() -> None:
    masked, small = pair(lambda x, offset: x + offset * (x.shape[-1] > 8), offset=1e-8)

    with pytest.raises(EquivalenceError, match="differs from the masked one by"):
        certify(masked, small, example=EXAMPLE)


def in_float32(x: Tensor, offset: Tensor) -> Tensor:
    """Fixes the type as rotary embeddings and attention masks do."""
    return (x @ torch.eye(8)) + offset


@pytest.mark.parametrize(("offset", "caught"), [(0.0, False), (1e-5, False), (1e-2, True)])
def test_a_network_that_fixes_float32_is_measured_in_float32_and_says_so(offset: float, caught: bool) -> None:
    masked, small = pair(in_float32, offset)

    if caught:
        with pytest.raises(EquivalenceError, match=r"\(allowed: 1e-04\)"):
            certify(masked, small, example=EXAMPLE)
        return
    found = certify(masked, small, example=EXAMPLE)
    assert (found["dtype"], found["tolerance"]) == ("float32", TOLERANCE_FLOAT32)
    assert offset / 10 <= found["max_rel"] <= TOLERANCE_FLOAT32


@pytest.mark.parametrize(
    "function",
    [
        lambda x, offset: {"main": x, "auxiliary": x + offset},
        lambda x, offset: (x, [x + offset, "words"]),
        lambda x, offset: (x.argmax(1), x + offset),
    ],
    ids=["dict", "nested", "with whole numbers"],
)
def test_every_output_counts(function: Callable[[Tensor, Tensor], Any]) -> None:
    assert certify(*pair(function), example=EXAMPLE)["max_rel"] == 0
    with pytest.raises(EquivalenceError, match="differs from the masked one by"):
        certify(*pair(function, offset=1e-6), example=EXAMPLE)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, offset: x if offset == 0 else x[:, :1],
        lambda x, offset: (x,) if offset == 0 else (x, x),
        lambda x, offset: x if offset == 0 else x[None],  # would broadcast
    ],
    ids=["narrower", "one more", "another rank"],
)
def test_outputs_of_other_shapes_are_a_difference(function: Callable[[Tensor, Tensor], Any]) -> None:
    with pytest.raises(EquivalenceError, match="by nan relative"):
        certify(*pair(function, offset=1.0), example=EXAMPLE)


def test_the_error_is_relative_to_the_largest_number_of_its_output() -> None:
    def two(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((2,), 1e6).to(x) + offset, torch.full((2,), 2.0).to(x) + offset

    masked, small = Computed(two), Computed(two, offset=2e-11)

    assert certify(masked, small, example=EXAMPLE)["max_rel"] == pytest.approx(1e-11, rel=1e-3)


def test_several_inputs_are_drawn_and_numbers_of_tokens_stay() -> None:
    seen = []

    class Pair(nn.Module):
        def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
            seen.append((tokens.tolist(), image.dtype, float(image.abs().max()) > 0))
            return image * tokens.sum()

    found = certify(Pair(), Pair(), example=(torch.tensor([[3, 4]]), torch.zeros(1, 5)))

    assert found["samples"] == {"random": 3}
    assert [(dtype, drawn) for _, dtype, drawn in seen[-4:]] == [(torch.float64, True)] * 4
    assert {tuple(map(tuple, tokens)) for tokens, _, _ in seen} == {((3, 4),), ((3, 4), (3, 4))}


def test_both_networks_are_left_as_they_are() -> None:
    masked, small = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    masked.train()
    before = {name: tensor.clone() for name, tensor in masked.state_dict().items()}

    certify(masked, small, example=EXAMPLE)

    assert masked.training
    assert masked.weight.dtype == torch.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in masked.state_dict().items())
