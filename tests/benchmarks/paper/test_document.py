"""The document of a table: means and deviations over seeds, reasons, and how it reads in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chase.benchmarks.paper.document import document, grid, markdown, remarks
from chase.benchmarks.paper.published import Published
from chase.benchmarks.paper.runner import Runner
from chase.benchmarks.paper.scales import Scale, same
from chase.benchmarks.paper.table import Cell, Inapplicable, Measure, Table, Training
from chase.data import Data
from chase.recipe import Recipe
from chase.run import Run
from chase.training import Watch

SEED = Measure("seed", lambda trained: float(trained.recipe.training.seed), 1)
RECIPE = {
    "model": {"name": "vgg8"},
    "data": {"name": "synthetic", "shape": [1, 8, 8], "train": 40, "test": 8, "classes": 2},
    "method": {"name": "rigl"},
}


def training(method: str) -> Training:
    return Training(recipe=Recipe.from_dict({**RECIPE, "method": {"name": method}}))


def absent(trained: Any) -> float:
    raise Inapplicable("no such layer")


def train(recipe: Recipe, run: Run, *, device: str, data: Data, watch: Watch) -> None:
    if recipe.method.name == "set":
        raise RuntimeError("boom")


TABLE = Table(
    title="Table 0: seeds",
    cells=(
        Cell(row="RigL", column="one", training=training("rigl"), measure=SEED, paper=Published(4.0, 0.25)),
        Cell(row="RigL", column="two", training=training("rigl"), measure=Measure("none", absent)),
        Cell(row="SET", column="one", training=training("set"), measure=SEED, paper=Published(None, None, "garbled")),
        Cell(row="counted", column="two", training=None, measure=Measure("n", lambda _: 0.125, 3)),
    ),
    notes=("A note.",),
)


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("chase.benchmarks.paper.document._facts", lambda trained: {"seconds": 1.0})
    scale = Scale(about="", models={"vgg8": same("mlp", hidden=[4])}, seeds=(1, 2, 6))
    runner = Runner(scale, tmp_path, device="cpu", trainer=train)
    return document("table0", TABLE, runner, runner.run(TABLE), scale="tiny", command=["chase", "paper"])


def test_a_document_is_json_with_environment_and_command(content: dict[str, Any]) -> None:
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["environment"]["torch"]
    assert content["command"] == ["chase", "paper"]
    assert (content["table"], content["scale"], content["columns"]) == ("table0", "tiny", ["one", "two"])


def test_mean_and_deviation_are_over_the_seeds(content: dict[str, Any]) -> None:
    cell = content["rows"][0]["cells"]["one"]

    assert cell["seeds"] == {"1": 1.0, "2": 2.0, "6": 6.0}
    assert (cell["mean"], cell["std"]) == (3.0, pytest.approx(7**0.5))  # ((-2)² + (-1)² + 3²) / 2
    assert cell["paper"] == {"mean": 4.0, "std": 0.25, "remark": ""}
    assert len(set(cell["trainings"])) == 3


def test_of_one_number_there_is_no_deviation(content: dict[str, Any]) -> None:
    cell = content["rows"][2]["cells"]["two"]

    assert (cell["mean"], cell["std"], cell["trainings"]) == (0.125, None, [])


def test_what_failed_says_so_and_has_no_training(content: dict[str, Any]) -> None:
    cell = content["rows"][1]["cells"]["one"]

    assert (cell["failed"], cell["reason"], cell["mean"]) == (True, "RuntimeError: boom", None)
    assert set(content["trainings"]) == set(content["rows"][0]["cells"]["one"]["trainings"])


def test_what_differs_from_the_paper_is_in_the_document(content: dict[str, Any]) -> None:
    assert content["differs"] == {"model.name": [["vgg8", "mlp"]], "model.hidden": [[None, [4]]]}


def test_ours_stands_beside_the_papers(content: dict[str, Any]) -> None:
    columns, rows = grid(content)

    assert columns == ["", "one", "two"]
    assert rows == [["RigL", "3.0 ± 2.6 (4.0 ± 0.2)", "–"], ["SET", "failed", ""], ["counted", "", "0.125"]]


def test_remarks_say_how_to_read_the_table_and_what_is_missing(content: dict[str, Any]) -> None:
    assert remarks(content) == [
        "Ours, at scale tiny, 3 seeds; in brackets the paper's.",
        "Differs from the paper: model.name is mlp for vgg8.",
        "Differs from the paper: model.hidden is [4] for None.",
        "RigL, two: no such layer",
        "SET, one: RuntimeError: boom",
        "SET, one: the paper's number: garbled",
        "A note.",
    ]


def test_markdown_has_the_table_the_remarks_and_the_command(content: dict[str, Any]) -> None:
    lines = markdown(content).splitlines()

    assert lines[0] == "## Table 0: seeds"
    assert lines[2:5] == ["|  | one | two |", "|---|--:|--:|", "| RigL | 3.0 ± 2.6 (4.0 ± 0.2) | – |"]
    assert "- RigL, two: no such layer" in lines
    assert lines[-1].startswith("- `chase paper` on ")
