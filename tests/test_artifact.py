"""Artifacts: the facts beside an exported file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chase.artifact import Artifact
from chase.errors import CheckpointError


def artifact(folder: Path) -> Artifact:
    path = folder / "model.onnx"
    path.write_bytes(b"graph")
    return Artifact(
        path=path,
        format="onnx",
        precision="fp16",
        input_shape=(3, 8, 8),
        classes=("cat", "dog"),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        parent_sha256="ab",
        parity={"max_abs": 1e-6, "samples": 4},
        macs={"dense": 3},
        opset=18,
    )


def test_the_facts_come_back_as_they_were(tmp_path: Path) -> None:
    saved = artifact(tmp_path)
    saved.save()

    assert saved.sidecar == tmp_path / "model.onnx.json"
    assert Artifact.load(saved.path) == saved
    assert Artifact.load(str(saved.path)) == saved


def test_a_folder_of_artifacts_can_move(tmp_path: Path) -> None:
    artifact(tmp_path).save()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("model.onnx", "model.onnx.json"):
        (tmp_path / name).rename(moved / name)

    assert Artifact.load(moved / "model.onnx").path == moved / "model.onnx"


@pytest.mark.parametrize("missing", ["model.onnx", "model.onnx.json"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    saved = artifact(tmp_path)
    saved.save()
    (tmp_path / missing).unlink()

    with pytest.raises(CheckpointError, match=f"no such file: .*/{missing}; make it with `chase export`"):
        Artifact.load(saved.path)


@pytest.mark.parametrize("text", ["{", "[]", "3", json.dumps({"path": "a"}), json.dumps({"size": 3}), "\x00"])
def test_a_sidecar_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    saved = artifact(tmp_path)
    saved.sidecar.write_text(text)

    with pytest.raises(CheckpointError, match="model.onnx.json is not an artifact's description .*; export again"):
        Artifact.load(saved.path)
