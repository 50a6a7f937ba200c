"""Running tables: each training once, in a folder that its recipe and the code name, so that it is never repeated."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import chase
from chase import checkpoint
from chase.benchmarks.paper.scales import Scale
from chase.benchmarks.paper.table import Cell, Inapplicable, Table, Training
from chase.benchmarks.paper.trained import Trained
from chase.data import Data, data_for
from chase.errors import DataError, MissingDependency, explained
from chase.files import write_json
from chase.recipe import Recipe
from chase.run import Run
from chase.settings import DataSettings
from chase.slimming.stage import slim_checkpoint
from chase.training import Epoch, Watch, train

CODE = ("*.py", "data/*.py", "models/*.py", "slimming/**/*.py", "sparse/*.py")
"""The sources that decide what a training comes to, in the folder of the package."""

LEFT_OUT = (DataError, MissingDependency, Inapplicable)
"""What this machine or this scale cannot do, which is no failure."""


class Trainer(Protocol):
    """What trains a recipe in the folder of a run, or continues there, or finds that it is done."""

    def __call__(self, recipe: Recipe, run: Run, *, device: str, data: Data, watch: Watch) -> None: ...


Watcher = Callable[[str, int, int], Watch]
"""Is told of each training its folder's name and (done, all) of the table's trainings; gives what watches its steps."""


def unwatched(name: str, done: int, total: int) -> Watch:
    """Nobody looks on."""
    return Watch()


@dataclass(frozen=True)
class Value:
    """A number, or why there is none; `failed` says that there should be one."""

    number: float | None = None
    reason: str | None = None
    failed: bool = False


@dataclass(frozen=True)
class Result:
    """A cell with its value at each seed."""

    cell: Cell
    values: dict[int, Value]


def sources() -> dict[str, Path]:
    """The files of `CODE`, by their places in the package."""
    folder = Path(chase.__file__).parent
    return {path.relative_to(folder).as_posix(): path for pattern in CODE for path in sorted(folder.glob(pattern))}


@cache
def code() -> str:
    """The SHA-256 of `sources`."""
    digest = hashlib.sha256()
    for name, path in sources().items():
        digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def key(training: Training) -> str:
    """What names a training: twelve hexadecimal digits of its recipe, of those before it, and of the code."""
    blocks = {name: block for name, block in training.recipe.to_dict().items() if name not in ("name", "about")}
    before = {setting: key(each) for setting, each in training.before.items()} or None
    return hashlib.sha256(json.dumps([blocks, before, code()], sort_keys=True).encode()).hexdigest()[:12]


def finish(recipe: Recipe, run: Run, *, device: str, data: Data, watch: Watch) -> None:
    """Train, or continue what was interrupted, or find that it is done, and slim what lost channels.

    How long the training took is kept in seconds.json.

    Raises:
        EquivalenceError: if the slim network does not equal the masked one.
        ChaseError: as `train`.
    """
    begun = run.checkpoint.is_file() and run.recipe.is_file()
    if not begun or checkpoint.read(run.checkpoint)["facts"].get("test_accuracy") is None:
        _train(recipe, run, begun, device=device, data=data, watch=watch)
    grid = recipe.method.round_to
    if checkpoint.read(run.checkpoint)["facts"]["channel_sparsity"] and not run.is_current(run.slim, round_to=grid):
        slim_checkpoint(run.checkpoint, run.slim, round_to=grid)
        run.record(run.slim, parents=[run.checkpoint], round_to=grid)


def _train(recipe: Recipe, run: Run, begun: bool, *, device: str, data: Data, watch: Watch) -> None:
    start = time.perf_counter() - (seconds(run) or 0.0 if begun else 0.0)

    def on_epoch(epoch: Epoch) -> None:
        write_json(run.folder / "seconds.json", time.perf_counter() - start)
        watch.on_epoch(epoch)

    train(recipe, run, device=device, resume=begun, data=data, watch=Watch(watch.on_step, on_epoch))


def seconds(run: Run) -> float | None:
    """The wall-clock time of a training so far."""
    file = run.folder / "seconds.json"
    return float(json.loads(file.read_text())) if file.is_file() else None


class Runner:
    """Tables at one scale in one folder. A training that several cells need is run once, whether it fails or not.

    Args:
        scale: what each recipe becomes.
        folder: where trainings lie.
        device: where to train and to time.
        trainer: what trains.
    """

    def __init__(self, scale: Scale, folder: Path, *, device: str = "auto", trainer: Trainer = finish) -> None:
        self.scale, self.folder, self.device, self.trainer = scale, folder, device, trainer
        self.finished: dict[str, Trained | Exception] = {}
        self._names: dict[str, Training] = {}
        self._watch: Watcher = unwatched
        self._data: tuple[DataSettings, Data] | None = None

    def trainings(self, table: Table) -> dict[str, Training]:
        """The trainings of a table at this scale, by their folders' names."""
        wanted = [cell.training for cell in table.cells if cell.training]
        scaled = [self.scaled(training, seed) for training in wanted for seed in self.scale.seeds]
        return {name_of(training): training for training in scaled}

    def scaled(self, training: Training, seed: int) -> Training:
        """A training at this scale."""
        return training.with_recipes(self.scale.recipe).seeded(seed)

    def run(self, table: Table, watch: Watcher = unwatched) -> list[Result]:
        """Every cell of a table; what fails is in its values."""
        self._names, self._watch = self.trainings(table), watch
        return [Result(cell, {seed: self._value(cell, seed) for seed in self._seeds(cell)}) for cell in table.cells]

    def _seeds(self, cell: Cell) -> Sequence[int]:
        return self.scale.seeds if cell.training else self.scale.seeds[:1]

    def _value(self, cell: Cell, seed: int) -> Value:
        try:
            return Value(cell.measure.of(self.trained(self.scaled(cell.training, seed)) if cell.training else None))
        except LEFT_OUT as error:
            return Value(reason=str(error))
        except Exception as error:  # one failing cell must not lose the others
            return Value(reason=explained(error), failed=True)

    def trained(self, training: Training) -> Trained:
        """A finished training.

        Raises:
            Exception: what stopped it, again each time that it is asked for.
        """
        name = name_of(training)
        if name not in self.finished:
            try:
                self.finished[name] = self._train(name, training)
            except Exception as error:
                self.finished[name] = error
        found = self.finished[name]
        if isinstance(found, Exception):
            raise found
        return found

    def _train(self, name: str, training: Training) -> Trained:
        before = {setting: str(self.trained(each).run.checkpoint) for setting, each in training.before.items()}
        settings = replace(training.recipe.training, **before)  # type: ignore[arg-type]
        recipe, run = replace(training.recipe, name=name, about="", training=settings), Run(self.folder / name)
        watch = self._watch(name, sum(each in self.finished for each in self._names), len(self._names))
        self.trainer(recipe, run, device=self.device, data=self.loaded(recipe.data), watch=watch)
        return Trained(run, recipe, self.device, self.scale.seconds)

    def loaded(self, settings: DataSettings) -> Data:
        """A data set; the last one is kept, since many trainings use the same.

        Raises:
            DataError: if it is not here.
        """
        only = DataSettings(name=settings.name, root=settings.root, settings=settings.settings)
        if self._data is None or self._data[0] != only:
            self._data = (only, data_for(only))
        return self._data[1]


def name_of(training: Training) -> str:
    """The name of a training's folder: its model, its method, and its key."""
    return f"{training.recipe.model.name.rpartition(':')[2]}-{training.recipe.method.name}-{key(training)}"
