"""Where the numbers of a run are shown."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chase.epoch import Epoch
from chase.errors import MissingDependency, UnknownName
from chase.loggers import LOGGERS, Values, logging, records
from chase.pace import Progress
from chase.recipe import Recipe

RECIPE = Recipe.from_dict({"name": "mine", "data": "digits"})
PROGRESS = Progress(seconds_left=60.0, speedup=1.5, since=1)


def epoch(number: int = 2, **changes: Any) -> Epoch:
    numbers: dict[str, Any] = {
        "epoch": number,
        "step": 10 * number,
        "lr": 0.1,
        "loss": 1.25,
        "validation_accuracy": 50.0,
        "sparsity": 0.5,
        "channel_sparsity": 0.25,
        "macs": {"theoretical": 1, "gpu_supported": 3, "dense": 4},
        "events": [{"step": 10 * number - 4, "channel_sparsity": 0.25}, {"step": 10 * number, "density": 0.5}],
        "images_per_second": 100.0,
        "group_sparsity": {"features.0": 0.5, "features.3": 0.0},
        "executed_macs": 3,
    }
    return Epoch(**{**numbers, **changes})


def test_an_epoch_is_its_events_and_then_its_numbers() -> None:
    assert list(records(epoch(), PROGRESS)) == [
        (16, {"event/channel_sparsity": 0.25}),
        (20, {"event/density": 0.5}),
        (
            20,
            {
                "lr": 0.1,
                "loss": 1.25,
                "validation_accuracy": 50.0,
                "sparsity": 0.5,
                "channel_sparsity": 0.25,
                "macs/theoretical": 1,
                "macs/gpu_supported": 3,
                "macs/dense": 4,
                "images_per_second": 100.0,
                "group_sparsity/features.0": 0.5,
                "group_sparsity/features.3": 0.0,
                "executed_macs": 3,
                "seconds_left": 60.0,
                "step_speedup": 1.5,
            },
        ),
    ]


def test_what_is_not_known_is_left_out() -> None:
    ((_, numbers),) = records(epoch(validation_accuracy=None, events=[]), Progress(None, None, 1))

    assert numbers.keys().isdisjoint({"validation_accuracy", "seconds_left", "step_speedup"})


class Recorder:
    """A logger of one's own."""

    made: list[Recorder]

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe, self.closed = folder, recipe, False
        self.logged: list[tuple[int, Values]] = []
        Recorder.made.append(self)

    def log(self, step: int, values: Values) -> None:
        self.logged.append((step, values))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    monkeypatch.setitem(LOGGERS, "recorder", Recorder)
    Recorder.made = []
    return Recorder.made


def test_every_logger_gets_every_number_and_is_closed_also_after_an_error(made: list[Recorder], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), logging(["recorder", "recorder"], tmp_path, RECIPE) as record:  # noqa: PT012
        record(epoch(), PROGRESS)
        raise ZeroDivisionError

    (logger,) = made  # named twice, it is still one
    assert logger.logged == list(records(epoch(), PROGRESS))
    assert (logger.closed, logger.folder, logger.recipe) == (True, tmp_path, RECIPE)


def test_an_unknown_logger_gets_a_hint(tmp_path: Path) -> None:
    with (
        pytest.raises(UnknownName, match="no logger named 'tensorbord'; did you mean 'tensorboard'"),
        logging(["tensorbord"], tmp_path, RECIPE),
    ):
        pytest.fail("it was made")


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_logger_whose_package_is_missing_says_how_to_get_it(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingDependency, match=rf"--log {name} needs .*; run: pip install 'chase-sparse\[{name}\]'"):
        LOGGERS[name](tmp_path, RECIPE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_logged_and_nothing_that_was_taken_back(tmp_path: Path) -> None:
    accumulator: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with logging(["tensorboard"], tmp_path, RECIPE) as record:
        assert list(tmp_path.iterdir()) == []  # nothing before the first number
        record(epoch(1, loss=3.0), PROGRESS)
        record(epoch(2, loss=2.0), PROGRESS)
    with logging(["tensorboard"], tmp_path, RECIPE) as record:  # resumed from epoch 1
        record(epoch(2, loss=2.5), PROGRESS)

    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()

    assert [(each.step, each.value) for each in events.Scalars("loss")] == [(10, 3.0), (20, 2.5)]
    assert [(each.step, each.value) for each in events.Scalars("event/channel_sparsity")] == [(6, 0.25), (16, 0.25)]
    assert [each.value for each in events.Scalars("group_sparsity/features.0")] == [0.5, 0.5]
    assert "recipe/text_summary" in events.Tags()["tensors"]


def test_wandb_gets_the_recipe_and_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finished")
    )

    def init(**settings: Any) -> SimpleNamespace:
        calls.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)

    for number in (1, 2):
        with logging(["wandb"], tmp_path, RECIPE) as record:
            record(epoch(number, events=[]), PROGRESS)

    first, (step, values), finished, second, *_ = calls
    assert (first["project"], first["name"], first["dir"]) == ("chase", tmp_path.name, str(tmp_path))
    assert first["config"] == RECIPE.to_dict()
    assert (step, values["loss"], finished) == (10, 1.25, "finished")
    assert second["id"] == first["id"]
    assert second["resume"] == "allow"
