"""slim, export, bench, run, inspect, eval, recipes and doctor on a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Chase

from chase.artifact import Artifact
from chase.checkpoint import load_model
from chase.data import Data, load_data


def test_slim_proves_itself_and_keeps_to_the_grid(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase("slim", "runs/tiny/checkpoint.pt", "--json")

    facts = json.loads(out)
    assert code == 0
    assert facts["certificate"]["max_rel"] <= 1e-10
    assert set(facts["certificate"]["errors"]) == {"random", "other_size", "real"}
    assert all(after % 8 == 0 for _, after in facts["widths"].values())
    assert facts["channel_sparsity"] == 0.5
    assert facts["macs"]["theoretical"] < facts["macs"]["gpu_supported"] < facts["macs"]["dense"]


def test_a_wider_grid_rounds_up(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase("slim", "--round-to", "16", "--out", "wide.pt", "--json")

    assert code == 0
    assert all(after % 16 == 0 or after == before for before, after in json.loads(out)["widths"].values())


def test_slim_says_so_where_no_channel_leaves(chase: Chase, workspace: Path) -> None:
    code, out, err = chase("slim", "--round-to", "1000", "--out", "wide.pt")

    assert (code, out) == (0, "")
    assert "no channel leaves: none is dead, or --round-to keeps it" in err


def test_exports_describe_themselves(workspace: Path) -> None:
    artifact = Artifact.load(workspace / "runs/tiny/model.onnx")
    manifest = json.loads((workspace / "runs/tiny/manifest.json").read_text())

    assert (artifact.format, artifact.kind, artifact.input_shape) == ("onnx", "slim", (1, 8, 8))
    assert artifact.parent_sha256 == manifest["slim.pt"]["sha256"]
    assert artifact.parity["max_rel"] <= artifact.parity["gate"]["max_rel"]
    assert manifest["model.onnx"]["parents"] == {"slim.pt": artifact.parent_sha256}


def test_bench_measures_the_run_beside_an_untrained_dense_twin(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase("bench", "--batch-size", "2", "--seconds", "0.05", "--json")

    rows = {row["artifact"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert rows.keys() == {f"{kind} {name}" for kind, name in NAMES}
    assert all(row["batch_size"] == 2 for row in rows.values())
    assert rows["slim model.onnx"]["speedup_vs_dense"]["verdict"] in ("faster", "slower", "no difference")
    assert rows["dense model.onnx"]["speedup_vs_dense"] is None
    assert rows["slim model.onnx"]["accuracy"] == rows["slim slim.pt"]["accuracy"] is not None
    assert rows["dense dense.pt"]["accuracy"] is None
    assert "untrained" in rows["dense dense.pt"]["accuracy_reason"]
    assert json.loads((workspace / "runs/tiny/bench.json").read_text()) == json.loads(out)


NAMES = [(k, n) for k in ("slim", "dense") for n in (f"{k}.pt", "model.onnx", "model.ts")]


def test_bench_of_named_files_shows_a_table(chase: Chase, workspace: Path) -> None:
    paths = ["runs/tiny/model.onnx", "runs/tiny/model.ts"]

    code, out, _ = chase("bench", *paths, "--batch-size", "1", "--seconds", "0.05", "--out", "b.json")

    assert code == 0
    assert all(path in out for path in paths)
    assert len(json.loads(Path("b.json").read_text())["rows"]) == 2


def test_bench_without_data_says_why_there_is_no_accuracy(
    chase: Chase, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chase.errors import DataError

    def gone(*args: object, **settings: object) -> None:
        raise DataError("the images are gone")

    monkeypatch.setattr("chase.data.catalog.load_data", gone)

    code, _, err = chase("bench", "runs/tiny/model.onnx", "--batch-size", "1", "--seconds", "0.05")

    assert code == 0
    assert "accuracy is not measured: the images are gone" in err


def test_bench_leaves_out_what_cannot_run_here_and_says_so(
    chase: Chase, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chase.errors import MissingDependency
    from chase.runtimes.onnxruntime import OnnxRuntime

    def absent(*args: object, **settings: object) -> None:
        raise MissingDependency("there is no such provider")

    monkeypatch.setattr(OnnxRuntime, "__init__", absent)

    code, out, err = chase("bench", "--against", "none", "--batch-size", "1", "--seconds", "0.05", "--json")

    assert code == 0
    assert "slim model.onnx is not measured: there is no such provider" in err
    assert [row["artifact"] for row in json.loads(out)["rows"]] == ["slim slim.pt", "slim model.ts"]


def test_run_does_every_stage_once(chase: Chase, empty: Path) -> None:
    short = ["--batch-size", "1", "--seconds", "0.05"]
    recipe = ["run", "--recipe", "tiny.yaml", "-o", "training.dense_twin=true", *short]
    code, out, _ = chase(*recipe, "--json")
    first = json.loads(out)
    stamps = {path: path.stat().st_mtime_ns for path in empty.glob("runs/**/*.*") if path.name != "report.html"}
    page = (empty / "runs/tiny/report.html").read_bytes()

    again, shown, err = chase(*recipe)

    assert (code, again) == (0, 0)
    assert first["slim"]["channel_sparsity"] == 0.5
    assert first["dense"]["test_accuracy"] is not None
    assert {row["artifact"] for row in first["bench"]["rows"]} == {f"{kind} {name}" for kind, name in NAMES}
    assert err.count("is up to date") == 3
    assert "dense against slim" in shown
    (costs,) = (line.split() for line in shown.splitlines() if "training MACs, theoretical" in line)
    assert "1.000×" in costs
    assert f"{first['slim']['training_macs']['theoretical'] / first['slim']['training_macs']['dense']:.3f}×" in costs
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert (empty / "runs/tiny/report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("model", "parameters", "macs"),
    [
        ("resnet50", 25_557_032, 4_089_184_256),
        ("vgg19", 20_040_522, 398_136_320),
        ("cifar-resnet20", 272_474, 40_813_184),
    ],
)
def test_inspect_counts_a_model_by_name(chase: Chase, model: str, parameters: int, macs: int) -> None:
    code, out, _ = chase("inspect", model, "--json")

    assert code == 0
    assert (json.loads(out)["parameters"], json.loads(out)["macs"]["dense"]) == (parameters, macs)


def test_inspect_says_why_a_channel_stays(chase: Chase) -> None:
    code, out, _ = chase("inspect", "cifar-resnet20")

    assert code == 0
    assert "meets a skip connection; use prune_skip" in out
    assert "may leave" in out


def test_inspect_shows_files(chase: Chase, workspace: Path) -> None:
    slim = json.loads(chase("inspect", "runs/tiny/slim.pt", "--json")[1])
    onnx = json.loads(chase("inspect", "runs/tiny/model.onnx", "--json")[1])
    stored = sum(parameter.numel() for parameter in load_model("runs/tiny/slim.pt").parameters())

    assert slim["parameters"] == slim["params"]["stored"] == onnx["params"]["stored"] == stored
    assert slim["certificate"]["tolerance"] == 1e-10
    assert "max_rel" in chase("inspect", "runs/tiny/model.onnx")[1]


@pytest.mark.parametrize("name", ["checkpoint.pt", "slim.pt", "model.onnx", "model.ts"])
def test_every_form_of_the_network_has_the_same_accuracy(chase: Chase, workspace: Path, name: str) -> None:
    code, out, _ = chase("eval", f"runs/tiny/{name}", "--json")
    expected = json.loads((workspace / "runs/tiny/metrics.jsonl").read_text().splitlines()[-1])

    assert (code, json.loads(out)["images"]) == (0, 64)
    assert expected["epoch"] == 3
    assert (
        json.loads(out)["accuracy"] == json.loads(chase("inspect", "runs/tiny/slim.pt", "--json")[1])["test_accuracy"]
    )


def save_npz(path: str, data: Data, classes: tuple[str, ...]) -> None:
    """The test images of `data` beside training images of one grey, whose mean and std are other ones."""
    images, labels = next(data.test.batches(len(data.test)))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    pixels = ((images * std + mean) * 255).round().to(torch.uint8).numpy()
    grey = np.full((8, *pixels.shape[1:]), 3, dtype=np.uint8)
    grey[0] = 250
    names, nothing, answers = np.array(classes), np.zeros(8, int), labels.numpy()
    np.savez(path, classes=names, x_train=grey, y_train=nothing, x_test=pixels, y_test=answers)


def test_other_images_are_normalised_as_the_network_expects(chase: Chase, workspace: Path) -> None:
    data = load_data("synthetic", shape=[1, 8, 8], train=192, test=64)
    save_npz("same.npz", data, data.classes)
    assert load_data("same.npz").mean != data.mean
    expected = json.loads(chase("eval", "runs/tiny/model.onnx", "--json")[1])

    found = json.loads(chase("eval", "runs/tiny/model.onnx", "--data", "same.npz", "--json")[1])

    assert found == expected


def test_images_of_other_classes_are_refused(chase: Chase, workspace: Path) -> None:
    data = load_data("synthetic", shape=[1, 8, 8], train=192, test=64)
    save_npz("other.npz", data, tuple(f"other {name}" for name in data.classes))

    code, _, err = chase("eval", "runs/tiny/slim.pt", "--data", "other.npz")

    assert code == 2
    assert "other.npz has other classes" in err


def test_recipes_are_listed_and_shown(chase: Chase) -> None:
    assert "imagenet-resnet50" in chase("recipes")[1]
    assert "channel_every: 8000" in chase("recipes", "cifar100-vgg19")[1]
    assert "rigl" in chase("recipes", "methods")[1]
    assert json.loads(chase("recipes", "models", "--json")[1])["models"][0] == "cifar-resnet18"
    assert "torchvision:NAME, timm:NAME" in chase("recipes", "models")[2]
    assert "a path" in chase("recipes", "data")[2]
    assert "Evci et al. 2020" in json.loads(chase("recipes", "methods", "--json")[1])["methods"]["rigl"]
    assert "zeros counted" in chase("recipes", "criteria")[1]


def test_doctor_says_what_works(chase: Chase) -> None:
    code, out, _ = chase("doctor", "--json")

    checks = json.loads(out)["checks"]
    assert code == 0
    assert checks["run on"]["onnxruntime"]["ok"]
    assert all(check["ok"] or check["detail"] for stage in checks.values() for check in stage.values())


def test_a_file_that_lost_accuracy_fails_the_gate_and_the_step_is_named(chase: Chase, workspace: Path) -> None:
    sidecar = workspace / "runs/tiny/model.onnx.json"
    facts = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(facts | {"mean": [40.0]}))

    short = ("--batch-size", "1", "--seconds", "0.05", "--max-accuracy-drop", "0.1")
    code, _, err = chase("bench", "runs/tiny/model.onnx", *short)

    assert code == 3
    assert "model.onnx says mean [40.0], its network" in err
    assert Path("bench.json").is_file()
