"""Channel events: targets in channels and in MACs, comparable scores, channels that return."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from small_training import ResidualNet, assert_nothing_masked_lives, batch, capacity, plain_step, same_weights, seeded
from torch import Tensor, nn

from chase.counting import Cost, channel_macs, cost, count, masked_macs
from chase.errors import RecipeError
from chase.slimming import channel_groups
from chase.slimming.groups import Group
from chase.slimming.network import cut
from chase.sparse import Chase, Masks, Method, Sparsifier, make
from chase.sparse.regrowth import Graveyard

EXAMPLE = batch(0)[0][:1]
HALF: dict[str, Any] = {"channel_sparsity": 0.5, "executed_macs": None}
OFTEN: dict[str, Any] = {"round_to": 1, "update_every": 2, "channel_every": 2, "stop": 1.0}


@cache
def known() -> tuple[tuple[Group, ...], Cost]:
    """The network's channel groups and costs, traced once."""
    net = seeded(ResidualNet)
    return channel_groups(net, EXAMPLE), cost(net, EXAMPLE)


def start(method: Method, steps: int = 12) -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
    net = seeded(ResidualNet)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    groups, spent = known()
    return net, optimizer, Sparsifier(net, optimizer, method, steps=steps, groups=groups, cost=spent)


def train(method: Method, steps: int = 12) -> Sparsifier:
    net, optimizer, sparse = start(method, steps)
    for step in range(1, steps + 1):
        plain_step(net, optimizer, step)
    return sparse


@pytest.mark.parametrize("target", [0.9, 0.7, 0.55])
@pytest.mark.parametrize("prune_skip", [False, True])
def test_a_target_in_macs_is_met_by_the_fewest_channels(target: float, prune_skip: bool) -> None:
    method = Chase(sparsity=0.5, executed_macs=target, prune_skip=prune_skip, min_channel_ratio=0.1, **OFTEN)
    sparse = train(method)
    spent = cost(sparse.model, EXAMPLE)

    ratio = masked_macs(spent, sparse.masks).gpu_supported / spent.macs

    largest = max(channel_macs(spent, sparse.masks.shapes(), group) for group in sparse.masks.groups) / spent.macs
    assert target - 2 * largest < ratio <= target  # widths before a channel left are a little larger
    small = cut(sparse.model, sparse.masks)[0]
    assert count(small, EXAMPLE).macs.gpu_supported / spent.macs == pytest.approx(ratio)


def test_a_target_below_the_floors_is_refused_with_the_least() -> None:
    with pytest.raises(RecipeError, match=r"executed_macs 0.3 cannot be reached .* the least is 0\.\d{4}"):
        start(Chase(executed_macs=0.3, min_channel_ratio=0.9, round_to=1))


@pytest.mark.parametrize("settings", [{"executed_macs": 0.5}, {"normalise": "macs", "channel_sparsity": 0.5}])
def test_macs_are_counted_by_tracing_or_handed_in(settings: dict[str, Any]) -> None:
    net = seeded(ResidualNet)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    groups = start(Chase(channel_sparsity=0.5, round_to=1))[2].masks.groups

    with pytest.raises(RecipeError, match="need example=, one input, to count MACs"):
        Sparsifier(net, optimizer, Chase(round_to=1, **settings), steps=9, groups=groups)
    spent = cost(net, EXAMPLE)
    Sparsifier(net, optimizer, Chase(round_to=1, **settings), steps=9, groups=groups, cost=spent)


def test_the_macs_of_one_channel_by_hand() -> None:
    net = seeded(ResidualNet)
    masks = Masks.dense(net, start(Chase(channel_sparsity=0.5, round_to=1))[2].masks.groups)
    groups, spent = {group.name: group for group in masks.groups}, cost(net, EXAMPLE)

    assert channel_macs(spent, masks.shapes(), groups["conv1"]) == 36 * (8 * 9) + 36 * (
        8 * 9
    )  # its row, conv2's column
    assert channel_macs(spent, masks.shapes(), groups["wide"]) == 4 * (8 * 9) + 5
    masks.alive["conv1"][:4] = False
    masks.bury()
    assert channel_macs(spent, masks.shapes(), groups["conv1"]) == 36 * (8 * 9) + 36 * (
        8 * 9
    )  # of each channel that is left


def shares(sparse: Sparsifier) -> dict[str, float]:
    return {group.name: 1 - int(sparse.masks.alive[group.name].sum()) / group.size for group in sparse.masks.groups}


def test_normalised_by_layer_a_small_layer_does_not_lose_everything() -> None:
    """`wide` is scaled down: raw magnitudes take its channels first, relative ones do not."""
    found = {}
    for normalise in ("none", "layer"):
        method = make(
            "prune-finetune", **HALF, criterion="umm", channel_scope="global", normalise=normalise, round_to=1
        )
        net, optimizer, sparse = start(method.with_(channel_start=0.5, stop=0.5, min_channel_ratio=0.0), steps=2)
        with torch.no_grad():
            net.get_parameter("wide.weight").mul_(1e-3)
        plain_step(net, torch.optim.SGD(net.parameters(), lr=0.0), 1)
        optimizer.zero_grad()
        optimizer.step()
        found[normalise] = shares(sparse)

    assert found["none"] == {"conv1": 0.0, "wide": 0.75}
    assert found["layer"]["conv1"] > 0.25


def test_by_macs_expensive_channels_leave_first() -> None:
    """A channel of conv1 executes 5184 MACs, one of wide 293."""
    found = {}
    for normalise in ("layer", "macs"):
        method = make("prune-finetune", **HALF, criterion="l1", channel_scope="global", normalise=normalise, round_to=1)
        sparse = train(method.with_(channel_sparsity=0.25, min_channel_ratio=0.0), steps=12)
        found[normalise] = masked_macs(cost(sparse.model, EXAMPLE), sparse.masks).gpu_supported

    assert found["macs"] < found["layer"]


def test_by_layer_every_group_loses_its_share() -> None:
    sparse = train(make("prune-finetune", **HALF, round_to=1, criterion="l2"))

    assert shares(sparse) == {"conv1": 0.5, "wide": 0.5}


REGROW = Chase(sparsity=0.6, channel_sparsity=0.5, channel_regrowth=0.5, min_channel_ratio=0.0, **OFTEN)


def test_channels_return_with_what_they_had_and_the_targets_hold() -> None:
    net, optimizer, sparse = start(REGROW, steps=24)
    returned, known = 0, {}
    budget = round(0.4 * sparse.masks.total)
    for step in range(1, 25):
        alive = {name: units.clone() for name, units in sparse.masks.alive.items()}
        parameters = {name: value.detach().clone() for name, value in net.named_parameters()}
        plain_step(net, optimizer, step)
        for group, vector in (("conv1", "norm1.weight"), ("wide", "wide.bias")):
            now = sparse.masks.alive[group]
            for unit in (alive[group] & ~now).nonzero().flatten().tolist():
                known[group, unit] = parameters[vector][unit].item()  # a step before it died
            for unit in (~alive[group] & now).nonzero().flatten().tolist():
                returned += 1
                assert net.get_parameter(vector)[unit].item() == pytest.approx(known[group, unit], abs=0.2)
                assert net.get_parameter(vector)[unit].item() != 0
        event = sparse.events.get(step)
        if event and event.channel_sparsity is not None:
            assert sparse.masks.removed == round(event.channel_sparsity * sparse.masks.channels)
        if event and event.density is not None:
            budget = round(event.density * sparse.masks.total)
        assert sparse.masks.nonzero <= min(budget, capacity(sparse.masks))
        assert_nothing_masked_lives(sparse)

    assert returned > 0
    assert sparse.masks.channel_sparsity == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "network-slimming"}, "needs a norm after each layer, which wide.weight has not"),
        ({"criterion": "umm-reverse", "normalise": "macs"}, "needs a criterion that is never negative"),
    ],
)
def test_a_criterion_that_no_event_could_use_is_refused_before_the_first_step(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        start(Chase(channel_sparsity=0.25, **settings))


def test_what_is_buried_comes_back_on_the_device_of_the_model() -> None:
    net, _, sparse = start(REGROW)
    stored = sparse.state_dict()["pruner"]["graveyard"]
    elsewhere = net.to("meta")
    sparse.masks.weights = {name: mask.to("meta") for name, mask in sparse.masks.weights.items()}

    graveyard = Graveyard(elsewhere, sparse.masks)
    graveyard.load_state_dict(stored, elsewhere)

    assert {value.device.type for value in [*graveyard.values.values(), *graveyard.weights.values()]} == {"meta"}


def test_channels_that_return_keep_to_the_width_grid() -> None:
    net, optimizer, sparse = start(REGROW.with_(round_to=4, min_channel_ratio=0.2), steps=24)
    for step in range(1, 25):
        plain_step(net, optimizer, step)
        assert all(width % 4 == 0 for width in sparse.masks.widths().values())


def test_channels_that_may_return_are_not_cut_out() -> None:
    net, optimizer, sparse = start(REGROW, steps=12)
    plain_step(net, optimizer, 1)
    with pytest.raises(RecipeError, match="channels may still return"):
        sparse.compact()
    for step in range(2, 13):
        plain_step(net, optimizer, step)
    assert sparse.compact()


def buried(sparse: Sparsifier) -> object:
    return sparse.state_dict()["pruner"]["graveyard"]


def test_nothing_is_buried_once_no_channel_may_return() -> None:
    net, optimizer, sparse = start(REGROW.with_(stop=0.5), steps=12)
    for step in range(1, 6):
        plain_step(net, optimizer, step)
    earlier = copy.deepcopy(sparse.state_dict())
    assert earlier["pruner"]["graveyard"]
    plain_step(net, optimizer, 6)
    assert buried(sparse) is None

    resumed = start(REGROW.with_(stop=0.5), steps=12)[2]
    resumed.load_state_dict(sparse.state_dict())
    assert buried(resumed) is None
    resumed.load_state_dict(earlier)
    assert buried(resumed)
    resumed.finish()
    assert buried(resumed) is None


GATHERING = {
    "regrowth": REGROW,
    "regrowth-ended": REGROW.with_(stop=0.5),
    "taylor": REGROW.with_(channel_regrowth=0.0, criterion="taylor"),
    "group-fisher": REGROW.with_(channel_regrowth=0.0, criterion="group-fisher"),
    "snfs": make("snfs", sparsity=0.6, update_every=3),
    "deep-r": make("deep-r", sparsity=0.6, rewire_l1=0.1),
}


@pytest.mark.parametrize("name", GATHERING)
@pytest.mark.parametrize("at", [1, 4, 7])
def test_what_is_gathered_over_steps_is_part_of_the_state(name: str, at: int) -> None:
    whole = train(GATHERING[name])
    net, optimizer, sparse = start(GATHERING[name])
    for step in range(1, at + 1):
        plain_step(net, optimizer, step)
    weights, moments, gathered = net.state_dict(), optimizer.state_dict(), sparse.state_dict()

    net, optimizer, sparse = start(GATHERING[name])
    net.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    sparse.load_state_dict(gathered)
    for step in range(at + 1, 13):
        plain_step(net, optimizer, step)

    assert same_weights(whole.model, net)


def test_gradients_and_gates_follow_a_cut() -> None:
    for name in ("taylor", "snfs"):
        method = GATHERING[name].with_(channel_sparsity=0.5, channel_every=2, round_to=1, stop=1.0)
        ends: list[dict[str, Tensor]] = []
        for cuts in ((), (5, 8)):
            net, optimizer, sparse = start(method)
            for step in range(1, 13):
                plain_step(net, optimizer, step)
                if step in cuts:
                    assert sparse.compact()
            ends.append({key: mask[mask != 0] for key, mask in sparse.masks.weights.items()})
        assert {key: len(values) for key, values in ends[0].items()} == {k: len(v) for k, v in ends[1].items()}
