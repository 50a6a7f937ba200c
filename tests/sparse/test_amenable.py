"""Sparse amenable channels (paper §2.2): hand-computed tables, removed and cut channels, and resuming."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import ResidualNet, plain_step, seeded
from torch import Tensor, nn

from chase.errors import CheckpointError, UnknownName
from chase.slimming import channel_groups
from chase.slimming.live import compact
from chase.slimming.network import kept_units
from chase.sparse import Amenable, Chase, Masks, RigL, Sparsifier

START = [[2.0, 2.0, 0.0, 0.0], [4.0, 0.0, 0.0, 4.0], [1.0, 1.0, 1.0, 1.0]]
NOW = [[3.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 4.0], [1.0, 1.0, 1.0, 0.0]]
"""WS 0.5, 0.5, 0 → 0.75, 0.25, 0.25; UMM 1, 2, 1 → 0.75, 1.5, 0.75: the second has more weights, of less magnitude."""


def layer(rows: list[list[float]]) -> tuple[nn.Linear, Masks]:
    linear = nn.Linear(len(rows[0]), len(rows), bias=False)
    masks = Masks.dense(linear)
    hold(linear, masks, rows)
    return linear, masks


def hold(linear: nn.Linear, masks: Masks, rows: list[list[float]]) -> None:
    """Set the weight, and mask its zeros."""
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(rows))
    masks.weights["weight"].copy_(torch.tensor(rows) != 0)


@pytest.mark.parametrize(
    ("metric", "v", "amenable"),
    [
        ("ws", 0.0, [True, False, True]),
        ("ws", 0.4, [True, False, True]),
        ("ws", 0.5, [False, False, True]),  # 0.5 is not above 0.5; a dense channel has risen without bound
        ("ws", 1e9, [False, False, True]),
        ("umm", 0.0, [True, True, True]),
        ("umm", 0.2, [True, True, True]),
        ("umm", 0.25, [False, False, False]),
    ],
)
def test_the_definition_by_hand(metric: str, v: float, amenable: list[bool]) -> None:
    linear, masks = layer(START)
    tracker = Amenable(linear, masks)

    hold(linear, masks, NOW)

    assert tracker.channels(v, metric)["weight"].tolist() == amenable
    assert tracker.shares(v, metric) == {"weight": sum(amenable) / 3}


def test_nothing_is_amenable_at_the_start() -> None:
    tracker = Amenable(*layer([*START, [0.0, 0.0, 0.0, 0.0]]))

    assert tracker.shares(0.0, "umm") == tracker.shares(0.0, "ws") == {"weight": 0.0}


@pytest.mark.parametrize("metric", ["umm", "ws"])
def test_an_empty_channel_has_nothing_to_lose(metric: str) -> None:
    linear, masks = layer([[0.0, 0.0], [1.0, 1.0]])
    tracker = Amenable(linear, masks)

    hold(linear, masks, [[0.0, 5.0], [1.0, 1.0]])

    assert tracker.channels(0.0, metric)["weight"].tolist() == [False, False]


def test_values_that_are_masked_do_not_count() -> None:
    linear, masks = layer(START)
    tracker = Amenable(linear, masks)

    masks.weights["weight"][0, 0] = 0  # the weight itself still holds its 2

    assert tracker.values("umm")["weight"].tolist() == [0.5, 2.0, 1.0]
    assert tracker.values("ws")["weight"].tolist() == [0.75, 0.5, 0.0]


def test_an_unknown_metric_explains_itself() -> None:
    with pytest.raises(UnknownName, match="no amenable metric named 'um'; did you mean 'umm'"):
        Amenable(*layer(START)).shares(0.0, "um")


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_a_higher_threshold_never_has_more(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start, now = ((torch.rand(2, 6, 9, generator=generator) - 0.5).relu()).tolist()
    linear, masks = layer(start)
    tracker = Amenable(linear, masks)
    hold(linear, masks, now)

    for metric in ("umm", "ws"):
        shares = [tracker.shares(v, metric)["weight"] for v in (0.0, 0.1, 0.2, 0.5, 1.0)]
        assert shares == sorted(shares, reverse=True)


def test_the_record_is_the_shares_as_plain_data() -> None:
    linear, masks = layer(START)
    tracker = Amenable(linear, masks)
    hold(linear, masks, NOW)

    assert tracker.record((0.0, 0.25)) == {
        "umm": {"0": {"weight": 1.0}, "0.25": {"weight": 0.0}},
        "ws": {"0": {"weight": 0.666667}, "0.25": {"weight": 0.666667}},
    }
    assert tracker.record(()) == {}


@pytest.mark.parametrize(("groups", "width"), [(1, 6), (2, 6), (4, 4)])
def test_a_transposed_convolution_has_its_output_channels_second(groups: int, width: int) -> None:
    layer = nn.ConvTranspose2d(4, width, 3, groups=groups, bias=False)
    net = nn.Sequential(layer)
    tracker = Amenable(net, Masks.dense(net))
    image = torch.rand(1, 4, 5, 5)

    with torch.no_grad():
        layer.weight[: 4 // groups, -1] = 0  # all that makes the last channel of the first group

    silent = net(image).abs().sum((0, 2, 3)) == 0
    assert tracker.channels(0.5, "umm")["0"].tolist() == silent.tolist()
    assert silent.nonzero().flatten().tolist() == [width // groups - 1]


SETTINGS = {"update_every": 2, "channel_every": 3, "stop": 0.8, "round_to": 1, "min_channel_ratio": 1.0}
METHOD = Chase(sparsity=0.8, channel_sparsity=0.5, **SETTINGS)
EXAMPLE = torch.zeros(1, 3, 6, 6)


def training(steps: int = 15) -> tuple[Sparsifier, Amenable]:
    net = seeded(ResidualNet)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = Sparsifier(net, optimizer, METHOD, steps=15, example=EXAMPLE)
    tracker = Amenable(net, sparse.masks)
    run(sparse, 0, steps)
    return sparse, tracker


def run(sparse: Sparsifier, start: int, stop: int) -> None:
    for step in range(start, stop):
        plain_step(sparse.model, sparse.optimizer, step)


def removed(sparse: Sparsifier) -> dict[str, list[bool]]:
    return {name: (~alive).tolist() for name, alive in sparse.masks.alive.items()}


def test_removed_channels_are_amenable_at_every_threshold() -> None:
    sparse, tracker = training()

    found = tracker.channels(1e9, "umm")  # more than a living channel can lose
    assert {name: found[name].tolist() for name in ("conv1", "wide")} == removed(sparse)
    assert not any(found[name].any() for name in ("stem", "conv2", "fc"))
    assert all(
        (rise[tracker.channels(1e9, "umm")[name]] == math.inf).all() for name, rise in tracker.rises("ws").items()
    )
    assert [sum(gone) for gone in removed(sparse).values()] == [4, 8]


@pytest.mark.parametrize("cut_at", [7, 12, 15])
def test_channels_that_were_cut_out_keep_their_place(cut_at: int) -> None:
    _, whole = training()
    sparse, tracker = training(cut_at)

    sparse.compact()
    run(sparse, cut_at, 15)
    sparse.compact()

    assert sparse.masks.weights["conv1.weight"].shape[0] < 8
    for metric in ("umm", "ws"):
        torch.testing.assert_close(tracker.values(metric), whole.values(metric), rtol=1e-4, atol=1e-6)
        for v in (0.05, 0.3):
            assert tracker.shares(v, metric) == whole.shares(v, metric)


def test_a_tracker_of_a_network_that_was_cut_before_follows_later_cuts() -> None:
    net = seeded(ResidualNet)
    masks = Masks.dense(net, [group for group in channel_groups(net, EXAMPLE) if group.name == "wide"])
    masks.alive["wide"][[0, 5]] = False
    masks.bury()
    compact(net, masks)
    tracker = Amenable(net, masks)

    masks.alive["wide"][[1, 13]] = False  # 2 and 15 of the dense network
    masks.bury()
    compact(net, masks)

    assert masks.units["wide"].tolist() == [1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert tracker.channels(0.0, "umm")["wide"].nonzero().flatten().tolist() == [1, 13]
    assert len(kept_units(net, masks)["wide"]) == 12


def test_a_tracker_that_is_resumed_goes_on_as_the_one_that_was_not() -> None:
    _, whole = training()
    sparse, tracker = training(6)
    state = tracker.state_dict()

    resumed = Amenable(sparse.model, sparse.masks)  # begins with what the weights are now
    assert resumed.shares(0.0) != tracker.shares(0.0)
    resumed.load_state_dict(state)
    run(sparse, 6, 15)

    assert resumed.record((0.0, 0.2)) == tracker.record((0.0, 0.2)) == whole.record((0.0, 0.2))


def test_a_state_of_another_network_is_refused() -> None:
    tracker = Amenable(*layer(START))

    with pytest.raises(CheckpointError, match="belong to another network: weight"):
        tracker.load_state_dict(Amenable(*layer(START[:2])).state_dict())
    with pytest.raises(CheckpointError, match="belong to another network"):
        tracker.load_state_dict({})


def test_it_looks_through_wrappers_and_needs_no_groups() -> None:
    net = seeded(ResidualNet)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparse = Sparsifier(net, optimizer, RigL(sparsity=0.8, update_every=2), steps=10)
    tracker = Amenable(nn.DataParallel(net), sparse.masks)

    run(sparse, 0, 10)

    shares = tracker.shares(0.0, "ws")
    assert list(shares) == ["stem", "conv1", "conv2", "wide", "fc"]
    assert any(0 < share < 1 for share in shares.values())


def test_the_share_is_of_all_channels_and_the_start_is_kept_apart() -> None:
    linear, masks = layer(START)
    tracker = Amenable(linear, masks)
    before: dict[str, Tensor] = tracker.state_dict()["umm"]

    hold(linear, masks, NOW)

    assert before["weight"].tolist() == [1.0, 2.0, 1.0]
    assert math.isclose(tracker.shares(0.4, "ws")["weight"], 2 / 3)
