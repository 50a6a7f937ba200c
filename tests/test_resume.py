"""Trainings that stop on their way, and what is left of them to go on from."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import recipe

from chase import checkpoint
from chase.benchmarks.survival import different
from chase.errors import CheckpointError, OutputError
from chase.run import Run
from chase.session import Session
from chase.training import Epoch, Watch, train


class Stop(Exception):
    """What interrupts a training in these tests."""


def stop_after(number: int) -> Watch:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == number:
            raise Stop

    return Watch(on_epoch=on_epoch)


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"method": {"name": "set", "channel_sparsity": 0.0}},
        {"optimizer": {"name": "adamw", "lr": 0.01}},
        {"training": {"channels_last": True, "clip_norm": 0.5, "amp": "bf16", "label_smoothing": 0.1}},
        {"schedule": {"name": "multistep", "milestones": [2], "warmup_epochs": 1}},
    ],
    ids=["chase", "random growth", "adamw", "clipped bf16", "multistep"],
)
def test_two_epochs_and_two_after_a_resume_are_four(blocks: dict[str, Any], tmp_path: Path) -> None:
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    train(recipe(**blocks), whole, device="cpu")
    with pytest.raises(Stop):
        train(recipe(**blocks), parts, device="cpu", watch=stop_after(2))

    train(recipe(**blocks), parts, device="cpu", resume=True)

    ours, theirs = (checkpoint.read(run.checkpoint)["training"] for run in (whole, parts))
    assert all(torch.equal(ours["state_dict"][key], theirs["state_dict"][key]) for key in ours["state_dict"])
    assert ours["sparsifier"]["step"] == theirs["sparsifier"]["step"] == 16
    costs = [checkpoint.read(run.checkpoint)["facts"]["training_macs"] for run in (whole, parts)]
    assert costs[0] == costs[1]
    per_image = checkpoint.read(whole.checkpoint)["facts"]["macs"]["dense"]
    assert costs[0]["dense"] == 3 * 16 * 16 * per_image  # 16 steps of 16 images
    lines = [[json.loads(line) for line in run.metrics.read_text().splitlines()] for run in (whole, parts)]
    for ours_line, theirs_line in zip(*lines, strict=True):
        assert ours_line | {"images_per_second": 0} == theirs_line | {"images_per_second": 0}


WIDER: dict[str, Any] = {"width": 0.25}
CUT: dict[str, Any] = {"compact": [0.3, 0.5], "checkpoint_every": 3, "checkpoint_minutes": 0}


@pytest.mark.parametrize(
    ("killed", "blocks"),
    [
        (1, {"training": CUT}),
        (11, {"training": CUT, "optimizer": {"name": "adamw", "lr": 0.01}}),
        (16, {"training": CUT | {"ema": 0.9, "accumulate": 2, "channels_last": True, "skip_nonfinite": 1}}),
        (8, {"training": CUT | {"amp": "bf16", "clip_norm": 1.0}}),
    ],
    ids=["before anything was saved", "adamw", "everything", "clipped"],
)
def test_a_training_that_is_killed_within_an_epoch_resumes_to_the_same_bits(
    killed: int, blocks: dict[str, Any], tmp_path: Path
) -> None:
    def stop(done: int, steps: int) -> None:
        if done == killed:
            raise Stop

    chosen = recipe(model=WIDER, **blocks)
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    train(chosen, whole, device="cpu")
    with pytest.raises(Stop):
        train(chosen, parts, device="cpu", watch=Watch(on_step=stop))

    train(chosen, parts, device="cpu", resume=True)

    ours, theirs = (checkpoint.read(run.checkpoint) for run in (whole, parts))
    assert different(ours, theirs) == []
    assert any(len(units) < 16 for units in ours["training"]["kept"].values())
    assert [json.loads(line)["epoch"] for line in parts.metrics.read_text().splitlines()] == [1, 2, 3, 4]


def test_saving_an_average_changes_nothing_in_it(tmp_path: Path) -> None:
    method = {"name": "rigl", "sparsity": 0.6, "update_every": 1, "stop": 0.9, "drop_fraction": 0.5}
    weights = []
    for every in (0, 1):  # an average that forgot, when it was saved, what is masked would miss what grows again
        run = Run(tmp_path / str(every))
        train(recipe(method=method, training={"ema": 0.9, "checkpoint_every": every}), run, device="cpu")
        weights.append(checkpoint.read(run.checkpoint)["training"]["average"])

    assert different(*weights) == []


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_and_leaves(number: signal.Signals, tmp_path: Path) -> None:
    def ask(done: int, steps: int) -> None:
        if done == 6:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), Run(tmp_path), device="cpu", watch=Watch(on_step=ask))

    state = checkpoint.read(tmp_path / "checkpoint.pt")["training"]
    assert (state["epoch"], state["batch"], state["sparsifier"]["step"]) == (1, 2, 6)
    assert signal.getsignal(number) is before


def test_checkpoints_are_written_after_minutes_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 25))  # a step takes 25 seconds
    monkeypatch.setattr("chase.training.time.monotonic", lambda: next(clock))
    saved: list[int] = []
    monkeypatch.setattr(Session, "save", lambda self, *args, **facts: saved.append(self.done))
    monkeypatch.setattr(Run, "record", lambda *args, **facts: None)

    train(recipe(training={"epochs": 2, "checkpoint_minutes": 1}), Run(tmp_path), device="cpu")

    assert saved == [0, 3, 4, 7, 8, 8]  # at first, and after three looks at the clock, and after epochs and the end


def test_litter_of_a_killed_writer_is_removed_on_resume(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(recipe(), Run(tmp_path), device="cpu", watch=stop_after(1))
    (tmp_path / ".checkpoint.pt.4711.tmp").write_bytes(b"half")

    train(recipe(), Run(tmp_path), device="cpu", resume=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "manifest.json",
        "metrics.jsonl",
        "recipe.yaml",
    ]


def test_a_line_of_metrics_that_was_cut_off_is_forgotten_on_resume(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(Stop):
        train(recipe(), run, device="cpu", watch=stop_after(1))
    with run.metrics.open("a") as lines:
        lines.write('{"epoch": 2, "lo')

    train(recipe(), run, device="cpu", resume=True)

    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3, 4]


def test_a_full_disk_stops_the_training_and_the_last_checkpoint_resumes(tmp_path: Path) -> None:
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    train(recipe(), whole, device="cpu")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (run.checkpoint.stat().st_size // 2, limits[1]))

    try:
        with pytest.raises(OutputError, match="cannot write .*checkpoint.pt: File too large"):
            train(recipe(), run, device="cpu", watch=Watch(on_epoch=fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.read(run.checkpoint)["training"]["epoch"] == 2
    train(recipe(), run, device="cpu", resume=True)

    assert different(checkpoint.read(whole.checkpoint), checkpoint.read(run.checkpoint)) == []


def test_a_resume_with_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(recipe(), Run(tmp_path), device="cpu", watch=stop_after(1))

    with pytest.raises(CheckpointError, match="belongs to another recipe"):
        train(recipe(training={"seed": 4}), Run(tmp_path), device="cpu", resume=True)
