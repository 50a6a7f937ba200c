"""A training that is compacted while it runs goes on as the masked one does."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from small_training import OPTIMIZERS, MakeOptimizer, ResidualNet, backward, batch, seeded
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from chase.slimming import slimmed
from chase.slimming.surgery import cuts, tensors_of, without
from chase.sparse import Chase, Sparsifier

METHOD = Chase(
    sparsity=0.8,
    update_every=2,
    channel_sparsity=0.5,
    channel_every=3,
    min_channel_ratio=1.0,
    stop=0.8,
    round_to=1,
    prune_skip=True,
)
STEPS, BREAK = 15, 7
EXAMPLE = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
Schedule = Callable[[torch.optim.Optimizer], LRScheduler]
EVERY: dict[str, MakeOptimizer] = OPTIMIZERS | {
    "adam-plain": torch.optim.Adam,
    "adamw-foreach": partial(torch.optim.AdamW, lr=1e-2, foreach=True),
    "adamw-amsgrad": partial(torch.optim.AdamW, lr=1e-2, amsgrad=True),
    "rmsprop": partial(torch.optim.RMSprop, lr=1e-3, centered=True, momentum=0.5),
}


class Training:
    """A small network in float64, its Sparsifier, an average of its weights, and its losses so far."""

    def __init__(
        self,
        optimizer: str = "momentum",
        *,
        make: Callable[[], nn.Module] = ResidualNet,
        schedule: Schedule | None = None,
        **changes: Any,
    ) -> None:
        self.net = seeded(make).double()
        self.forward: nn.Module = self.net
        self.optimizer = EVERY[optimizer](self.net.parameters())
        self.scheduler = schedule(self.optimizer) if schedule else None
        method = METHOD.with_(**changes)
        self.sparse = Sparsifier(self.net, self.optimizer, method, steps=STEPS, example=EXAMPLE)
        self.averaged = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
        self.losses: list[float] = []

    def learn(self, number: int | None = None) -> None:
        """Add the gradients of a batch."""
        images, labels = batch(self.sparse.step if number is None else number)
        loss = nn.functional.cross_entropy(self.forward(images.double()), labels)
        backward(loss)
        self.losses.append(float(loss.detach()))

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.net)
        if self.scheduler is not None:
            self.scheduler.step()

    def run(self, steps: int) -> Training:
        for _ in range(steps):
            self.learn()
            self.step()
        return self

    def compact(self, **settings: Any) -> dict[str, Tensor]:
        return self.sparse.compact(copies=[self.averaged.module], **settings)


def both(*arguments: Any, **settings: Any) -> tuple[Training, Training]:
    """The same training twice, up to the break, where channels are dead in every group that may lose some."""
    masked, cut = (Training(*arguments, **settings).run(BREAK) for _ in range(2))
    assert all(not alive.all() for alive in cut.sparse.masks.alive.values())
    return masked, cut


def finish(masked: Training, cut: Training) -> None:
    """The rest of both; it goes the same way."""
    masked.run(STEPS - BREAK)
    cut.run(STEPS - BREAK)

    assert len(masked.losses) == len(cut.losses)
    assert torch.allclose(torch.tensor(masked.losses), torch.tensor(cut.losses), rtol=1e-12, atol=0)
    assert masked.losses[-1] != masked.losses[BREAK]


def sizes(model: nn.Module) -> dict[str, int]:
    return {name: tensor.numel() for name, tensor in tensors_of(model).items()}


@pytest.mark.parametrize("optimizer", EVERY)
def test_the_steps_to_come_are_those_of_the_masked_training(optimizer: str) -> None:
    masked, cut = both(optimizer)

    kept = cut.compact()

    assert {name: len(units) for name, units in kept.items()} == masked.sparse.masks.widths()
    assert sum(sizes(cut.net).values()) < sum(sizes(masked.net).values())
    for parameter in cut.net.parameters():
        state = cut.optimizer.state[parameter].values() if optimizer != "sgd" else []
        assert all(entry.shape in (parameter.shape, ()) for entry in state)
    finish(masked, cut)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("momentum", partial(LambdaLR, lr_lambda=lambda step: 1 / (1 + step))),
        ("momentum", partial(OneCycleLR, max_lr=0.2, total_steps=STEPS + 1)),
        ("adamw", partial(OneCycleLR, max_lr=0.02, total_steps=STEPS + 1)),
    ],
    ids=["lambda", "one-cycle-momentum", "one-cycle-betas"],
)
def test_schedulers_go_on(optimizer: str, schedule: Schedule) -> None:
    masked, cut = both(optimizer, schedule=schedule)

    cut.compact()
    before = {key: value for key, value in cut.optimizer.param_groups[0].items() if key != "params"}
    finish(masked, cut)

    after = {key: value for key, value in cut.optimizer.param_groups[0].items() if key != "params"}
    assert after == {key: value for key, value in masked.optimizer.param_groups[0].items() if key != "params"}
    assert after["lr"] != before["lr"]


def test_later_events_remove_the_channels_that_the_masked_training_loses() -> None:
    masked, cut = both()

    kept = cut.compact()
    finish(masked, cut)

    ours, theirs = cut.sparse.masks, masked.sparse.masks
    assert ours.removed > sum(group.size for group in theirs.groups) - sum(map(len, kept.values()))
    for name, alive in ours.alive.items():
        assert kept[name][alive].tolist() == theirs.alive[name].nonzero().flatten().tolist()


@pytest.mark.parametrize("criterion", ["umm", "ws", "mmm"])
def test_channel_scores_are_those_of_the_dense_rows(criterion: str) -> None:
    masked, cut = both(criterion=criterion, sparsity=0.3)

    for _ in range(3):
        cut.compact()
        masked.run(2)
        cut.run(2)

    assert masked.sparse.masks.widths() == cut.sparse.masks.widths()
    assert torch.allclose(torch.tensor(masked.losses), torch.tensor(cut.losses), rtol=1e-12, atol=0)


def test_what_the_masks_count_stays_relative_to_the_dense_model() -> None:
    masked, cut = both()

    cut.compact()

    for name in ("sparsity", "channel_sparsity", "total", "channels", "nonzero", "removed"):
        assert getattr(cut.sparse.masks, name) == getattr(masked.sparse.masks, name), name
    finish(masked, cut)
    assert (cut.sparse.masks.sparsity, cut.sparse.masks.channel_sparsity) == (
        masked.sparse.masks.sparsity,
        masked.sparse.masks.channel_sparsity,
    )
    assert cut.sparse.masks.channel_sparsity == pytest.approx(0.5, abs=1 / 32)


def test_an_average_of_the_weights_shrinks_along_and_goes_on_averaging() -> None:
    masked, cut = both()
    with torch.no_grad():  # an average remembers weights that are masked by now
        for one, other in zip(masked.averaged.parameters(), cut.averaged.parameters(), strict=True):
            other.copy_(one.add_(0.1))

    lost = cuts(masked.sparse.masks.groups, cut.compact())
    finish(masked, cut)

    theirs = tensors_of(masked.averaged.module)
    for name, tensor in tensors_of(cut.averaged.module).items():
        assert torch.allclose(tensor, without(theirs[name], lost.get(name, [])), rtol=1e-11, atol=1e-14), name
    assert int(cut.averaged.n_averaged) == STEPS


def test_gradients_that_are_there_already_are_cut() -> None:
    masked, cut = both()
    masked.learn(100)
    cut.learn(100)

    lost = cuts(masked.sparse.masks.groups, cut.compact())

    for (name, one), other in zip(masked.net.named_parameters(), cut.net.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(other.grad, without(one.grad, lost.get(name, [])))
    finish(masked, cut)


def test_parameters_that_do_not_shrink_stay_the_objects_they_were() -> None:
    _, cut = both()
    before, buffers = dict(cut.net.named_parameters()), dict(cut.net.named_buffers())

    cut.compact()

    stayed = {name for name, parameter in cut.net.named_parameters() if parameter is before[name]}
    assert stayed == {name for name, parameter in cut.net.named_parameters() if parameter.shape == before[name].shape}
    assert "fc.bias" in stayed
    assert "fc.weight" not in stayed
    assert cut.net.get_buffer("norm1.num_batches_tracked") is buffers["norm1.num_batches_tracked"]
    listed = [id(parameter) for group in cut.optimizer.param_groups for parameter in group["params"]]
    assert listed == [id(parameter) for parameter in cut.net.parameters()]
    assert {id(parameter) for parameter in cut.optimizer.state} == set(listed)


def test_twice_in_a_row_is_once() -> None:
    masked, cut = both()

    kept = cut.compact()
    before, state = dict(cut.net.named_parameters()), cut.sparse.masks.state_dict()
    again = cut.compact()

    assert {name: units.tolist() for name, units in again.items()} == {
        name: list(range(len(units))) for name, units in kept.items()
    }
    assert all(parameter is before[name] for name, parameter in cut.net.named_parameters())
    assert str(cut.sparse.masks.state_dict()) == str(state)
    finish(masked, cut)


def test_a_width_grid_keeps_dead_channels_until_they_are_asked_for() -> None:
    masked, cut = both()
    living = cut.sparse.masks.widths()

    kept = cut.compact(round_to=4)

    assert {name: len(units) for name, units in kept.items()} == {
        name: 4 * math.ceil(width / 4) for name, width in living.items()
    }
    assert cut.sparse.masks.widths() == living
    assert any(not alive.all() for alive in cut.sparse.masks.alive.values())
    cut.compact(round_to=1)
    assert {name: len(alive) for name, alive in cut.sparse.masks.alive.items()} == living
    finish(masked, cut)


def test_a_compacted_network_is_what_slimming_makes_of_the_masked_one() -> None:
    masked, cut = both()

    cut.compact()

    slim = slimmed(masked.net, masked.sparse.masks, example=EXAMPLE, round_to=1).model
    ours, theirs = cut.net.state_dict(), slim.state_dict()
    assert repr(cut.net) == repr(slim)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert slimmed(cut.net, cut.sparse.masks, example=EXAMPLE, round_to=1).certificate["max_rel"] == 0
