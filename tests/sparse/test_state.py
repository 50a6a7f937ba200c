"""A Sparsifier's state, its randomness, and what it refuses."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_training import (
    OPTIMIZERS,
    SMALL_MODELS,
    ResidualNet,
    assert_nothing_masked_lives,
    batch,
    plain_step,
    same_weights,
    seeded,
    small_mlp,
)
from torch import nn

from chase.errors import CheckpointError, RecipeError
from chase.sparse import SET, Chase, Method, Sparsifier, make

EXAMPLE = batch(0)[0][:1]
CHASE = Chase(sparsity=0.7, update_every=1, channel_sparsity=0.5, channel_every=2, round_to=1, stop=1.0)
RANDOM = SET(sparsity=0.7, update_every=1, drop_fraction=0.5)


def fresh(method: Method, *, optimizer: str = "momentum", seed: int = 0, model: str = "residual") -> Sparsifier:
    net = seeded(SMALL_MODELS[model])
    opt = OPTIMIZERS[optimizer](net.parameters())
    return Sparsifier(net, opt, method, steps=4, example=EXAMPLE, seed=seed)


def advance(sparse: Sparsifier, *numbers: int) -> Sparsifier:
    for number in numbers:
        plain_step(sparse.model, sparse.optimizer, number)
    return sparse


def saved(sparse: Sparsifier) -> dict[str, Any]:
    """Everything through a file that is read without unpickling code."""
    file = io.BytesIO()
    states = {"model": sparse.model.state_dict(), "optimizer": sparse.optimizer.state_dict()}
    torch.save({**states, "sparse": sparse.state_dict()}, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("method", [CHASE, RANDOM], ids=["chase", "random growth"])
def test_two_steps_and_two_after_a_resume_are_four_bit_for_bit(method: Method, optimizer: str) -> None:
    whole = advance(fresh(method, optimizer=optimizer), 1, 2, 3, 4)
    state = saved(advance(fresh(method, optimizer=optimizer), 1, 2))

    torch.manual_seed(99)  # nothing hangs on the global generator
    resumed = fresh(method, optimizer=optimizer)
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["sparse"])
    advance(resumed, 3, 4)

    assert resumed.step == 4
    assert same_weights(whole.model, resumed.model)
    assert all(torch.equal(mask, resumed.masks.weights[name]) for name, mask in whole.masks.weights.items())
    assert all(torch.equal(alive, resumed.masks.alive[name]) for name, alive in whole.masks.alive.items())
    assert_nothing_masked_lives(resumed)


def test_dead_channels_are_masked_after_a_resume_between_events() -> None:
    method = CHASE.with_(sparsity=0.0)  # so that only the loaded masks say what to multiply
    state = saved(advance(fresh(method), 1, 2))
    resumed = fresh(method)
    resumed.model.load_state_dict(state["model"])
    resumed.load_state_dict(state["sparse"])
    assert resumed.masks.removed > 0

    for parameter in resumed.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    resumed.mask_gradients()

    masks = resumed.masks.weights | resumed.masks.vectors(resumed.model)
    assert "norm1.bias" in masks
    for name, parameter in resumed.model.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, masks.get(name, torch.ones_like(parameter))), name


def test_the_state_of_another_seed_or_model_is_refused() -> None:
    state = advance(fresh(CHASE), 1).state_dict()

    with pytest.raises(CheckpointError, match="drawn with seed 0, not 7"):
        fresh(CHASE, seed=7).load_state_dict(state)
    with pytest.raises(CheckpointError, match="belong to another model or other settings"):
        fresh(CHASE, model="mlp").load_state_dict(state)
    with pytest.raises(CheckpointError, match="other settings: conv1, wide"):
        fresh(CHASE.with_(channel_sparsity=0.0)).load_state_dict(state)


def test_every_process_with_one_seed_draws_the_same_masks_whatever_its_weights() -> None:
    def process(weight_seed: int, mask_seed: int) -> Sparsifier:
        net = seeded(ResidualNet, weight_seed)
        torch.manual_seed(weight_seed)
        return Sparsifier(net, OPTIMIZERS["sgd"](net.parameters()), RANDOM, steps=4, seed=mask_seed)

    first, second, other = process(1, 5), process(2, 5), process(1, 6)

    assert all(torch.equal(mask, second.masks.weights[name]) for name, mask in first.masks.weights.items())
    assert not all(torch.equal(mask, other.masks.weights[name]) for name, mask in first.masks.weights.items())


def test_random_growth_hangs_on_the_seed_and_the_step() -> None:
    def grown(seed: int) -> list[bytes]:
        sparse, seen = fresh(RANDOM, seed=seed), []
        for number in (1, 2, 3):
            advance(sparse, number)
            seen.append(sparse.masks.state_dict()["weights"]["wide.weight"].numpy().tobytes())
        return seen

    assert grown(3) == grown(3)
    assert len(set(grown(3)) | set(grown(4))) == 6


def test_a_sparsifier_masks_the_model_at_once() -> None:
    sparse = fresh(make("static", sparsity=0.75))

    nonzero = sum(int(weight.count_nonzero()) for weight in (p for p in sparse.model.parameters() if p.ndim > 1))
    assert nonzero == sparse.masks.nonzero == round(0.25 * sparse.masks.total)
    assert sparse.masks.sparsity == pytest.approx(0.75, abs=1e-3)


def test_a_dense_method_changes_nothing() -> None:
    ours = advance(fresh(make("dense")), 1, 2, 3)
    net = seeded(ResidualNet)
    opt = OPTIMIZERS["momentum"](net.parameters())
    for number in (1, 2, 3):
        plain_step(net, opt, number)

    assert same_weights(ours.model, net)
    assert ours.masks.sparsity == 0.0


def test_a_detached_sparsifier_no_longer_watches() -> None:
    sparse = advance(fresh(make("static", sparsity=0.9)), 1)
    sparse.detach()
    masks = copy.deepcopy(sparse.masks.weights)
    advance(sparse, 2)

    assert sparse.step == 1
    assert all(torch.equal(mask, masks[name]) for name, mask in sparse.masks.weights.items())
    assert sum(int(p.count_nonzero()) for p in sparse.model.parameters() if p.ndim > 1) > sparse.masks.nonzero


def build(method: Method, make_model: Callable[[], nn.Module] = ResidualNet, **settings: Any) -> Sparsifier:
    net = seeded(make_model)
    parameters = [*net.parameters()] or [nn.Parameter(torch.zeros(1))]
    return Sparsifier(net, OPTIMIZERS["sgd"](parameters), method, **{"steps": 10, **settings})


def test_channels_need_an_example() -> None:
    with pytest.raises(RecipeError, match=r"channel_sparsity > 0 needs example=, one input of the model"):
        build(CHASE)


def test_a_model_without_conv_or_linear_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="BatchNorm2d has no convolution or linear layer to make sparse"):
        build(make("static"), lambda: nn.BatchNorm2d(3))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_run_has_steps(steps: int) -> None:
    with pytest.raises(RecipeError, match=f"steps must be at least 1, not {steps}"):
        build(CHASE, steps=steps, example=EXAMPLE)


def test_channels_that_cannot_leave_are_refused_with_the_nearest_that_can() -> None:
    """conv1 (8) and wide (16) on a grid of 8: floors of 1 and 1 round up to 8 and 8, so 8 of 24 may leave."""
    method = Chase(channel_sparsity=0.7, round_to=8)

    with pytest.raises(RecipeError) as caught:
        build(method, example=EXAMPLE)

    assert str(caught.value) == (
        "channel_sparsity 0.7 cannot be reached on a width grid of 8 with min_channel_ratio 0.2: the nearest is 0.3333"
    )
    assert build(method.with_(channel_sparsity=0.3333), example=EXAMPLE).masks.channels == 24


def test_the_highest_reachable_channel_sparsity_is_reached() -> None:
    """Floors ⌊0.4 · 1 · 8⌋ = 3 and ⌊0.4 · 16⌋ = 6 leave 15 of 24 = 0.625 ≥ 0.6 · 24 = 14.4 → 14."""
    method = Chase(sparsity=0.5, channel_sparsity=0.6, round_to=1, min_channel_ratio=1.0, update_every=1, stop=1.0)

    sparse = advance(fresh(method), 1, 2, 3, 4)

    assert sparse.masks.removed == 14
    assert all(width >= floor for width, floor in zip(sparse.masks.widths().values(), (3, 6), strict=True))


def test_where_no_channel_may_leave_the_error_says_what_to_change() -> None:
    with pytest.raises(RecipeError, match="no channel may leave; see `chase inspect`, or set prune_skip or fewer keep"):
        build(Chase(channel_sparsity=0.5, keep=("*",)), small_mlp, example=EXAMPLE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": ("conv*", "wied")}, r"method.keep: no layer matches 'wied'; did you mean 'wide'\?"),
        ({"keep": ("norm1",)}, "method.keep: no layer matches 'norm1'"),  # it makes no channels
        (
            {"round_to": {"layer.*": 4, "*": 1}},
            r"method.round_to: no layer matches 'layer.\*'; known: conv1, conv2",
        ),
    ],
)
def test_a_pattern_that_fits_no_layer_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(CHASE.with_(**settings), example=EXAMPLE)


def test_a_pattern_may_fit_a_layer_that_keeps_its_channels_anyway() -> None:
    settings: dict[str, Any] = {"keep": ("fc", "conv2"), "round_to": {"fc": 8, "*": 1}}

    assert build(CHASE.with_(**settings), example=EXAMPLE).masks.widths() == {"conv1": 8, "wide": 16}


def test_keep_and_prune_skip_choose_the_groups() -> None:
    kept = build(CHASE.with_(keep=("wide",)), example=EXAMPLE)
    skips = build(CHASE.with_(prune_skip=True), example=EXAMPLE)

    assert kept.masks.widths() == {"conv1": 8}
    assert skips.masks.widths() == {"stem": 8, "conv1": 8, "wide": 16}


def test_finish_meets_the_targets_where_steps_were_skipped_and_only_there() -> None:
    sparse = advance(fresh(CHASE), 0, 1, 2)
    assert sparse.masks.channel_sparsity < 0.5

    sparse.finish()

    assert sparse.masks.channel_sparsity == 0.5
    assert sparse.masks.nonzero == round(0.3 * sparse.masks.total)
    assert_nothing_masked_lives(sparse)
    before = copy.deepcopy(sparse.state_dict())
    sparse.finish()
    assert sparse.step == before["step"] == 4
    assert all(
        torch.equal(bits, sparse.state_dict()["masks"]["weights"][n]) for n, bits in before["masks"]["weights"].items()
    )
