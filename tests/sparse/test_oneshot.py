"""One-shot channel pruning: how many channels leave, which ones, and what stays as it was."""

from __future__ import annotations

import pytest
import torch
from small_training import ResidualNet, batch, seeded, small_mlp
from torch import nn
from useless import USEFUL, USELESS, model

from chase.errors import RecipeError, UnknownName
from chase.slimming import channel_groups, slimmed
from chase.slimming.groups import prunable
from chase.sparse import Masks, one_shot
from chase.sparse.criteria import CHANNEL_SCORES

EXAMPLE = torch.zeros(1, 3, 6, 6)


def dense(net: nn.Module, example: torch.Tensor = EXAMPLE, *, prune_skip: bool = False) -> Masks:
    return Masks.dense(net, prunable(channel_groups(net, example), prune_skip=prune_skip))


def test_the_lowest_channels_of_all_layers_leave() -> None:
    net = seeded(small_mlp)
    masks = dense(net)

    pruned = one_shot(net, masks, 0.25)

    first, second = (net.get_parameter(f"{n}.weight").detach().abs().mean(1) for n in (1, 3))
    lowest = torch.cat([first, second]).sort().values[:7]
    gone = torch.cat([first[~pruned.alive["1"]], second[~pruned.alive["3"]]])
    assert gone.sort().values.tolist() == lowest.tolist()
    assert (pruned.removed, pruned.channel_sparsity) == (7, 0.25)


def test_the_network_and_its_masks_stay_as_they_were() -> None:
    net = seeded(ResidualNet)
    masks, before = dense(net), {name: value.clone() for name, value in net.state_dict().items()}

    pruned = one_shot(net, masks, 0.5)

    assert pruned.removed == 12
    assert masks.removed == 0
    assert all(bool(mask.all()) for mask in masks.weights.values())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_share_is_of_the_channels_that_live() -> None:
    net = seeded(ResidualNet)

    once = one_shot(net, dense(net), 0.5)
    twice = one_shot(net, once, 0.5)

    assert (once.removed, twice.removed) == (12, 18)
    assert all((twice.alive[name] <= alive).all() for name, alive in once.alive.items())


def test_planted_channels_leave_first_and_are_worth_nothing() -> None:
    net = model()

    pruned = one_shot(net, dense(net, torch.zeros(1, 1, 4, 4)), 0.5)

    assert pruned.alive["1"].tolist() == [True] * USEFUL + [False] * USELESS
    image = torch.rand(8, 1, 4, 4)
    expected = net(image)
    pruned.apply_(net)
    torch.testing.assert_close(net(image), expected)


def test_what_is_pruned_can_be_slimmed() -> None:
    net = seeded(ResidualNet).eval()

    pruned = one_shot(net, dense(net, prune_skip=True), 0.5, round_to=4)

    assert all(width % 4 == 0 for width in pruned.widths().values())
    assert slimmed(net, pruned, example=EXAMPLE, round_to=4).certificate["max_rel"] <= 1e-10


def test_a_layer_keeps_its_floor_and_never_less_than_one_channel() -> None:
    net = seeded(small_mlp)

    assert min(one_shot(net, dense(net), 0.99).widths().values()) == 1
    assert one_shot(net, dense(net), 0.5, min_channel_ratio=1.0).widths() == {"1": 8, "3": 6}


@pytest.mark.parametrize("criterion", list(CHANNEL_SCORES))
def test_every_criterion_removes_the_share(criterion: str) -> None:
    net = seeded(ResidualNet)
    masks = Masks.dense(net, [group for group in channel_groups(net, EXAMPLE) if group.name == "conv1"])

    for share, removed in ((0.0, 0), (0.3, 2), (0.5, 4)):
        assert one_shot(net, masks, share, criterion=criterion, batches=[batch(0)]).removed == removed


def test_reversed_criteria_take_what_the_others_leave() -> None:
    net = seeded(small_mlp)
    masks = dense(net)

    for criterion in ("umm", "mmm"):
        low, high = (one_shot(net, masks, 0.25, criterion=name) for name in (criterion, f"{criterion}-reverse"))
        assert (low.removed, high.removed) == (7, 7)
        assert all((low.alive[name] | high.alive[name]).all() for name in masks.alive)


def test_random_pruning_follows_the_seed() -> None:
    net = seeded(small_mlp)
    masks = dense(net)

    first, again, other = (one_shot(net, masks, 0.5, criterion="random", seed=seed).alive for seed in (0, 0, 1))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_gradients_are_of_the_batches_and_leave_no_trace() -> None:
    net = model().train()
    masks = dense(net, torch.zeros(1, 1, 4, 4))
    images = torch.zeros(2, 1, 4, 4)
    images[0, 0, 0, 0] = images[1, 0, 0, 1] = 0.1  # only the first two channels answer, and not surely

    for criterion in ("taylor", "group-fisher"):
        pruned = one_shot(net, masks, 0.75, criterion=criterion, batches=[(images, torch.tensor([0, 1]))])
        assert pruned.alive["1"].nonzero().flatten().tolist() == [0, 1]

    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_criteria_that_lack_something_say_what() -> None:
    net = seeded(small_mlp)

    with pytest.raises(RecipeError, match="needs gradients of training steps"):
        one_shot(net, dense(net), 0.1, criterion="taylor")
    with pytest.raises(RecipeError, match="needs a norm after each layer, which 1.weight has not"):
        one_shot(net, dense(net), 0.1, criterion="network-slimming")


def test_scores_can_be_counted_per_mac() -> None:
    net = seeded(ResidualNet)

    raw, per_mac = (
        one_shot(net, dense(net), 0.5, normalise=name, example=EXAMPLE).widths() for name in ("none", "macs")
    )

    assert per_mac["conv1"] < raw["conv1"]  # its channels run on four times as many pixels
    with pytest.raises(RecipeError, match="need example=, one input"):
        one_shot(net, dense(net), 0.5, normalise="macs")


def test_bad_settings_are_refused() -> None:
    net = seeded(small_mlp)

    with pytest.raises(RecipeError, match=r"must lie in \[0, 1\), not 1.0"):
        one_shot(net, dense(net), 1.0)
    with pytest.raises(RecipeError, match="no channel may leave: the masks have no groups"):
        one_shot(net, Masks.dense(net), 0.1)
    with pytest.raises(UnknownName, match="did you mean 'umm'"):
        one_shot(net, dense(net), 0.1, criterion="um")
    with pytest.raises(RecipeError, match="method.critrion: no such setting; did you mean 'criterion'"):
        one_shot(net, dense(net), 0.1, critrion="umm")
