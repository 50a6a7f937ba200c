"""chase paper: what it writes and shows, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Chase

from chase.benchmarks.paper import TABLES
from chase.recipe import Recipe
from chase.run import Run

ONE = ("paper", "table5", "--only", "VGG-19: RigL | accuracy")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHASE_DATA", str(tmp_path / "none"))
    return tmp_path


def test_a_table_is_shown_and_kept_as_json_and_markdown(chase: Chase, here: Path) -> None:
    code, out, err = chase(*ONE)

    assert code == 0, err
    assert "(72.92 ± 0.31)" in out
    assert "training 1 of 1: vgg8-rigl-" in err
    assert "Differs from the paper: model.name is vgg8 for vgg19." in err
    content = json.loads((here / "runs/paper/smoke/table5.json").read_text())
    (training,) = content["trainings"].values()
    assert training["seconds"] > 0
    assert training["test_accuracy"] == content["rows"][0]["cells"]["accuracy"]["mean"]
    assert (here / "runs/paper/smoke/table5.md").read_text().startswith("## Table 5")


def test_what_is_finished_is_not_repeated(chase: Chase, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (json.loads(chase(*ONE, "--json", "--out", "out")[1])["tables"]["table5"] for _ in range(2))
    assert first["rows"] == second["rows"]
    assert first["trainings"] == second["trainings"]

    _fail(monkeypatch)
    code, _, err = chase(*ONE, "--out", "out")
    assert code == 0, err


def _fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(recipe: Recipe, run: Run, **options: object) -> Path:
        raise RuntimeError("no memory left")

    monkeypatch.setattr("chase.benchmarks.paper.runner.train", fails)


def test_cells_of_several_patterns(chase: Chase) -> None:
    code, out, err = chase("paper", "improvements", "--list", "--only", "vgg*l1*accuracy", "--only", "resnet*regrowth")

    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith(("VGG", "ResNet"))]
    assert len(lines) == 5
    assert sum("VGG-19: Dense, pruned by l1, fine-tuned" in line for line in lines) == 1
    assert sum("ResNet-50: Chase, channel_regrowth = 0.2" in line for line in lines) == 4


def test_a_failure_is_exit_code_1_after_everything_is_written(
    chase: Chase, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(monkeypatch)
    code, out, err = chase("paper", "table15", "--only", "MACs", "--json", "--out", "out")

    assert code == 1
    cells = {row["row"]: row["cells"] for row in json.loads(out)["tables"]["table15"]["rows"]}
    assert cells["as printed"]["executed MACs"]["mean"] == pytest.approx(0.6777, abs=5e-5)
    assert cells["all layers"]["executed MACs"]["reason"] == "RuntimeError: no memory left"
    assert "3 cells failed, all others are done; the first: table15, all layers, theoretical MACs: Runtime" in err
    assert json.loads((here / "out/table15.json").read_text()) == json.loads(out)["tables"]["table15"]


def test_data_that_is_not_here_is_named_and_is_no_failure(chase: Chase) -> None:
    code, out, err = chase("paper", "table4", "--scale", "full", "--seed", "1", "--only", "RigL | 90 % accuracy")

    assert code == 0, err
    assert "– (73.00 ± 0.04)" in out
    assert "RigL, 90 % accuracy: no such folder" in err or "imagenet" in err


def test_seeds_epochs_and_data_can_be_named(chase: Chase) -> None:
    options = ("--seed", "3", "--seed", "5", "--epochs", "1", "--data", "digits", "--json")
    code, out, err = chase(*ONE, *options)

    assert code == 0, err
    content = json.loads(out)["tables"]["table5"]
    assert set(content["rows"][0]["cells"]["accuracy"]["seeds"]) == {"3", "5"}
    assert content["rows"][0]["cells"]["accuracy"]["std"] is not None
    assert content["differs"]["training.epochs"] == [[160, 1]]
    assert content["differs"]["data.name"] == [["cifar100", "digits"]]


def test_the_list_names_every_table_without_training(chase: Chase, here: Path) -> None:
    code, out, _ = chase("paper", "--list", "--json")

    assert code == 0
    tables = json.loads(out)["tables"]
    assert list(tables) == list(TABLES)
    assert len(tables["table3"]["trainings"]) < tables["table3"]["cells"]
    assert not (here / "runs").exists()


def test_the_list_of_one_table_names_its_cells(chase: Chase) -> None:
    code, out, _ = chase("paper", "figure5", "--list", "--scale", "full")

    assert code == 0
    assert "initial sparsity 0.6" in out
    assert "cifar-resnet18-chase-" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("paper", "tabel3"), "no table named 'tabel3'; did you mean 'table3'?"),
        (("paper", "table3", "--scale", "smal"), "no scale named 'smal'; did you mean 'small'?"),
        (("paper", "table3", "--only", "VGG-91"), "no row or column matches --only 'VGG-91'"),
        (("paper", "table3", "--epochs", "0"), "--epochs must be at least 1, not 0"),
        (("paper", "table3", "--list", "-o", "training.amb=bf16"), "-o: training.amb: no such setting"),
        (("paper", "table3", "--data", "cifar"), "no dataset named 'cifar'; did you mean 'cifar10'?"),
        (("paper", "table3", "--data", "cifar100", "--scale", "full"), "no intact CIFAR100"),
        (("paper", "table3", "--device", "gpu"), "device 'gpu' is not available here"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(chase: Chase, here: Path, arguments: list[str], message: str) -> None:
    code, out, err = chase(*arguments)

    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(here.iterdir())
