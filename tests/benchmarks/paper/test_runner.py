"""The runner, with a trainer that only writes down what it was asked for; and with the real one, interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chase import checkpoint
from chase.benchmarks.paper import runner as running
from chase.benchmarks.paper.runner import Runner, finish, key, name_of
from chase.benchmarks.paper.scales import Scale
from chase.benchmarks.paper.table import Cell, Measure, Table, Training
from chase.data import Data, load_data
from chase.recipe import Recipe
from chase.run import Run
from chase.training import Epoch, Watch

TINY = {
    "model": {"name": "mlp", "hidden": [8]},
    "data": {"name": "synthetic", "shape": [1, 2, 2], "train": 40, "test": 8, "classes": 2, "batch_size": 10},
    "method": {"name": "chase", "sparsity": 0.5, "update_every": 2},
    "training": {"epochs": 3},
}
SEED = Measure("seed", lambda trained: float(trained.recipe.training.seed), 1)


def tiny(method: str = "chase", **settings: object) -> Training:
    return Training(recipe=Recipe.from_dict({**TINY, "method": {"name": method, "sparsity": 0.5, **settings}}))


def cell(row: str, training: Training | None, measure: Measure = SEED) -> Cell:
    return Cell(row=row, column="seed", training=training, measure=measure)


def table(*cells: Cell) -> Table:
    return Table(title="t", cells=cells)


class Notes:
    """A trainer that writes down recipes and raises for some methods."""

    def __init__(self, fails: dict[str, Exception] | None = None) -> None:
        self.recipes: list[Recipe] = []
        self.fails = fails or {}

    def __call__(self, recipe: Recipe, run: Run, *, device: str, data: Data, watch: Watch) -> None:
        self.recipes.append(recipe)
        if recipe.method.name in self.fails:
            raise self.fails[recipe.method.name]

    @property
    def methods(self) -> list[str]:
        return [recipe.method.name for recipe in self.recipes]


def runner_for(folder: Path, notes: Notes, *, seeds: tuple[int, ...] = (0,), **options: object) -> Runner:
    return Runner(Scale(about="", seeds=seeds, **options), folder, device="cpu", trainer=notes)  # type: ignore[arg-type]


def test_what_several_cells_and_tables_need_is_trained_once(tmp_path: Path) -> None:
    notes = Notes()
    runner = runner_for(tmp_path, notes)

    runner.run(table(cell("a", tiny()), cell("b", tiny("rigl")), cell("c", tiny())))
    runner.run(table(cell("d", tiny("rigl")), cell("e", tiny("set"))))

    assert notes.methods == ["chase", "rigl", "set"]


def test_a_training_is_named_by_its_model_its_method_and_its_key(tmp_path: Path) -> None:
    notes = Notes()
    runner_for(tmp_path, notes).run(table(cell("a", tiny())))

    assert notes.recipes[0].name == name_of(tiny()) == f"mlp-chase-{key(tiny())}"


def test_another_recipe_or_other_code_is_another_training(monkeypatch: pytest.MonkeyPatch) -> None:
    one, named = tiny(), tiny()
    named = replace(named, recipe=replace(named.recipe, name="other", about="The same."))

    assert key(one) == key(named) == key(one.seeded(0))
    taught = replace(one, before={"teacher": tiny("dense", sparsity=0.0)})
    assert len({key(each) for each in (one, taught, one.seeded(1), tiny(update_every=3))}) == 4
    before = key(one)
    monkeypatch.setattr(running, "code", lambda: "changed")
    assert key(one) != before


def test_the_code_is_that_of_the_library_and_not_of_the_tables() -> None:
    found = set(running.sources())

    assert {"training.py", "sparse/methods.py", "models/vgg.py", "slimming/operators/rule.py"} <= found
    assert not [name for name in found if name.startswith(("benchmarks", "cli", "exporters"))]


def test_every_seed_is_a_training_of_its_own(tmp_path: Path) -> None:
    (result,) = runner_for(tmp_path, Notes(), seeds=(3, 5)).run(table(cell("a", tiny())))

    assert {seed: value.number for seed, value in result.values.items()} == {3: 3.0, 5: 5.0}


def test_one_failure_loses_nothing_else_and_is_not_repeated(tmp_path: Path) -> None:
    notes = Notes({"rigl": RuntimeError("out of memory\nand more")})
    cells = [cell("a", tiny("rigl")), cell("b", tiny()), cell("c", tiny("rigl"))]

    a, b, c = runner_for(tmp_path, notes).run(table(*cells))

    assert notes.methods == ["rigl", "chase"]
    assert b.values[0].number == 0.0
    for result in (a, c):
        assert result.values[0].failed
        assert result.values[0].reason == "RuntimeError: out of memory"


def test_a_measure_that_fails_loses_its_cell_alone(tmp_path: Path) -> None:
    broken = Measure("broken", lambda trained: 1 / 0)

    good, bad = runner_for(tmp_path, Notes()).run(table(cell("a", tiny()), cell("b", tiny(), broken)))

    assert good.values[0].number == 0.0
    assert (bad.values[0].failed, bad.values[0].reason) == (True, "ZeroDivisionError: division by zero")


def test_data_that_is_not_here_is_no_failure_but_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHASE_DATA", str(tmp_path / "none"))
    away = Training(recipe=Recipe.from_dict({**TINY, "data": {"name": "imagenet"}}))
    notes = Notes()

    (result,) = runner_for(tmp_path, notes).run(table(cell("a", away)))

    assert notes.recipes == []
    assert (result.values[0].number, result.values[0].failed) == (None, False)
    assert "imagenet" in str(result.values[0].reason)


def test_what_is_counted_needs_no_training(tmp_path: Path) -> None:
    notes = Notes()

    (result,) = runner_for(tmp_path, notes, seeds=(1, 2)).run(table(cell("a", None, Measure("n", lambda _: 4.0))))

    assert (notes.recipes, result.values[1].number, len(result.values)) == ([], 4.0, 1)


def test_a_teacher_is_trained_first_and_named_to_its_pupil(tmp_path: Path) -> None:
    notes = Notes()
    teacher = tiny("dense", sparsity=0.0)
    pupil = replace(tiny(), before={"teacher": teacher})

    runner_for(tmp_path, notes, seeds=(4,)).run(table(cell("a", pupil)))

    assert notes.methods == ["dense", "chase"]
    assert [recipe.training.seed for recipe in notes.recipes] == [4, 4]
    assert notes.recipes[1].training.teacher == str(tmp_path / name_of(teacher.seeded(4)) / "checkpoint.pt")


def test_progress_counts_the_trainings_of_the_table(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def watch(name: str, done: int, total: int) -> Watch:
        told.append((done, total))
        return Watch()

    runner = runner_for(tmp_path, Notes())
    runner.run(table(cell("a", tiny()), cell("b", tiny("rigl"))), watch)
    runner.run(table(cell("a", tiny()), cell("b", tiny("set"))), watch)

    assert told == [(0, 2), (1, 2), (1, 2)]


@pytest.fixture
def data() -> Data:
    settings = tiny().recipe.data
    return load_data(settings.name, **settings.settings)


def counting(epochs: list[int], stop: Callable[[int], bool] = lambda epoch: False) -> Watch:
    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch.epoch)
        if stop(epoch.epoch):
            raise KeyboardInterrupt

    return Watch(on_epoch=on_epoch)


def test_an_interrupted_training_continues_and_a_finished_one_is_left_alone(tmp_path: Path, data: Data) -> None:
    recipe, epochs = tiny().recipe, list[int]()
    broken, whole = Run(tmp_path / "broken"), Run(tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        finish(recipe, broken, device="cpu", data=data, watch=counting(epochs, lambda epoch: epoch == 1))
    before = running.seconds(broken)
    for _ in range(2):
        finish(recipe, broken, device="cpu", data=data, watch=counting(epochs))
    finish(recipe, whole, device="cpu", data=data, watch=Watch())

    assert epochs == [1, 2, 3]
    ours, theirs = (checkpoint.read(run.checkpoint)["state_dict"] for run in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    after = running.seconds(broken)
    assert before is not None
    assert after is not None
    assert after > before > 0
