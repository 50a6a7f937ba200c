"""The Sparsifier under every method and optimizer: what holds after each step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from small_training import OPTIMIZERS, SMALL_MODELS, assert_nothing_masked_lives, batch, capacity, plain_step, seeded
from torch import Tensor, nn

from chase.slimming import channel_groups
from chase.slimming.groups import Group
from chase.sparse import METHODS, Batch, Chase, Method, RigL, Sparsifier, make
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.update import count_ones

STEPS = 10
CHANNELS = {"channel_sparsity": 0.5, "channel_every": 3, "round_to": 1}


def brief(method: Method) -> Method:
    """The method with events often enough for a few steps, and no width grid."""
    short: dict[str, Any] = {"update_every": 2} if method.update_every != 0 else {}
    sparse = {"sparsity": 0.7} if method.sparsity else {}
    channels = {"channel_every": 3, "round_to": 1} if method.prunes_channels else {}
    return method.with_(**sparse, **short, **channels)


UNDER_TEST: dict[str, Method] = {
    **{name: brief(method) for name, method in METHODS.items()},
    **{f"{name} with channels": brief(METHODS[name]).with_(**CHANNELS) for name in ("deep-r", "dsr", "snfs", "granet")},
    "deep-r, restless": brief(METHODS["deep-r"]).with_(rewire_l1=0.5),
    "regrowing channels": Chase(sparsity=0.7, update_every=2, channel_regrowth=0.5, **CHANNELS),
    "grown from sparser": Chase(sparsity=0.5, initial_sparsity=0.9, update_every=2),
    "by MACs": Chase(sparsity=0.7, update_every=2, executed_macs=0.6, channel_every=3, round_to=1, normalise="macs"),
    **{
        f"chase by {name}": Chase(sparsity=0.7, update_every=2, criterion=name, **CHANNELS)
        for name in CHANNEL_SCORES
        if name != "network-slimming"  # the linear layers here have no norm
    },
    "chase with channels": Chase(sparsity=0.7, update_every=2, **CHANNELS),
    "chase, all of it": Chase(
        sparsity=0.8, soft_bound=0.2, update_every=2, explore_after_stop=True, stop=0.6, prune_skip=True, **CHANNELS
    ),
    "rigl with channels": RigL(sparsity=0.7, update_every=2, **CHANNELS),
    "dense with channels": Chase(sparsity=0.0, **CHANNELS),
}


@cache
def groups_of(model: str) -> tuple[Group, ...]:
    return channel_groups(seeded(SMALL_MODELS[model]), batch(0)[0][:1])


def start(
    model: str, method: Method, optimizer: str = "momentum", *, steps: int = STEPS, seed: int = 0
) -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
    net = seeded(SMALL_MODELS[model])
    made = OPTIMIZERS[optimizer](net.parameters())
    images, labels = batch(0, 10)
    sparse = Sparsifier(
        net,
        made,
        method,
        steps=steps,
        example=images[:1],
        groups=groups_of(model),
        batch=Batch(images, labels),
        seed=seed,
    )
    return net, made, sparse


def dead(sparse: Sparsifier) -> dict[str, Tensor]:
    return {name: ~alive for name, alive in sparse.masks.alive.items()}


EVERYWHERE = [*(("residual", name) for name in OPTIMIZERS), ("mlp", "momentum"), ("mlp", "adamw-fused")]
ONCE = [("residual", "momentum"), ("mlp", "adamw")]


@pytest.mark.parametrize(
    ("name", "model", "optimizer"),
    [(name, *where) for name in UNDER_TEST for where in (ONCE if name.startswith("chase by ") else EVERYWHERE)],
)
def test_after_every_step_the_plan_holds_and_nothing_masked_lives(name: str, model: str, optimizer: str) -> None:
    net, opt, sparse = start(model, UNDER_TEST[name], optimizer)
    masks, before = sparse.masks, dead(sparse)
    budget, returns = round(sparse.method.initial_density * masks.total), sparse.method.channel_regrowth > 0
    assert masks.nonzero == budget
    settled = True

    for step in range(1, STEPS + 1):
        plain_step(net, opt, step)
        event = sparse.events.get(step)
        if event and event.density is not None:
            budget, settled = round(event.density * masks.total), True
        elif event:
            settled = False  # channels left; their weights come back with the next parameter event

        room = min(budget, capacity(masks))
        assert masks.nonzero == room if settled else masks.nonzero <= room
        if event and event.channel_sparsity is not None:
            assert masks.removed == round(event.channel_sparsity * masks.channels)
        assert_nothing_masked_lives(sparse)
        after = dead(sparse)
        assert returns or all((after[group] >= gone).all() for group, gone in before.items())
        before = after

    assert sparse.step == STEPS
    if sparse.method.executed_macs is None:
        assert masks.removed == round(sparse.method.channel_sparsity * masks.channels)
    assert masks.nonzero == min(round(sparse.method.density * masks.total), capacity(masks))
    if masks.removed and sparse.method.sparsity == 0:
        assert capacity(masks) < masks.total


@pytest.mark.parametrize("model", SMALL_MODELS)
def test_a_dead_channel_is_silent_in_row_bias_norm_and_consumers(model: str) -> None:
    net, opt, sparse = start(model, UNDER_TEST["chase with channels"])
    for step in range(1, STEPS + 1):
        plain_step(net, opt, step)

    tensors = dict(net.named_parameters())
    owned = {"residual": {"conv1": "norm1", "wide": "wide"}, "mlp": {"1": "1", "3": "3"}}[model]
    consumer = {"conv1": "conv2", "wide": "fc", "1": "3", "3": "5"}
    assert set(sparse.masks.alive) == set(owned)
    for group, units in dead(sparse).items():
        assert not tensors[f"{group}.weight"][units].any()
        assert not tensors[f"{owned[group]}.bias"][units].any()
        assert not tensors[f"{owned[group]}.weight"][units].any()
        assert not tensors[f"{consumer[group]}.weight"][:, units].any()
        assert tensors[f"{owned[group]}.bias"][~units].all()


def record_growth(net: nn.Module, sparse: Sparsifier) -> Callable[[], dict[str, Tensor]]:
    before = {name: mask.clone() for name, mask in sparse.masks.weights.items()}
    return lambda: {name: (mask > before[name]) for name, mask in sparse.masks.weights.items()}


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw-fused"])
@pytest.mark.parametrize("name", ["chase", "rigl", "set"])
def test_grown_weights_start_at_zero_without_momentum_and_then_move(name: str, optimizer: str) -> None:
    net, opt, sparse = start("residual", UNDER_TEST[name], optimizer)
    plain_step(net, opt, 1)
    new = record_growth(net, sparse)
    plain_step(net, opt, 2)

    grown, weights = new(), dict(net.named_parameters())
    assert sum(int(g.sum()) for g in grown.values()) > 0
    for layer, where in grown.items():
        assert not weights[layer].detach()[where].any()
        state = [v for v in opt.state[weights[layer]].values() if v.shape == where.shape]
        assert state
        assert not any(value[where].any() for value in state)
    plain_step(net, opt, 3)
    assert sum(int(weights[layer].detach()[where].count_nonzero()) for layer, where in grown.items()) > 0


def test_rigl_keeps_every_layers_count_and_global_exploration_does_not() -> None:
    counts = {}
    for scope in ("layer", "global"):
        net, opt, sparse = start(
            "residual", RigL(sparsity=0.8, update_every=2, drop_fraction=0.5, scope=scope, allocation=scope)
        )
        first = count_ones(sparse.masks.weights)
        moved = record_growth(net, sparse)
        for step in range(1, STEPS):
            plain_step(net, opt, step)
            if scope == "layer":
                assert count_ones(sparse.masks.weights) == first
        counts[scope] = count_ones(sparse.masks.weights) == first
        assert sum(int(g.sum()) for g in moved().values()) > 0

    assert counts == {"layer": True, "global": False}


def test_growth_follows_the_dense_gradient_and_pruning_the_weight() -> None:
    method = Chase(sparsity=0.8, update_every=1, soft_bound=0.1, decay="constant")
    net, opt, sparse = start("mlp", method, "sgd")
    loss = nn.functional.cross_entropy(net(batch(1)[0]), batch(1)[1])
    names = list(sparse.masks.weights)
    weights = dict(net.named_parameters())
    gradients = torch.autograd.grad(loss, [weights[name] for name in names])
    outside = torch.cat([(mask == 0).flatten() for mask in sparse.masks.weights.values()])
    score = torch.cat([gradient.abs().flatten() for gradient in gradients])
    plain_step(net, opt, 1)

    on = torch.cat([mask.flatten() for mask in sparse.masks.weights.values()]) == 1
    grown = on & outside
    assert int(grown.sum()) == round(0.3 * sparse.masks.total) - round(0.2 * sparse.masks.total)
    assert score[grown].min() >= score[outside & ~on].max()

    plain_step(net, opt, 2)  # prunes first: what stays is at least as large as what goes
    values = torch.cat([weights[name].detach().flatten() for name in names]).abs()
    now = torch.cat([mask.flatten() for mask in sparse.masks.weights.values()]) == 1
    assert not values[~now].any()
    assert int(now.sum()) == int(on.sum())


def test_weights_lost_to_channels_come_back_at_the_next_parameter_event() -> None:
    method = Chase(sparsity=0.8, soft_bound=0, drop_fraction=0, update_every=4, stop=1.0, **CHANNELS)
    net, opt, sparse = start("residual", method, steps=8)
    seen = []
    for step in range(1, 9):
        plain_step(net, opt, step)
        seen.append(sparse.masks.nonzero)

    budget = round(0.2 * sparse.masks.total)
    assert seen[:2] == [budget] * 2
    assert seen[2] < budget
    assert seen[3:5] == [budget] * 2
    assert seen[5] < budget
    assert seen[7] == budget


def test_channels_that_leave_too_little_room_are_filled_and_said(caplog: pytest.LogCaptureFixture) -> None:
    net, opt, sparse = start("mlp", Chase(sparsity=0.1, update_every=2, **CHANNELS))
    with caplog.at_level(logging.WARNING, logger="chase"):
        for step in range(1, STEPS + 1):
            plain_step(net, opt, step)

    assert sparse.masks.nonzero == capacity(sparse.masks) < round(0.9 * sparse.masks.total)
    assert "step 8: the living channels hold" in caplog.text


def test_the_lowest_channels_leave_and_floors_hold() -> None:
    method = make("static", sparsity=0.5, channel_sparsity=0.5, round_to=1, min_channel_ratio=0.5)
    net, opt, sparse = start("residual", method, steps=1)
    with torch.no_grad():
        net.get_parameter("conv1.weight").mul_(1e-4)  # by score all of conv1 would leave
    plain_step(net, torch.optim.SGD(net.parameters(), lr=0), 0)
    opt.zero_grad()
    opt.step()

    assert sparse.masks.widths() == {"conv1": 2, "wide": 10}


def test_the_width_grid_holds_after_every_event() -> None:
    method = Chase(sparsity=0.7, channel_sparsity=0.5, update_every=2, channel_every=1, round_to=4)
    net, opt, sparse = start("residual", method)
    for step in range(1, STEPS + 1):
        plain_step(net, opt, step)
        assert all(width % 4 == 0 for width in sparse.masks.widths().values())

    assert sparse.masks.removed == 12
