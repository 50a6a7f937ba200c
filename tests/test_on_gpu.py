"""Whole trainings on an emulated GPU: nothing mixes its tensors with the CPU's, and ordinary steps do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_gpu import GPU, OnGpu, emulated, fetched, on_the_host, waits
from torch import Tensor

from chase import checkpoint
from chase.recipe import Recipe
from chase.run import Run
from chase.step import TrainingStep
from chase.training import Watch, train

BLOCKS: dict[str, Any] = {
    "data": {"name": "synthetic", "shape": [1, 8, 8], "train": 96, "test": 32, "batch_size": 16, "validation": 0.25},
    "method": {"name": "chase", "sparsity": 0.6, "channel_sparsity": 0.5, "update_every": 4, "channel_every": 4}
    | {"stop": 0.75, "round_to": 4},
    "training": {"epochs": 3, "seed": 3, "compact": [0.3, 0.5], "checkpoint_minutes": 0},
}
ORDINARY = {2, 3, 6, 7, 10, 11}
"""Steps without an event, a checkpoint, or the beginning of an epoch."""


class Stop(Exception):
    """What interrupts a training in these tests."""


def recipe(**blocks: dict[str, Any]) -> Recipe:
    return Recipe.from_dict({name: {**BLOCKS.get(name, {}), **blocks.get(name, {})} for name in {*BLOCKS, *blocks}})


def backward(step: TrainingStep, x: Tensor, y: Tensor) -> Tensor:
    """What autograd would do if its engine ran without a driver."""
    parameters = {name: fetched(each).requires_grad_() for name, each in step.model.named_parameters()}
    buffers = {name: fetched(each) for name, each in step.model.named_buffers()}
    with on_the_host(), torch.enable_grad():
        logits = torch.func.functional_call(step.model, {**parameters, **buffers}, (fetched(x),))
        loss = step.loss(logits, fetched(y))
        gradients = torch.autograd.grad(loss, [*parameters.values()])
    for parameter, gradient in zip(step.model.parameters(), gradients, strict=True):
        parameter.grad = OnGpu(gradient)
    return OnGpu(loss.detach())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`train` finds the emulated GPU."""
    saved, read = checkpoint.save, checkpoint.read

    def save(path: Path, **content: Any) -> None:
        with on_the_host():
            saved(path, **fetched(content))

    def load(path: Path) -> dict[str, Any]:
        with on_the_host():
            return read(path)

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(checkpoint, "read", load)
    monkeypatch.setattr(TrainingStep, "_backward", backward)
    monkeypatch.setattr("chase.training.resolve_device", lambda name: GPU)
    monkeypatch.setattr("chase.session.evaluate", lambda *args, **settings: 50.0)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(1, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    with emulated():
        yield


VGG = {"name": "vgg8", "width": 0.25}
CASES: dict[str, dict[str, Any]] = {
    "chase": {"model": VGG},
    "all at once": {
        "model": VGG,
        "training": {"ema": 0.9, "channels_last": True, "skip_nonfinite": 1, "clip_norm": 1.0},
    },
    "adamw, targets in MACs": {
        "model": VGG,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "method": {"channel_sparsity": 0.0, "executed_macs": 0.5},
        "training": {"compact": "auto"},
    },
    "skip connections": {"model": {"name": "cifar-resnet8"}, "method": {"prune_skip": True, "normalise": "macs"}},
    "regrowth": {
        "model": VGG,
        "method": {"criterion": "fpgm", "channel_regrowth": 0.3},
        "training": {"compact": [0.5]},
    },
    "random": {"model": VGG, "method": {"criterion": "random", "grow": "random", "initial": "magnitude"}},
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("blocks", CASES.values(), ids=CASES)
def test_nothing_mixes_devices_and_ordinary_steps_never_wait(blocks: dict[str, Any], tmp_path: Path) -> None:
    chosen, found = recipe(**blocks), dict[int, list[str]]()

    def look(done: int, steps: int) -> None:
        found[done] = [*waits]
        waits.clear()

    def look_and_stop(done: int, steps: int) -> None:
        look(done, steps)
        if done == 7:
            raise Stop

    with pytest.raises(Stop):
        train(chosen, Run(tmp_path), watch=Watch(on_step=look_and_stop))
    train(chosen, Run(tmp_path), watch=Watch(on_step=look), resume=True)

    assert found.keys() == set(range(1, 13))
    assert {step: found[step] for step in ORDINARY} == dict.fromkeys(ORDINARY, [])
    assert found[4]
    assert found[8]


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "a number": lambda x: float(x.sum()),
    "a question": lambda x: bool((x > 0).all()),
    "a list": lambda x: x.tolist(),
    "a copy to the CPU": lambda x: x.cpu(),
    "a copy from the CPU": lambda x: torch.ones(3).to(GPU),
    "a copy into": lambda x: x.copy_(torch.ones(3)),
    "where": lambda x: x.nonzero(),
    "a choice": lambda x: x[x > 0],
    "an assignment": lambda x: x.masked_fill_(x > 0, 0).index_put_((x > 0,), x[0]),
    "an index of the CPU": lambda x: x[torch.tensor([0, 2])],
    "counts": lambda x: torch.bincount(x.long()),
}


@pytest.mark.parametrize("wait", WAITING.values(), ids=WAITING)
def test_the_emulated_gpu_notes_what_waits_for_it(wait: Callable[[Tensor], Any]) -> None:
    with emulated():
        x = torch.ones(3, device=GPU)
        waits.clear()
        wait(x)
        assert waits


def test_the_emulated_gpu_computes_and_refuses_tensors_of_the_cpu() -> None:
    with emulated():
        x = torch.arange(3.0, device=GPU)
        waits.clear()
        y = torch.where(x > 1, x[x.long()].mul_(2.0), torch.zeros((), device=GPU)) + torch.tensor(1.0)
        with pytest.raises(RuntimeError, match="aten.add.Tensor on .*cuda:0.*cpu"):
            x + torch.ones(3)
        assert waits == []
        assert (y.device, y.tolist()) == (GPU, [1.0, 1.0, 5.0])
