"""Training: one loop from a recipe to a checkpoint, resumable after any epoch with the same result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from chase import checkpoint
from chase.data import Data, load_data
from chase.errors import CheckpointError, RecipeError
from chase.files import atomic
from chase.recipe import Recipe
from chase.run import Run
from chase.session import Epoch, Session, Watch, evaluate
from chase.slimming.stage import rehearse

__all__ = ["Epoch", "Watch", "evaluate", "resolve_device", "train"]


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        RecipeError: if the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {name!r} is not available here; use auto, cpu or cuda") from error
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

    Raises:
        RecipeError, DataError, EquivalenceError: before anything is written, if the recipe cannot be met or the network
            could not be slimmed exactly.
        CheckpointError: on `resume`, if there is no checkpoint of this recipe.
        ChaseError: if the loss is no longer finite.
    """
    watch = watch or Watch()
    data = data or load_data(recipe.data.name, root=recipe.data.root, **recipe.data.settings)
    session = Session(recipe, data, resolve_device(device))
    if resume:
        _continue(session, run)
    else:
        if groups := session.sparsifier.masks.groups:
            rehearse(session.model, groups, example=session.input.example())
        with atomic(run.recipe) as temporary:
            temporary.write_text(recipe.to_yaml())
        run.metrics.unlink(missing_ok=True)
        session.save(run.checkpoint)
    run.make_latest()
    while session.epoch < recipe.training.epochs:
        epoch = session.run_epoch(watch)
        if session.settled:
            session.keep_if_best(epoch)
        session.save(run.checkpoint)
        with run.metrics.open("a") as lines:
            lines.write(json.dumps(asdict(epoch), allow_nan=False) + "\n")
        watch.on_epoch(epoch)
    return _finish(session, run)


def _continue(session: Session, run: Run) -> None:
    """Take over the state of an interrupted training; epochs that it had not saved are forgotten."""
    content = checkpoint.read(run.checkpoint)
    if content["recipe"] != session.recipe.to_dict():
        raise CheckpointError(f"{run.checkpoint} belongs to another recipe; resume without changing settings")
    session.load_state_dict(content["training"])
    lines = run.metrics.read_text().splitlines() if run.metrics.is_file() else []
    kept = [line for line in lines if json.loads(line)["epoch"] <= session.epoch]
    with atomic(run.metrics) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def _finish(session: Session, run: Run) -> Path:
    """Measure the kept network on the test split, once, and write the final checkpoint."""
    assert session.best is not None, "the last epoch is always settled"
    last = {key: value.clone() for key, value in session.model.state_dict().items()}
    session.model.load_state_dict(session.best["state_dict"])
    accuracy = evaluate(session.model, session.data.test, device=session.device)
    session.model.load_state_dict(last)
    session.save(run.checkpoint, test_accuracy=accuracy)
    run.record(run.checkpoint, parents=[run.recipe], device=str(session.device), seed=session.recipe.training.seed)
    return run.checkpoint
