"""Cutting tensors by (dim, positions, block), and rebuilding the shapes from a plan."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from networks import chosen_groups
from torch import nn

from chase.errors import CheckpointError
from chase.slimming.groups import Group, Slice
from chase.slimming.surgery import (
    Cut,
    Plan,
    cuts,
    narrowed,
    rebuild_,
    replaced,
    sides_without,
    slim_copy,
    tensors_of,
    without,
)
from chase.slimming.units import Block

EXAMPLE = torch.zeros(1, 3, 2, 2)


def network() -> nn.Sequential:
    convs = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(20, 2))


def less(model: nn.Module, **lost: list[Cut]) -> tuple[Any, Plan]:
    """A copy of the model whose tensors (`0_weight` for "0.weight") lost something, and its plan."""
    named = {name.replace("_", ".", 1): parts for name, parts in lost.items()}
    return slim_copy(model, lambda name, tensor: without(tensor, named[name]) if name in named else None)


def cut_network(model: nn.Module, **kept: list[int]) -> tuple[Any, Plan]:
    """A copy in which group i keeps `g<i>`, and its plan."""
    groups = chosen_groups(model, EXAMPLE)
    units = {group.name: torch.arange(group.size) for group in groups}
    units |= {name.removeprefix("g"): torch.tensor(which) for name, which in kept.items()}
    lost = cuts(groups, units)
    return slim_copy(model, lambda name, tensor: without(tensor, lost[name]) if name in lost else None)


def positions(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def listed(found: dict[str, list[Cut]]) -> dict[str, list[tuple[int, list[int], Block | None]]]:
    return {name: [(cut.dim, cut.positions.tolist(), cut.block) for cut in parts] for name, parts in found.items()}


def test_the_positions_that_go_are_those_of_the_units_that_do_not_stay() -> None:
    parts = (
        Slice("a.weight", 0, positions(0, 1, 2), positions(0, 1, 2)),
        Slice("b.weight", 1, positions(0, 1, 2, 3, 4, 5), positions(2, 2, 1, 1, 0, 0), reads=True),
        Slice("c.weight", 1, positions(0, 1), positions(1, 2), Block(0, 2), reads=True),
        Slice("c.weight", 1, positions(0), positions(1), Block(1, 2), reads=True),
    )
    groups = (Group("a", 3, parts, ("a.weight",)),)

    assert listed(cuts(groups, {"a": positions(1)})) == {
        "a.weight": [(0, [0, 2], None)],
        "b.weight": [(1, [0, 1, 4, 5], None)],
        "c.weight": [(1, [1], Block(0, 2))],
    }
    assert cuts(groups, {"a": positions(0, 1, 2)}) == {}


def test_positions_of_two_groups_in_one_tensor_go_together() -> None:
    def group(name: str, position: int) -> Group:
        part = Slice("w", 0, positions(position, position + 1), positions(0, 1))
        return Group(name, 2, (part,), ("w",))

    gone = cuts((group("a", 0), group("b", 2)), {"a": positions(0), "b": positions(1)})

    assert listed(gone) == {"w": [(0, [1], None), (0, [2], None)]}
    assert without(torch.arange(4), gone["w"]).tolist() == [0, 3]


def test_without_drops_positions_and_keeps_the_order_of_the_rest() -> None:
    tensor = torch.arange(6).view(2, 3)

    assert without(tensor, [Cut(1, positions(1))]).tolist() == [[0, 2], [3, 5]]
    assert without(tensor, [Cut(0, positions(0))]).tolist() == [[3, 4, 5]]
    assert without(tensor, [Cut(1, positions(2, 0)), Cut(0, positions(1))]).tolist() == [[1]]
    assert without(tensor, []).tolist() == tensor.tolist()


def test_each_block_of_rows_drops_columns_of_its_own() -> None:
    """Rows 0 and 1 lose column 0, rows 2 and 3 column 2; then everything loses row 3."""
    tensor = torch.arange(12).view(4, 3)
    blocks = [Cut(1, positions(0), Block(0, 2)), Cut(1, positions(2), Block(1, 2))]

    assert without(tensor, blocks).tolist() == [[1, 2], [4, 5], [6, 7], [9, 10]]
    assert without(tensor, [*blocks, Cut(0, positions(3))]).tolist() == [[1, 2], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    "lost",
    [
        [],
        [Cut(0, positions(1, 3)), Cut(1, positions(0))],
        [Cut(1, positions(0), Block(0, 2)), Cut(1, positions(2), Block(1, 2)), Cut(0, positions(0, 3))],
    ],
)
def test_the_shape_is_known_without_cutting(lost: list[Cut]) -> None:
    tensor = torch.arange(24).view(4, 3, 2)

    assert sides_without(tensor.shape, lost) == list(without(tensor, lost).shape)


def test_every_tensor_of_a_channel_is_cut_and_the_rest_is_left() -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    small, plan = cut_network(model, g0=[1, 3], g3=[0, 2, 4])

    after = small.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(after["0.weight"], before["0.weight"][[1, 3]])
    assert torch.equal(after["0.bias"], before["0.bias"][[1, 3]])
    assert torch.equal(after["1.running_var"], before["1.running_var"][[1, 3]])
    assert torch.equal(after["3.weight"], before["3.weight"][[0, 2, 4]][:, [1, 3]])
    columns = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert torch.equal(after["6.weight"], before["6.weight"][:, columns])
    assert torch.equal(after["6.bias"], before["6.bias"])
    assert "6.bias" not in plan.shapes
    assert plan.shapes["3.weight"] == [3, 2, 1, 1]


def test_the_integers_of_modules_follow() -> None:
    model, plan = cut_network(network(), g0=[1, 3], g3=[0, 2, 4])

    assert (model[0].in_channels, model[0].out_channels) == (3, 2)
    assert (model[3].in_channels, model[3].out_channels) == (2, 3)
    assert (model[1].num_features, model[4].num_features) == (2, 3)
    assert (model[6].in_features, model[6].out_features) == (12, 2)
    assert plan.attributes == {
        "0": {"out_channels": 2},
        "1": {"num_features": 2},
        "3": {"out_channels": 3, "in_channels": 2},
        "4": {"num_features": 3},
        "6": {"in_features": 12},
    }


@pytest.mark.parametrize("tracked", [True, False])
def test_a_norm_without_running_statistics_follows_as_well(tracked: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=tracked), nn.Linear(4, 2))
    names = ["0_weight", "1_weight", *(["1_running_mean", "1_running_var"] if tracked else [])]

    small, plan = less(model, **{name: [Cut(0, positions(0))] for name in names})

    assert small[1].num_features == 3
    assert plan.attributes == {"0": {"out_features": 3}, "1": {"num_features": 3}}


def test_a_module_that_is_the_model_itself_follows() -> None:
    small, plan = less(nn.Linear(3, 4), weight=[Cut(0, positions(0, 1))])

    assert small.out_features == 2
    assert plan == Plan({"weight": [2, 3]}, {"": {"out_features": 2}})


def test_parameters_stay_parameters_with_their_own_requires_grad() -> None:
    model = network()
    model.get_parameter("3.weight").requires_grad_(False)

    small, _ = cut_network(model, g0=[0])

    assert not small.get_parameter("3.weight").requires_grad
    assert small.get_parameter("0.weight").requires_grad
    assert small.get_parameter("0.weight").is_leaf


def test_a_cut_of_nothing_changes_nothing() -> None:
    model = network()

    small, plan = cut_network(model)

    assert plan == Plan({}, {}, {})
    for name, tensor in tensors_of(model).items():
        assert torch.equal(tensor, tensors_of(small)[name])
        assert tensors_of(small)[name] is not tensor


def test_a_tensor_with_two_names_stays_one_tensor() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[4].weight = model[2].weight

    small, plan = less(model, **{"2_weight": [Cut(0, positions(0)), Cut(1, positions(0, 1))]})

    assert small[4].weight is small[2].weight
    assert (small[4].in_features, small[4].out_features) == (4, 5)
    assert plan.attributes == {name: {"in_features": 4, "out_features": 5} for name in ("2", "4")}


def test_only_what_changes_is_new_and_the_rest_is_a_copy() -> None:
    model = nn.Linear(3, 4)
    bias = torch.zeros(4)

    copied: Any = replaced(model, lambda name, tensor: bias if name == "bias" else None)

    assert copied.bias.data_ptr() == bias.data_ptr()
    assert isinstance(copied.bias, nn.Parameter)
    assert torch.equal(copied.weight, model.weight)
    assert copied.weight.data_ptr() != model.weight.data_ptr()


class Positioned(nn.Module):
    """A linear layer and a constant that a state dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.register_buffer("offset", torch.arange(4.0), persistent=False)


def test_a_buffer_that_a_state_dict_leaves_out_travels_with_the_plan() -> None:
    last = [Cut(0, positions(1))]
    small, plan = slim_copy(Positioned(), lambda name, tensor: without(tensor, last) if name != "fc.weight" else None)
    again: Any = Positioned()

    rebuild_(again, plan.to_dict())

    assert {name: tensor.tolist() for name, tensor in plan.constants.items()} == {"offset": [0, 2, 3]}
    assert again.offset.tolist() == small.get_buffer("offset").tolist() == [0, 2, 3]
    assert "offset" not in again.state_dict()


def test_a_plan_is_plain_data_and_rebuilds_the_network_bit_for_bit() -> None:
    model, made = cut_network(network(), g0=[1, 3], g3=[0, 2, 4])
    plan = json.loads(json.dumps(made.to_dict()))
    again: Any = network()

    rebuild_(again, plan)
    again.load_state_dict(model.state_dict(), strict=True)

    x = torch.rand(2, 3, 2, 2)
    assert torch.equal(again.eval()(x), copy.deepcopy(model).eval()(x))
    assert (again[3].in_channels, again[3].out_channels) == (2, 3)
    assert [repr(module) for module in again] == [repr(module) for module in model]


def test_a_plan_of_another_model_is_refused() -> None:
    message = r"the width plan names 9\.weight, which Sequential does not have"
    with pytest.raises(CheckpointError, match=message):
        rebuild_(network(), {"shapes": {"9.weight": [2]}, "attributes": {}})


def described(groups: tuple[Group, ...]) -> dict[str, Any]:
    """The groups as plain data."""
    return {
        group.name: (
            group.size,
            [(p.tensor, p.dim, p.positions.tolist(), p.units.tolist(), p.block, p.reads) for p in group.slices],
            [(lane.units.tolist(), lane.fixed) for lane in group.lanes],
            [[(lane.units.tolist(), lane.fixed) for lane in lanes] for lanes in group.even],
        )
        for group in groups
    }


class Grouped(nn.Module):
    """A grouped convolution, a sum and a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1, groups=2), nn.Conv2d(3, 6, 1)
        self.fc = nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc((self.b(self.a(x).relu()) + self.c(x)).flatten(1))
        return y


def test_narrowed_groups_are_those_of_the_network_that_was_cut() -> None:
    model = Grouped()
    groups = chosen_groups(model, EXAMPLE, prune_skip=True)
    kept = {"a": positions(1, 2, 4, 7), "b": positions(0, 2, 4, 5)}
    lost = cuts(groups, kept)
    small, _ = slim_copy(model, lambda name, tensor: without(tensor, lost[name]) if name in lost else None)

    assert described(narrowed(groups, kept, lost)) == described(chosen_groups(small, EXAMPLE, prune_skip=True))
