"""Cutting tensors by (name, dim, kept positions), and rebuilding the shapes from a plan."""

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
from chase.slimming.surgery import Plan, cut_, cut_positions, rebuild_, without

EXAMPLE = torch.zeros(1, 3, 2, 2)


def network() -> nn.Sequential:
    convs = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(20, 2))


def cut_network(model: nn.Module, **kept: list[int]) -> Plan:
    """Cut so that group i keeps `g<i>`."""
    groups = chosen_groups(model, EXAMPLE)
    units = {group.name: torch.arange(group.size) for group in groups}
    units |= {name.removeprefix("g"): torch.tensor(which) for name, which in kept.items()}
    return cut_(model, cut_positions(groups, units))


def test_the_positions_that_go_are_those_of_the_units_that_do_not_stay() -> None:
    parts = (
        Slice("a.weight", 0, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])),
        Slice("b.weight", 1, torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([2, 2, 1, 1, 0, 0])),
    )
    gone = cut_positions((Group("a", 3, parts, ("a.weight",)),), {"a": torch.tensor([1])})

    assert {key: positions.tolist() for key, positions in gone.items()} == {
        ("a.weight", 0): [0, 2],
        ("b.weight", 1): [0, 1, 4, 5],
    }


def test_positions_of_two_groups_in_one_tensor_go_together() -> None:
    def group(name: str, position: int) -> Group:
        part = Slice("w", 0, torch.tensor([position, position + 1]), torch.tensor([0, 1]))
        return Group(name, 2, (part,), ("w",))

    gone = cut_positions((group("a", 0), group("b", 2)), {"a": torch.tensor([0]), "b": torch.tensor([1])})

    assert gone["w", 0].tolist() == [1, 2]


def test_without_drops_positions_and_keeps_the_order_of_the_rest() -> None:
    tensor = torch.arange(6).view(2, 3)

    assert without(tensor, 1, torch.tensor([1])).tolist() == [[0, 2], [3, 5]]
    assert without(tensor, 0, torch.tensor([0])).tolist() == [[3, 4, 5]]


def test_every_tensor_of_a_channel_is_cut_and_the_rest_is_left() -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    plan = cut_network(model, g0=[1, 3], g3=[0, 2, 4])

    after = model.state_dict()
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
    model: Any = network()

    plan = cut_network(model, g0=[1, 3], g3=[0, 2, 4])

    assert (model[0].in_channels, model[0].out_channels) == (3, 2)
    assert (model[3].in_channels, model[3].out_channels) == (2, 3)
    assert (model[1].num_features, model[4].num_features) == (2, 3)
    assert (model[6].in_features, model[6].out_features) == (12, 2)
    assert plan.attributes == {
        "0": {"out_channels": 2, "in_channels": 3},
        "1": {"num_features": 2},
        "3": {"out_channels": 3, "in_channels": 2},
        "4": {"num_features": 3},
        "6": {"out_features": 2, "in_features": 12},
    }


@pytest.mark.parametrize("tracked", [True, False])
def test_a_norm_without_running_statistics_follows_as_well(tracked: bool) -> None:
    norm = nn.BatchNorm1d(4, track_running_stats=tracked)
    model = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2))

    cut_(model, {("0.weight", 0): torch.tensor([0]), ("1.weight", 0): torch.tensor([0])})

    assert norm.num_features == 3


def test_a_module_that_is_the_model_itself_follows() -> None:
    model = nn.Linear(3, 4)

    plan = cut_(model, {("weight", 0): torch.tensor([0, 1])})

    assert model.out_features == 2
    assert plan == Plan({"weight": [2, 3]}, {"": {"out_features": 2, "in_features": 3}})


def test_parameters_stay_parameters_with_their_own_requires_grad() -> None:
    model = network()
    model.get_parameter("3.weight").requires_grad_(False)

    cut_network(model, g0=[0])

    assert not model.get_parameter("3.weight").requires_grad
    assert model.get_parameter("0.weight").requires_grad
    assert model.get_parameter("0.weight").is_leaf


def test_a_cut_of_nothing_changes_nothing() -> None:
    model = network()
    before = dict(model.named_parameters())

    plan = cut_network(model)

    assert plan == Plan({}, {})
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_a_tensor_with_two_names_stays_one_tensor() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[4].weight = model[2].weight

    cut_(model, {("2.weight", 0): torch.tensor([0]), ("2.weight", 1): torch.tensor([0, 1])})

    assert model[4].weight is model[2].weight
    assert (model[4].in_features, model[4].out_features) == (4, 5)


def test_a_plan_is_plain_data_and_rebuilds_the_network_bit_for_bit() -> None:
    model = network()
    plan = json.loads(json.dumps(cut_network(model, g0=[1, 3], g3=[0, 2, 4]).to_dict()))
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
