"""Channel groups: which slices leave together, which channels stay, and why."""

from __future__ import annotations

import pytest
import torch
from networks import paper_groups, slices
from torch import Tensor, nn

from chase.errors import TraceError
from chase.models.mlp import MLP
from chase.models.resnet import BasicBlock, Bottleneck
from chase.slimming import channel_groups
from chase.slimming.groups import SKIP_REASON, Group, layer_name, prunable
from chase.slimming.units import Block

NORM = ("weight", "bias", "running_mean", "running_var")


def groups_of(model: nn.Module, *shape: int) -> dict[str, Group]:
    return {group.name: group for group in channel_groups(model, torch.zeros(1, *shape))}


def norm(name: str) -> set[tuple[str, int]]:
    return {(f"{name}.{tensor}", 0) for tensor in NORM}


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


def chain() -> nn.Module:
    first = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    second = [nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(20, 3))


def with_block(block: nn.Module, channels: int) -> nn.Module:
    """A stem of 4 channels, the block, and a classifier."""
    stem = nn.Conv2d(3, 4, 1, bias=False)
    return nn.Sequential(nn.Sequential(stem, nn.ReLU()), block, head(channels))


def test_a_channel_of_a_chain_owns_its_row_its_norm_and_its_consumers_column() -> None:
    groups = groups_of(chain(), 3, 2, 2)

    assert list(groups) == ["0", "3", "7"]
    assert slices(groups["0"]) == {("0.weight", 0), ("0.bias", 0), ("3.weight", 1)} | norm("1")
    assert slices(groups["3"]) == {("3.weight", 0), ("7.weight", 1)} | norm("4")
    assert [(group.size, group.producers) for group in groups.values()] == [
        (4, ("0.weight",)),
        (5, ("3.weight",)),
        (3, ("7.weight",)),
    ]


def test_positions_and_units_agree_also_where_a_flattened_image_repeats_a_channel() -> None:
    group = groups_of(chain(), 3, 2, 2)["3"]
    parts = {part.tensor: part for part in group.slices}

    assert parts["3.weight"].positions.tolist() == parts["3.weight"].units.tolist() == [0, 1, 2, 3, 4]
    assert parts["7.weight"].positions.tolist() == list(range(20))
    assert parts["7.weight"].units.tolist() == [unit for unit in range(5) for _ in range(4)]


def test_the_output_is_held_and_says_so() -> None:
    groups = groups_of(chain(), 3, 2, 2)

    assert groups["7"].why_not() == "is an output of the model"
    assert groups["0"].why_not() is None
    assert [group.name for group in prunable(groups.values())] == ["0", "3"]


def test_an_mlp_has_a_group_for_each_hidden_layer() -> None:
    groups = groups_of(MLP(num_classes=3, in_channels=1, side=4, hidden=[6, 5]), 1, 4, 4)

    assert [(group.name, group.size, group.why_not() is None) for group in groups.values()] == [
        ("1", 6, True),
        ("3", 5, True),
        ("5", 3, False),
    ]
    assert slices(groups["1"]) == {("1.weight", 0), ("1.bias", 0), ("3.weight", 1)}


def test_a_basic_block_ties_its_end_to_its_beginning() -> None:
    groups = groups_of(with_block(BasicBlock(4, 4, 1), 4), 3, 4, 4)

    assert list(groups) == ["0.0", "1.conv1", "2.2"]
    assert groups["0.0"].producers == ("0.0.weight", "1.conv2.weight")
    assert slices(groups["0.0"]) == {
        ("0.0.weight", 0),
        ("1.conv1.weight", 1),
        ("1.conv2.weight", 0),
        ("2.2.weight", 1),
    } | norm("1.bn2")
    assert slices(groups["1.conv1"]) == {("1.conv1.weight", 0), ("1.conv2.weight", 1)} | norm("1.bn1")
    assert [group.skip for group in groups.values()] == [True, False, False]


def test_a_bottleneck_with_a_shortcut_ties_its_end_to_the_shortcut_and_marks_where_they_split() -> None:
    groups = groups_of(with_block(Bottleneck(4, 2, 2), 8), 3, 4, 4)

    assert list(groups) == ["0.0", "1.conv1", "1.conv2", "1.conv3", "2.2"]
    assert slices(groups["0.0"]) == {("0.0.weight", 0), ("1.conv1.weight", 1), ("1.downsample.0.weight", 1)}
    assert slices(groups["1.conv2"]) == {("1.conv2.weight", 0), ("1.conv3.weight", 1)} | norm("1.bn2")
    assert groups["1.conv3"].producers == ("1.conv3.weight", "1.downsample.0.weight")
    ends = {("1.conv3.weight", 0), ("1.downsample.0.weight", 0), ("2.2.weight", 1)}
    assert slices(groups["1.conv3"]) == ends | norm("1.bn3") | norm("1.downsample.1")
    assert [group.skip for group in groups.values()] == [True, False, False, True, False]


def test_prune_skip_frees_the_skip_groups_and_the_stem() -> None:
    groups = groups_of(with_block(Bottleneck(4, 2, 2), 8), 3, 4, 4)

    assert groups["0.0"].why_not() == groups["1.conv3"].why_not() == SKIP_REASON
    assert [group.name for group in prunable(groups.values())] == ["1.conv1", "1.conv2"]
    assert [group.name for group in prunable(groups.values(), prune_skip=True)] == list(groups)[:-1]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("cifar-resnet50", 7552),
        ("cifar-resnet34", 3776),
        ("cifar-resnet20", 336),
        ("cifar-resnet32", 560),
        ("vgg19", 5504),
    ],
)
def test_the_papers_networks_have_the_papers_prunable_channels(name: str, channels: int) -> None:
    assert sum(group.size for group in prunable(paper_groups(name))) == channels


def test_keep_leaves_vgg19_the_4992_channels_of_the_reference() -> None:
    chosen = prunable(paper_groups("vgg19"), keep=["features.49"])

    assert sum(group.size for group in chosen) == 4992
    assert "features.49" not in [group.name for group in chosen]


def test_keep_takes_patterns_and_names_the_one_that_matched() -> None:
    groups = {group.name: group for group in paper_groups("cifar-resnet20")}

    assert groups["layer2.0.conv1"].why_not(keep=["layer1.*", "layer2.*"]) == "kept by the setting keep=layer2.*"
    assert groups["layer3.0.conv1"].why_not(keep=["layer1.*", "layer2.*"]) is None
    assert sum(group.size for group in prunable(groups.values(), keep=["layer1.*"])) == 336 - 3 * 16


def test_the_skip_groups_of_a_resnet_are_one_per_stage() -> None:
    skips = {group.name: group.size for group in paper_groups("cifar-resnet20") if group.skip}

    # stage 1 adds to the stem itself; the later ones have a shortcut convolution
    assert skips == {"conv1": 16, "layer2.0.conv2": 32, "layer3.0.conv2": 64}


def test_a_pinned_group_stays_even_under_prune_skip() -> None:
    group = Group("a", 2, (), ("a.weight",), pinned="is an output of the model", skip=True)

    assert group.why_not(prune_skip=True) == "is an output of the model"


def test_a_layers_name_is_its_tensors_without_the_last_part() -> None:
    assert layer_name("layer1.0.conv1.weight") == "layer1.0.conv1"
    assert layer_name("weight") == "weight"


class Beside(nn.Module):
    """Four channels beside the three of the image, and a sum with seven others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 7, 1), nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat([self.a(x), x], 1) + self.b(x))
        return y


def test_channels_that_stay_beside_some_that_may_leave_are_counted_by_reason() -> None:
    group = groups_of(Beside(), 3, 2, 2)["a"]
    parts = {part.tensor: part for part in group.slices}

    assert (group.size, group.producers) == (4, ("a.weight", "b.weight"))
    assert group.held == {"is tied to channels that cannot leave": 3}
    assert group.why_not(prune_skip=True) is None
    assert [(lane.units.tolist(), lane.fixed, lane.width) for lane in group.lanes] == [
        ([0, 1, 2, 3], 0, 4),
        ([0, 1, 2, 3], 3, 7),
    ]
    assert parts["b.weight"].positions.tolist() == parts["last.weight"].positions.tolist() == [0, 1, 2, 3]


def test_the_groups_of_a_grouped_convolution_are_lanes_that_stay_even() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    groups = groups_of(model, 3, 2, 2)
    columns = [part for part in groups["0"].slices if part.tensor == "2.weight"]

    assert [[lane.units.tolist() for lane in lanes] for lanes in groups["0"].even] == [[[0, 1], [2, 3]]]
    assert [[lane.units.tolist() for lane in lanes] for lanes in groups["2"].even] == [[[0, 1, 2], [3, 4, 5]]]
    assert [(part.block, part.reads) for part in columns] == [(Block(0, 2), True), (Block(1, 2), True)]
    assert [part.positions.tolist() for part in columns] == [[0, 1], [0, 1]]
    assert [part.units.tolist() for part in columns] == [[0, 1], [2, 3]]
    assert [dict(group.conv_groups) for group in groups.values()] == [{}, {"2.weight": 2}, {}]


def test_the_groups_of_a_convolution_are_known_where_its_weight_is_computed() -> None:
    class Halved(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, 0.5 * self.weight, groups=self.groups)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Halved(4, 6, 1, groups=2, bias=False), nn.Conv2d(6, 2, 1))

    assert groups_of(model, 3, 2, 2)["1"].conv_groups == {"1.weight": 2}


def test_a_model_that_cannot_be_traced_is_one_clear_error() -> None:
    with pytest.raises(TraceError, match=r"cannot trace Linear on an input of shape \[1, 5\]: "):
        channel_groups(nn.Linear(4, 2), torch.zeros(1, 5))
