"""Kills trainings at random moments: `python -m chase.benchmarks.survival --kills 100 --out FILE`.

A small recipe is trained once without a break. Then each process that trains it is killed (SIGKILL) after a random
number of steps and a random pause, one in ten while it still sets up, and followed by one that goes on from what is on
disk, until one is done before its death; then the next run begins. What every finished run has written (weights,
optimizer state, masks, metrics) must be that of the unbroken one, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chase import checkpoint
from chase.benchmarks.environment import environment
from chase.errors import GateError
from chase.files import write_json
from chase.recipe import Recipe, override, read
from chase.run import Run
from chase.training import Watch, train

SETTINGS = (
    "training.epochs=4",
    "training.checkpoint_every=7",
    "training.compact=[0.2,0.35,0.5]",
    "model.width=0.25",
    "data.batch_size=32",
    "method.update_every=10",
    "method.channel_every=15",
)


def recipe() -> Recipe:
    """What is trained: a quarter of the digits demo's network, for some seconds."""
    return Recipe.from_dict(override(read("digits-demo"), SETTINGS))


@dataclass(frozen=True)
class Death:
    """When a process is killed: so many seconds after it has done so many steps."""

    steps: int
    seconds: float

    @classmethod
    def drawn(cls, chance: random.Random) -> Death:
        """At random."""
        if chance.random() < 0.1:
            return cls(0, chance.uniform(0, 1))
        return cls(chance.randrange(1, 40), chance.uniform(0, 0.03))


def go_on(run: Run, steps: Any) -> None:
    """Train in `run` from wherever it stands, on one thread, counting steps in shared memory."""
    torch.set_num_threads(1)

    def count(done: int, of: int) -> None:
        steps.value += 1

    train(recipe(), run, device="cpu", resume=run.checkpoint.is_file(), watch=Watch(on_step=count))


def lived(run: Run, death: Death | None) -> bool:
    """Whether a process that trains in `run` was done before its death.

    It is forked from a server that has imported everything and computed nothing, so that it trains at once: torch's
    thread pools do not survive a fork.

    Raises:
        GateError: if it failed by itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chase.training"])
    steps = context.Value("i", 0)
    process = context.Process(target=go_on, args=(run, steps))
    process.start()
    if death:
        while process.is_alive() and steps.value < death.steps:
            time.sleep(0.001)
        time.sleep(death.seconds)
        process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise GateError(f"a training in {run.folder} ended with exit code {process.exitcode}")
    return process.exitcode == 0


def different(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The places where two values of plain data and tensors differ."""
    if isinstance(ours, dict):
        odd = [f"{where}.{key}" for key in ours.keys() ^ theirs.keys()]
        shared = ours.keys() & theirs.keys()
        return odd + [path for key in shared for path in different(ours[key], theirs[key], f"{where}.{key}")]
    if isinstance(ours, list | tuple):
        pairs = zip(ours, theirs, strict=True)
        return [path for index, pair in enumerate(pairs) for path in different(*pair, f"{where}.{index}")]
    same = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    return [] if same else [where]


def written(run: Run) -> dict[str, Any]:
    """All that a finished run holds, apart from how fast it was."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {"checkpoint": checkpoint.read(run.checkpoint), "metrics": [{**e, "images_per_second": 0} for e in lines]}


def survive(folder: Path, kills: int, *, seed: int = 0) -> dict[str, Any]:
    """Kill so many times, and let the last run finish; the kills that each run went through, and where. That it returns
    means that all runs came to the same bits.

    Raises:
        GateError: if a training failed, or a run differs from the unbroken one.
    """
    chance, whole = random.Random(seed), Run(folder / "whole")
    lived(whole, None)
    runs: list[list[int]] = []
    while sum(map(len, runs)) < kills:
        run = Run(folder / f"run{len(runs)}")
        runs.append([])
        while not lived(run, Death.drawn(chance) if sum(map(len, runs)) < kills else None):
            runs[-1].append(_step(run))
        if found := different(written(run), written(whole)):
            raise GateError(f"after {len(runs[-1])} kills, {run.folder} differs in {', '.join(found[:5])}")
    rows = [{"run": number, "checkpoint_after_each_kill": steps} for number, steps in enumerate(runs)]
    return {"steps": _step(whole), "kills": sum(map(len, runs)), "rows": rows}


def _step(run: Run) -> int:
    """The step of the checkpoint in a run; -1 if there is none."""
    if not run.checkpoint.is_file():
        return -1
    return int(checkpoint.read(run.checkpoint)["training"]["sparsifier"]["step"])


def main(argv: list[str] | None = None) -> None:
    """Kill, compare, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = survive(Path(folder), args.kills, seed=args.seed)
    command = ["python", "-m", "chase.benchmarks.survival", *(sys.argv[1:] if argv is None else argv)]
    write_json(args.out, {"environment": environment(), "command": command, "settings": SETTINGS, **found})


if __name__ == "__main__":
    main()
