"""Loggers: where the numbers of a run are shown while it goes on. They change nothing of its result."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from chase.epoch import Epoch
from chase.files import write_json
from chase.pace import Progress
from chase.packages import require
from chase.recipe import Recipe
from chase.registry import Registry

Values = dict[str, float]


class Logger(Protocol):
    """Takes numbers by name, such as "group_sparsity/layer1.0.conv1"; it writes nothing before the first of them."""

    def log(self, step: int, values: Values) -> None:
        """What holds after `step` optimizer steps; steps never decrease."""

    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard:
    """Event files in the folder `tensorboard` of a run."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._module = _required("torch.utils.tensorboard", package="tensorboard")
        self._folder, self._recipe = folder / "tensorboard", recipe
        self._writer: Any = None

    def log(self, step: int, values: Values) -> None:
        """Write scalars; what an interrupted run had logged from here on is taken back."""
        if self._writer is None:
            self._writer = self._module.SummaryWriter(str(self._folder), purge_step=step)
            self._writer.add_text("recipe", f"```yaml\n{self._recipe.to_yaml()}```", step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A W&B run in the project `chase`, or the one that WANDB_PROJECT names; a resumed training continues it."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._module = _required("wandb", package="wandb")
        self._folder, self._recipe = folder, recipe
        self._run: Any = None

    def log(self, step: int, values: Values) -> None:
        """Send the values."""
        if self._run is None:
            self._run = self._start()
        self._run.log(values, step=step)

    def close(self) -> None:
        """Wait until all has been sent."""
        if self._run is not None:
            self._run.finish()

    def _start(self) -> Any:
        return self._module.init(
            project=os.environ.get("WANDB_PROJECT", "chase"),
            id=_identity(self._folder / "wandb.json"),
            resume="allow",
            name=self._folder.name,
            dir=str(self._folder),
            config=self._recipe.to_dict(),
        )


LOGGERS: Registry[Callable[[Path, Recipe], Logger]] = Registry(
    "logger", {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
)
"""Contract: `(folder, recipe) → Logger`, for the run in `folder`; MissingDependency if a package is not there."""


@contextlib.contextmanager
def logging(names: Sequence[str], folder: Path, recipe: Recipe) -> Iterator[Callable[[Epoch, Progress], None]]:
    """A function that hands what an epoch did to all loggers called `names`; they are closed in the end.

    Raises:
        UnknownName: if there is no such logger.
        MissingDependency: if one needs a package that is not installed.
    """
    with contextlib.ExitStack() as stack:
        loggers = [LOGGERS[name](folder, recipe) for name in dict.fromkeys(names)]
        for logger in loggers:
            stack.callback(logger.close)

        def record(epoch: Epoch, progress: Progress) -> None:
            for step, values in records(epoch, progress):
                for logger in loggers:
                    logger.log(step, values)

        yield record


def records(epoch: Epoch, progress: Progress) -> Iterator[tuple[int, Values]]:
    """The numbers of an epoch, each with its step: those of every event, then those of the epoch and its pace."""
    numbers = asdict(epoch)
    del numbers["epoch"]
    for event in numbers.pop("events"):
        yield event["step"], {f"event/{name}": value for name, value in event.items() if name != "step"}
    pace = {"seconds_left": progress.seconds_left, "step_speedup": progress.speedup}
    yield numbers.pop("step"), dict(_flat({**numbers, **pace}))


def _flat(numbers: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif value is not None:
            yield f"{prefix}{name}", value


def _identity(path: Path) -> str:
    """The run's identity at W&B, the same after a break."""
    if not path.is_file():
        write_json(path, {"id": uuid.uuid4().hex})
    return str(json.loads(path.read_text())["id"])


def _required(module: str, *, package: str) -> Any:
    return require(module, purpose=f"--log {package}", install=f"'chase-sparse[{package}]'", package=package)
