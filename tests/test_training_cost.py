"""What a training costs, added up by hand."""

from __future__ import annotations

import json

import pytest
import torch
from small_training import ResidualNet, plain_step, seeded

from chase.counting import Cost, Layer, Macs, cost, masked_macs
from chase.recipe import Recipe, read
from chase.sparse import Chase, Event, Masks, Method, RigL, Sparsifier, plan
from chase.training_cost import TrainingCost

ALONE = Cost((Layer("weight", (10, 10), 5),), products=0, unknown=())  # 500 MACs, 5 for each weight


class Clock:
    """The step that a training is at."""

    step = 0


def ledger(masks: Masks, method: Method, clock: Clock, *, batch_size: int = 1) -> TrainingCost:
    return TrainingCost(ALONE, masks, method, batch_size=batch_size, step=lambda: clock.step)


def masks_of(nonzero: int, total: int = 100) -> Masks:
    masks = Masks({"weight": torch.zeros(10, total // 10)})
    fill(masks, nonzero)
    return masks


def fill(masks: Masks, nonzero: int) -> None:
    (mask,) = masks.weights.values()
    mask.zero_()
    mask.view(-1)[:nonzero] = 1


def test_a_step_costs_three_passes_for_each_image() -> None:
    clock = Clock()
    found = ledger(masks_of(20), RigL(sparsity=0.8), clock, batch_size=7)

    assert found.total() == Macs(0, 0, 0)
    clock.step = 4
    assert found.total() == Macs(theoretical=4 * 7 * 3 * 100, gpu_supported=4 * 7 * 3 * 500, dense=4 * 7 * 3 * 500)


@pytest.mark.parametrize(
    ("method", "event", "of_the_event"),
    [
        (RigL(sparsity=0.8), Event(3, None, 0.1, 0.2), 2 * 100 + 500),  # RigL's own rule
        (RigL(sparsity=0.8, grow="random"), Event(3, None, 0.1, 0.2), 3 * 100),
        (RigL(sparsity=0.8), Event(3, 0.5), 3 * 100),  # only channels leave
    ],
    ids=["grown by gradient", "grown at random", "channels only"],
)
def test_the_step_of_an_event_needs_all_gradients_if_it_grows_by_them(
    method: Method, event: Event, of_the_event: int
) -> None:
    masks, clock = masks_of(20), Clock()
    found = ledger(masks, method, clock)

    clock.step = 3
    fill(masks, 30)
    found(event)
    clock.step = 5

    assert found.total().theoretical == 2 * 3 * 100 + of_the_event + 2 * 3 * 150
    assert found.total().gpu_supported == found.total().dense == 5 * 3 * 500


def test_an_average_of_dense_gradients_needs_them_at_every_step() -> None:
    clock = Clock()
    found = ledger(masks_of(20), RigL(sparsity=0.8, gradient_momentum=0.9), clock)

    clock.step = 3
    found(Event(3, None, 0.1, 0.2))
    clock.step = 5

    assert found.total().theoretical == 5 * (2 * 100 + 500)


def test_a_state_goes_on_where_it_was_taken() -> None:
    clock, whole, parts = Clock(), masks_of(20), masks_of(20)
    ours, first = (ledger(masks, RigL(sparsity=0.8), clock, batch_size=2) for masks in (whole, parts))
    for masks, found in ((whole, ours), (parts, first)):
        fill(masks, 40)
        found(Event(2, None, 0.1, 0.4))
    state = json.loads(json.dumps(first.state_dict()))

    second = ledger(masks_of(40), RigL(sparsity=0.8), clock, batch_size=2)
    second.load_state_dict(state)
    clock.step = 9

    assert second.total() == ours.total() == first.total()


def test_masks_that_moved_without_an_event_count_from_the_next_look_on_also_after_a_resume() -> None:
    clock, masks = Clock(), masks_of(20)
    whole = ledger(masks, RigL(sparsity=0.8), clock)
    clock.step = 3
    fill(masks, 30)  # as under Deep-R
    resumed = ledger(masks_of(30), RigL(sparsity=0.8), clock)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    clock.step = 5

    assert resumed.total() == whole.total()
    assert whole.total().theoretical == 3 * 5 * 100


def test_channels_cost_a_gpu_until_they_are_cut_out() -> None:
    model, example = seeded(ResidualNet), torch.randn(1, 3, 6, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    method = Chase(sparsity=0.5, channel_sparsity=0.5, update_every=0, channel_every=2, stop=0.5, round_to=1)
    sparse = Sparsifier(model, optimizer, method, steps=4, example=example)
    dense = cost(model, example)
    found = TrainingCost.watching(sparse, dense, batch_size=1)
    before = masked_macs(dense, sparse.masks)

    for step in range(3):  # the event follows the second one
        plain_step(model, optimizer, step)
    after = masked_macs(dense, sparse.masks)
    sparse.compact()
    found.look_again()
    plain_step(model, optimizer, 3)

    growth = before.gpu_supported - before.theoretical  # the event returns to the exact budget, by gradients
    assert plan(method, 4) == (Event(2, 0.5, 0.5, 0.5),)
    assert after.gpu_supported < before.gpu_supported == dense.macs
    assert found.total() == Macs(
        theoretical=2 * 3 * before.theoretical + growth + 2 * 3 * after.theoretical,
        gpu_supported=3 * 3 * dense.macs + 3 * after.gpu_supported,
        dense=4 * 3 * dense.macs,
    )


def spent(method: Method, steps: int) -> tuple[float, float]:
    """Theoretical MACs of a training over those of as many steps at its final density, without and with its events.

    One layer of a million weights follows the densities of the plan.
    """
    masks, clock = Masks({"weight": torch.zeros(1000, 1000)}), Clock()
    dense = Cost((Layer("weight", (1000, 1000), 1),), products=0, unknown=())
    fill(masks, round(method.density * 10**6))
    found = TrainingCost(dense, masks, method, batch_size=1, step=lambda: clock.step)
    gradients = 0
    for event in plan(method, steps):
        if event.density is not None:
            gradients += 10**6 - masks.nonzero
            fill(masks, round(event.density * 10**6))
        clock.step = event.step
        found(event)
    clock.step = steps
    final = 3 * steps * masks.nonzero
    return (found.total().theoretical - gradients) / final, found.total().theoretical / final


@pytest.mark.parametrize(
    ("recipe", "per_epoch", "sparsity", "mean_over_final"),
    [
        ("cifar100-resnet50", 390, 0.9, 1.20),
        ("cifar100-resnet50", 390, 0.95, 1.40),
        ("cifar100-resnet50", 390, 0.98, 2.0),
        ("imagenet-resnet50", 10009, 0.8, 1.11),
        ("imagenet-resnet50", 10009, 0.9, 1.22),
    ],
)
def test_training_over_test_macs_follow_the_mean_density_of_the_published_runs(
    recipe: str, per_epoch: int, sparsity: float, mean_over_final: float
) -> None:
    """Mean densities as worked out from the authors' code and settings; 10009 steps an epoch are theirs, too."""
    parsed = Recipe.from_dict(read(recipe))
    method = parsed.method.with_(sparsity=sparsity, channel_sparsity=0.0)

    without, with_events = spent(method, per_epoch * parsed.training.epochs)

    assert without == pytest.approx(mean_over_final, abs=0.02 * mean_over_final)
    assert without < with_events < 1.02 * without


def test_the_papers_dense_training_costs_what_table_4_says() -> None:
    clock = Clock()
    resnet50 = Cost((Layer("weight", (4_089_184_256, 1), 1),), products=0, unknown=())
    found = TrainingCost(resnet50, masks_of(100), Chase(sparsity=0.0), batch_size=128, step=lambda: clock.step)

    clock.step = 100 * 10009

    assert 2 * found.total().dense == pytest.approx(3.2e18, rel=0.02)
