"""Training: one loop from a recipe to a checkpoint, resumable after any step with the same result."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from chase import checkpoint, distributed
from chase.data import Data, data_for
from chase.epoch import Epoch, Watch
from chase.errors import CheckpointError, RecipeError
from chase.evaluation import evaluate
from chase.files import atomic, sweep
from chase.interruption import deferred
from chase.lock import alone
from chase.recipe import Recipe
from chase.run import Run
from chase.session import Session
from chase.session_state import restore
from chase.settings import TrainingSettings
from chase.slimming.stage import rehearse

__all__ = ["Epoch", "Watch", "evaluate", "resolve_device", "train"]

ASK_EVERY = 10
"""Steps between two exchanges of what the processes wish for: to stop, to save."""


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; of several processes on a machine, each has its own.

    Raises:
        RecipeError: if the device does not exist here.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{distributed.local_rank()}"  # set_device refuses a GPU without a number
    elif name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {name!r} is not available here; use auto, cpu or cuda") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def train(
    recipe: Recipe,
    run: Run,
    *,
    device: str = "auto",
    resume: bool = False,
    data: Data | None = None,
    watch: Watch | None = None,
) -> Path:
    """Train by `recipe` in the folder of `run`, or finish what was begun there; the checkpoint's path.

    SIGINT and SIGTERM save a checkpoint after the current step. Under `torchrun`, all processes call this alike; the
    first of them writes, and calls `watch`.

    Raises:
        RecipeError, DataError, EquivalenceError: before anything is written, if the recipe cannot be met, the network
            could not be slimmed exactly, or another process trains in this folder.
        CheckpointError: on `resume`, if there is no checkpoint of this recipe.
        ChaseError: if losses are not finite, or processes disagree.
        KeyboardInterrupt: if it was interrupted, with the checkpoint written.
    """
    with distributed.joined(), _tuned(), deferred() as stopping:
        watch = Watch() if watch is None or distributed.rank() else watch
        data = data or data_for(recipe.data)
        session = Session(recipe, data, resolve_device(device))
        with contextlib.nullcontext() if distributed.rank() else alone(run.folder):
            if resume:
                _continue(session, run)
            else:
                _begin(session, run)
            saving = Saving(recipe.training)
            while session.epoch < recipe.training.epochs:
                for step in session.rest_of_epoch(watch):
                    _heed(session, run, step, stopping, saving)
                _close_epoch(session, run, watch)
                saving.wrote()
            return _finish(session, run)


@contextlib.contextmanager
def _tuned() -> Iterator[None]:
    """Let cuDNN try its kernels on every shape that it meets, which pays since a training has few."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Saving:
    """When a checkpoint within an epoch is due."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.steps, self.seconds = settings.checkpoint_every, 60 * settings.checkpoint_minutes
        self.wrote()

    def wrote(self) -> None:
        """Count the minutes from now."""
        self._last = time.monotonic()

    def due_at(self, step: int) -> bool:
        """Whether this step is one of those after which a checkpoint is written."""
        return self.steps > 0 and step % self.steps == 0

    def due_now(self) -> bool:
        """Whether so many minutes have passed."""
        return self.seconds > 0 and time.monotonic() - self._last >= self.seconds


def _heed(session: Session, run: Run, step: int, stopping: Callable[[], bool], saving: Saving) -> None:
    """Between two steps: save, and leave, if that is what at least one process wants."""
    stop = save = False
    if distributed.processes() == 1 or step % ASK_EVERY == 0:
        stop, save = distributed.any_of(stopping(), saving.due_now())
    if stop or save or saving.due_at(step):
        session.save(run.checkpoint)
        saving.wrote()
    if stop:
        raise KeyboardInterrupt


def _begin(session: Session, run: Run) -> None:
    """Write what a run starts with."""
    if groups := session.sparsifier.masks.groups:
        rehearse(session.model, groups, example=session.input.example())
    if not distributed.rank():
        with atomic(run.recipe) as temporary:
            temporary.write_text(session.recipe.to_yaml())
        run.metrics.unlink(missing_ok=True)
    session.save(run.checkpoint)
    if not distributed.rank():
        run.make_latest()


def _continue(session: Session, run: Run) -> None:
    """Take over the state of an interrupted training; epochs that it had not saved are forgotten."""
    content = checkpoint.read(run.checkpoint)
    if content["recipe"] != session.recipe.to_dict():
        raise CheckpointError(f"{run.checkpoint} belongs to another recipe; resume without changing settings")
    restore(session, content["training"])
    if distributed.rank():
        return
    lines = run.metrics.read_text().splitlines() if run.metrics.is_file() else []
    kept = [line for line in lines if _epoch_of(line) <= session.epoch]
    with atomic(run.metrics) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))
    sweep(run.checkpoint)
    run.make_latest()


def _epoch_of(line: str) -> float:
    """The epoch that a line of metrics.jsonl is of; infinite for one that was cut off with the machine's power."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _close_epoch(session: Session, run: Run, watch: Watch) -> None:
    """Record an epoch first and then save it: a line too many is forgotten on resume, a missing one would stay so."""
    epoch = session.finish_epoch()
    if session.settled:
        session.keep_if_best(epoch)
    if not distributed.rank():
        with run.metrics.open("a") as lines:
            lines.write(json.dumps(asdict(epoch), allow_nan=False) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
    session.save(run.checkpoint)
    watch.on_epoch(epoch)


def _finish(session: Session, run: Run) -> Path:
    """Measure the kept network on the test split, once, and write the final checkpoint."""
    session.save(run.checkpoint, test_accuracy=session.test_accuracy())
    if not distributed.rank():
        seed = session.recipe.training.seed
        run.record(run.checkpoint, parents=[run.recipe], device=str(session.device), seed=seed)
    distributed.wait()
    return run.checkpoint
