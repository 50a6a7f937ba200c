"""Masks: what they count, bury and forbid; and their bits on disk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import capacity
from torch import nn

from chase.errors import CheckpointError
from chase.slimming.groups import Group, Slice
from chase.slimming.units import Block
from chase.sparse import Masks, maskable
from chase.sparse.masks import pack, unpack


def two_layers() -> nn.Sequential:
    """conv (3 → 4, bias), norm, flatten 2 × 2, linear (16 → 2)."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
    return nn.Sequential(conv, norm, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))


def its_group() -> Group:
    units = torch.arange(4)
    whole = [Slice(name, 0, units, units) for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean")]
    columns = Slice("4.weight", 1, torch.arange(16), units.repeat_interleave(4), reads=True)
    return Group("0", 4, (*whole, columns), ("0.weight",))


def masks_without(*dead: int) -> tuple[nn.Sequential, Masks]:
    model = two_layers()
    masks = Masks.dense(model, [its_group()])
    masks.alive["0"][list(dead)] = False
    return model, masks


def test_maskable_are_the_weights_of_convolutions_and_linear_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.up = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2)
            self.norm, self.layer_norm = nn.BatchNorm2d(4), nn.LayerNorm(4)
            self.embed, self.fc, self.tied = nn.Embedding(5, 4), nn.Linear(4, 5), nn.Linear(4, 5)
            self.tied.weight = self.fc.weight
            self.position = nn.Parameter(torch.zeros(4, 4))

    assert list(maskable(Net())) == ["conv.weight", "up.weight", "fc.weight"]


def test_dense_masks_have_nothing_masked() -> None:
    _, masks = masks_without()

    assert (masks.total, masks.nonzero, masks.sparsity) == (140, 140, 0.0)
    assert (masks.channels, masks.removed, masks.channel_sparsity) == (4, 0, 0.0)
    assert [part for name in two_layers().state_dict() for part in masks.dead_slices(name)] == []
    assert capacity(masks) == 140
    assert Masks.dense(two_layers()).channel_sparsity == 0.0


def test_a_dead_channel_takes_its_row_and_its_columns_along() -> None:
    _, masks = masks_without(1, 3)
    masks.bury()

    conv, linear = masks.weights["0.weight"], masks.weights["4.weight"]
    assert conv.flatten(1).sum(1).tolist() == [27, 0, 27, 0]
    assert linear.sum(0).tolist() == [2.0] * 4 + [0.0] * 4 + [2.0] * 4 + [0.0] * 4
    assert (masks.nonzero, masks.removed, masks.channel_sparsity) == (54 + 16, 2, 0.5)
    assert masks.sparsity == 0.5
    assert masks.widths() == {"0": 2}
    assert masks.shapes() == {"0.weight": (2, 3, 3, 3), "4.weight": (2, 8)}
    assert capacity(masks) == 70


def test_the_slices_that_lost_channels_come_with_the_positions_that_died() -> None:
    _, masks = masks_without(0, 2)

    assert [(part.dim, gone.tolist()) for part, gone in masks.dead_slices("1.bias")] == [(0, [0, 2])]
    assert [(part.dim, gone.tolist()) for part, gone in masks.dead_slices("4.weight")] == [
        (1, [0, 1, 2, 3, 8, 9, 10, 11])
    ]
    assert list(masks.dead_slices("4.bias")) == list(masks.dead_slices("nothing")) == []


def test_masked_silences_what_makes_a_dead_channel_and_leaves_what_reads_it() -> None:
    model, masks = masks_without(1)
    masks.weights["4.weight"][0, :3] = 0
    ones = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}

    found = {name: masks.masked(name, tensor) for name, tensor in ones.items()}

    assert found["0.weight"].flatten(1).sum(1).tolist() == [27, 0, 27, 27]
    assert found["0.bias"].tolist() == found["1.weight"].tolist() == found["1.bias"].tolist() == [1, 0, 1, 1]
    assert found["4.weight"].sum(0).tolist() == [1.0] * 3 + [2.0] * 13
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked", "4.bias"):  # buffers, and no dead channel
        assert found[name] is ones[name]


def test_masked_changes_nothing_in_place_and_keeps_the_type_of_the_tensor() -> None:
    _, masks = masks_without(1)
    weight = torch.ones(4, 3, 3, 3, dtype=torch.float64)

    found = masks.masked("0.weight", weight)

    assert weight.all()
    assert found.dtype == torch.float64


def test_only_living_channels_are_allowed() -> None:
    _, masks = masks_without(0)
    masks.weights["4.weight"].zero_()

    assert masks.allowed("0.weight").flatten(1).all(1).tolist() == [False, True, True, True]
    assert masks.allowed("4.weight").all(0).tolist() == [False] * 4 + [True] * 12


def test_what_is_masked_in_living_channels_is_free() -> None:
    _, masks = masks_without(0)
    masks.weights["0.weight"][1].zero_()
    masks.weights["4.weight"].zero_()

    assert masks.free("0.weight").flatten(1).any(1).tolist() == [False, True, False, False]
    assert masks.free("4.weight").all(0).tolist() == [False] * 4 + [True] * 12


def test_vectors_are_the_parameters_of_dead_channels_that_are_no_weights() -> None:
    model, masks = masks_without(2)

    vectors = masks.vectors(model)
    assert {name: vector.tolist() for name, vector in vectors.items()} == {
        name: [1, 1, 0, 1] for name in ("0.bias", "1.weight", "1.bias")
    }
    assert not any(vector.requires_grad for vector in vectors.values())
    assert masks_without()[1].vectors(model) == {}


def test_apply_zeroes_what_is_masked_and_nothing_else() -> None:
    model, masks = masks_without(1)
    nn.init.constant_(model.get_parameter("1.bias"), 0.5)
    masks.weights["0.weight"][0, 0] = 0
    masks.bury()
    before = {name: p.clone() for name, p in model.named_parameters()}

    masks.apply_(model)

    full = masks.weights | masks.vectors(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] * full.get(name, torch.ones(()))), name
    assert model[:2](torch.randn(3, 3, 4, 4))[:, 1].eq(0).all()
    assert not model[:2](torch.randn(3, 3, 4, 4))[:, 0].eq(0).all()


def grouped(*dead: int) -> Masks:
    """1x1 convolution (2 → 4), then one in two groups (4 → 6): rows 0-2 read units 0 and 1, rows 3-5 units 2 and 3."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 1, groups=2))
    units, two = torch.arange(4), torch.arange(2)
    halves = [Slice("1.weight", 1, two, two + 2 * index, Block(index, 2), reads=True) for index in range(2)]
    masks = Masks.dense(model, [Group("0", 4, (Slice("0.weight", 0, units, units), *halves), ("0.weight",))])
    masks.alive["0"][list(dead)] = False
    return masks


def test_a_grouped_convolution_loses_a_column_of_the_rows_that_read_it_only() -> None:
    masks = grouped(1, 2)

    assert [(part.block, gone.tolist()) for part, gone in masks.dead_slices("1.weight")] == [
        (Block(0, 2), [1]),
        (Block(1, 2), [0]),
    ]
    assert masks.allowed("1.weight").flatten(1).tolist() == [[True, False]] * 3 + [[False, True]] * 3
    masks.bury()
    assert masks.weights["1.weight"].flatten(1).tolist() == [[1, 0]] * 3 + [[0, 1]] * 3
    assert masks.weights["0.weight"].flatten(1).tolist() == [[1, 1], [0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("dead", "shape"),
    [
        ((), (6, 2, 1, 1)),
        ((0,), (6, 2, 1, 1)),  # the other block needs both columns
        ((0, 1), (6, 2, 1, 1)),
        ((1, 2), (6, 1, 1, 1)),
        ((0, 1, 2), (6, 1, 1, 1)),
        ((0, 1, 2, 3), (6, 0, 1, 1)),
    ],
)
def test_a_grouped_convolution_stays_as_wide_as_its_widest_group(dead: tuple[int, ...], shape: tuple[int, ...]) -> None:
    masks = grouped(*dead)

    assert masks.shapes() == {"0.weight": (4 - len(dead), 2, 1, 1), "1.weight": shape}


def test_the_rows_of_two_groups_add_up_within_a_block() -> None:
    """A block that reads units of two groups loses columns to both."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    one = torch.arange(1)
    groups = [
        Group(name, 1, tuple(Slice("0.weight", 1, one + column, one, Block(index, 2), True) for index in (0, 1)), ())
        for column, name in enumerate("ab")
    ]
    masks = Masks.dense(model, groups)

    masks.alive["a"][:] = False
    assert masks.shapes() == {"0.weight": (4, 1, 1, 1)}
    masks.alive["b"][:] = False
    assert masks.shapes() == {"0.weight": (4, 0, 1, 1)}


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(0, 99), st.sampled_from([torch.float32, torch.float16, torch.bool]))
def test_packing_gives_the_same_mask_back(shape: list[int], seed: int, dtype: torch.dtype) -> None:
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).to(dtype)

    bits = pack(mask)

    assert bits.dtype == torch.uint8
    assert len(bits) == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, torch.full_like(mask, 1)), mask)


def test_packing_does_not_depend_on_the_memory_format() -> None:
    mask = (torch.rand(4, 3, 3, 3) < 0.5).float()
    last = mask.to(memory_format=torch.channels_last)

    assert torch.equal(pack(mask), pack(last))
    again = unpack(pack(mask), last)
    assert torch.equal(again, mask)
    assert again.is_contiguous(memory_format=torch.channels_last)


def test_bits_of_another_size_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"a mask of 3 bytes does not fit a weight of \[4, 2\]"):
        unpack(torch.zeros(3, dtype=torch.uint8), torch.zeros(4, 2))


def test_a_state_moves_to_other_masks_in_place() -> None:
    _, masks = masks_without(1)
    masks.weights["4.weight"][0, :3] = 0
    masks.bury()
    _, other = masks_without()
    kept = other.weights["0.weight"]

    other.load_state_dict(masks.state_dict())

    assert other.weights["0.weight"] is kept
    assert all(torch.equal(other.weights[name], masks.weights[name]) for name in masks.weights)
    assert torch.equal(other.alive["0"], masks.alive["0"])


@pytest.mark.parametrize(("kind", "odd"), [("weights", "4.weight"), ("alive", "0")])
def test_the_state_of_another_model_is_refused_by_name(kind: str, odd: str) -> None:
    _, masks = masks_without()
    state = masks.state_dict()
    del state[kind][odd]

    with pytest.raises(CheckpointError, match=f"belong to another model or other settings: {odd}"):
        masks.load_state_dict(state)
