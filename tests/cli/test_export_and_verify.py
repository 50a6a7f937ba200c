"""export in other precisions, with preprocessing, compressed; export --list; verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Chase

from chase.artifact import Artifact
from chase.exporters import EXPORTERS


def test_the_list_shows_every_format_and_what_is_missing(
    chase: Chase, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = chase("export", "--list", "--json")

    formats = json.loads(out)["formats"]
    assert code == 0
    assert formats.keys() == EXPORTERS.keys()
    assert formats["onnx"]["missing"] is None
    assert formats["onnx"]["runtimes"]["onnxruntime"] is None
    assert "chase-sparse[tensorrt]" in formats["tensorrt"]["missing"]
    assert formats["tensorrt"]["runtimes"]["tensorrt"] is not None
    assert formats["onnx"]["settings"]["opset"] is None


def test_the_list_is_two_tables_for_people_and_shows_defaults_as_they_are_given(chase: Chase, empty: Path) -> None:
    code, out, err = chase("export", "--list")

    assert code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.partition("settings")[0].splitlines() if line}
    assert rows.keys() >= EXPORTERS.keys()
    assert rows["torchscript"] == "*.ts fp32, fp16, bf16 ✓ torchscript"
    assert rows["tensorrt"].endswith("✗ –")
    assert "batch_sizes=1:8:32, tf32=false, workspace_mb=," in out
    assert "chase doctor" in err


def test_several_formats_share_the_settings_that_they_have(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase("export", "--format", "onnx,torchscript", "--opset", "21", "--json")

    paths = [Path(path) for path in json.loads(out)["artifacts"]]
    assert code == 0
    assert [Artifact.load(path).opset for path in paths] == [21, None]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_reduced_precision_is_named_in_the_file_and_measured(chase: Chase, workspace: Path, precision: str) -> None:
    code, _, err = chase("export", "--precision", precision, "--images", "32")

    artifact = Artifact.load(workspace / f"runs/tiny/model.{precision}.onnx")
    assert code == 0, err
    assert artifact.precision == precision
    assert artifact.parity["snr_db"] >= artifact.parity["gate"]["snr_db"]
    assert "signal-to-noise" in err
    assert chase("verify", f"runs/tiny/model.{precision}.onnx")[0] == 0


def test_bf16_says_that_the_file_itself_could_not_run(chase: Chase, workspace: Path) -> None:
    code, _, err = chase("export", "--precision", "bf16")

    assert code == 0, err
    assert "this is the parity of its module, the file was not run" in err
    assert Artifact.load(workspace / "runs/tiny/model.bf16.onnx").parity["because"]


def test_a_file_with_preprocessing_is_as_accurate_and_can_be_measured(chase: Chase, workspace: Path) -> None:
    assert chase("export", "--preprocessing", "--out", "runs/tiny/bytes.onnx")[0] == 0

    scores = [json.loads(chase("eval", f"runs/tiny/{name}", "--json")[1])["accuracy"] for name in NAMES]
    assert scores[0] == scores[1]
    code, out, err = chase("bench", "runs/tiny/bytes.onnx", "--batch-size", "2", "--seconds", "0.05", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["accuracy"] == scores[0]


NAMES = ("bytes.onnx", "model.onnx")


def test_verify_repeats_the_certificate(chase: Chase, workspace: Path) -> None:
    code, out, err = chase("verify", "runs/tiny/model.onnx", "--json")

    found = json.loads(out)
    assert code == 0, err
    assert found["parity"]["max_rel"] <= 1e-5
    assert (found["against"], found["device"]) == ("runs/tiny/slim.pt", "cpu")


def test_verify_on_more_images_of_the_test_set(chase: Chase, workspace: Path) -> None:
    code, out, err = chase("verify", "runs/tiny/model.onnx", "--data", "synthetic", "--images", "40", "--json")

    assert code == 0, err
    assert json.loads(out)["parity"]["samples"] == 40


def test_verify_refuses_a_stale_file(chase: Chase, workspace: Path) -> None:
    assert chase("slim", "--round-to", "16")[0] == 0

    code, _, err = chase("verify", "runs/tiny/model.onnx")

    assert code == 3
    assert "model.onnx was made from" in err
    assert (workspace / "runs/tiny/model.onnx").is_file()


def test_verify_refuses_a_changed_file(chase: Chase, workspace: Path) -> None:
    path = workspace / "runs/tiny/model.ts"
    path.write_bytes(path.read_bytes() + b" ")

    code, _, err = chase("verify", str(path))

    assert code == 3
    assert "its SHA-256 has changed" in err
