"""Settings drawn together at random, always the same draws: what holds for each of them has to hold for all at once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import assert_nothing_masked_lives, capacity

from chase import checkpoint
from chase.benchmarks.survival import different, written
from chase.recipe import Recipe
from chase.run import Run
from chase.session import Session
from chase.slimming.stage import slim_checkpoint
from chase.sparse.methods import METHODS
from chase.training import Watch, train

DATA = {"name": "synthetic", "shape": [1, 8, 8], "classes": 5, "train": 80, "test": 16, "batch_size": 16}
OPTIONS: dict[str, dict[str, list[Any]]] = {
    "data": {"validation": [0.0, 0.2]},
    "method": {
        "name": [name for name in METHODS if name not in ("dense", "prune-finetune")],
        "sparsity": [0.5, 0.8],
        "channel_sparsity": [0.2, 0.5],
        "update_every": [1, 2, 3],
        "channel_every": [1, 2, 3],
        "stop": [0.5, 0.75, 1.0],
        "round_to": [1, 4, 8],
        "criterion": ["umm", "ws", "mmm", "random", "network-slimming", "l1", "fpgm", "taylor", "group-fisher"],
        "aggregate": ["mean", "sum", "max"],
        "normalise": ["none", "layer", "macs"],
        "channel_scope": ["global", "layer"],
        "channel_regrowth": [0.0, 0.0, 0.3],
        "rewire_l1": [0.0, 0.0, 1e-4],
        "gradient_momentum": [0.9],
        "explore_after_stop": [False, True],
        "prune_skip": [False, True],
    },
    "optimizer": {"name": ["sgd", "adamw"], "lr": [0.01], "norm_decay": [True, False]},
    "schedule": {"name": ["cosine", "constant"], "warmup_epochs": [0.0, 0.5]},
    "training": {
        "epochs": [2],
        "seed": [0, 1],
        "amp": ["off", "bf16"],
        "channels_last": [False, True],
        "clip_norm": [None, 0.5],
        "ema": [0.0, 0.9],
        "accumulate": [1, 2],
        "skip_nonfinite": [0, 2],
        "select": ["best", "last"],
        "checkpoint_every": [0, 1, 3],
        "compact": ["off", [0.1, 0.2]],
    },
}
MODELS: list[dict[str, Any]] = [{"name": "vgg8", "width": 0.125}, {"name": "cifar-resnet8"}]


class Stop(Exception):
    """What interrupts a training in these tests."""


def drawn(chance: random.Random, **blocks: dict[str, Any]) -> Recipe:
    chosen = {
        block: {name: chance.choice(values) for name, values in settings.items()} for block, settings in OPTIONS.items()
    }
    chosen["model"], chosen["data"] = chance.choice(MODELS), {**DATA, **chosen["data"]}
    return Recipe.from_dict({block: {**settings, **blocks.get(block, {})} for block, settings in chosen.items()})


def check(session: Session, done: int) -> None:
    """What holds after each step: of the masks, of all that they hide, and of how it lies in memory."""
    sparse = session.sparsifier
    masks, parameters = sparse.masks, dict(session.model.named_parameters())
    assert sparse.step == done
    assert_nothing_masked_lives(sparse)
    for name, mask in masks.weights.items():
        kept = sparse.optimizer.state[parameters[name]].values()
        alike = [parameters[name], *(each for each in kept if torch.is_tensor(each) and each.ndim)]
        assert {(each.shape, each.stride()) for each in alike} == {(mask.shape, mask.stride())}, name
    event = sparse.events.get(done)
    if event is not None and event.density is not None:
        assert masks.nonzero == min(round(event.density * masks.total), capacity(masks))
    if done == sparse.steps and masks.groups:
        assert abs(masks.channel_sparsity - session.recipe.method.channel_sparsity) * masks.channels <= 4


@pytest.mark.parametrize("number", range(10))
def test_interrupted_anywhere_it_comes_to_the_same_bits_and_is_slimmed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(number)
    chosen, sessions = drawn(chance), list[Session]()

    def begun(*given: Any) -> Session:
        sessions.append(Session(*given))
        return sessions[-1]

    monkeypatch.setattr("chase.training.Session", begun)
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    train(chosen, whole, device="cpu", watch=Watch(on_step=lambda done, steps: check(sessions[-1], done)))
    last = chance.randint(1, sessions[-1].steps)

    def stop(done: int, steps: int) -> None:
        if done == last:
            raise Stop

    with pytest.raises(Stop):
        train(chosen, parts, device="cpu", watch=Watch(on_step=stop))
    train(chosen, parts, device="cpu", resume=True)

    assert different(written(parts), written(whole)) == []
    slim_checkpoint(whole.checkpoint, whole.slim, round_to=1)


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "in parts": ({"accumulate": 1}, {"accumulate": 2}),
    "channels last": ({"channels_last": False}, {"channels_last": True}),
    "guarded": ({"skip_nonfinite": 0}, {"skip_nonfinite": 2}),
    "compacted": ({"compact": "off"}, {"compact": [0.3, 0.5]}),
}
EXACT = {"channel_sparsity": 0.5, "criterion": "l1", "grow": "gradient", "prune": "magnitude"}
EXACT |= {"rewire_l1": 0.0, "channel_regrowth": 0.0}
"""Nothing is drawn at random: draws have the shapes of weights, which shrink where a training is compacted."""


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("way", WAYS)
def test_another_way_to_train_gives_the_same_network(way: str, number: int, tmp_path: Path) -> None:
    net = {"name": f"small_training:{'Double' if way == 'compacted' else 'PlainDouble'}"}
    found = []
    for index, training in enumerate(WAYS[way]):
        recipe = drawn(random.Random(100 + number), method=EXACT, training=training)
        recipe = Recipe.from_dict(recipe.to_dict() | {"model": net})
        found.append(checkpoint.read(train(recipe, Run(tmp_path / str(index)), device="cpu")))

    ours, theirs = found
    assert (ours["training"]["kept"]["one"].shape != theirs["training"]["kept"]["one"].shape) == (way == "compacted")
    assert different(ours["masks"], theirs["masks"]) == []
    assert different({**ours["facts"], "training_macs": 0}, {**theirs["facts"], "training_macs": 0}) == []
    for name, tensor in theirs["state_dict"].items():
        if "running" not in name:  # of what is dead, statistics go on
            assert torch.allclose(ours["state_dict"][name], tensor, rtol=1e-6, atol=1e-9), name
