"""Artifacts: the facts beside an exported file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chase.artifact import Artifact, to_levels
from chase.errors import CheckpointError
from chase.files import sha256


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    saved = artifact(tmp_path)
    saved.save()
    saved.path.unlink()

    with pytest.raises(CheckpointError, match="no such file: .*/model.onnx; make it with `chase export`"):
        Artifact.load(saved.path)


def test_a_file_without_its_description_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    saved = artifact(tmp_path)

    with pytest.raises(CheckpointError, match="/model.onnx is no exported file of Chase, or lost its description"):
        Artifact.load(saved.path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input_shape", "abc", "input_shape: input should be a valid tuple"),
        ("input_shape", [3, "x", 8], "input_shape: input should be a valid integer"),
        ("macs", None, "macs: input should be a valid dictionary"),
        ("preprocessing", "perhaps", "preprocessing: input should be a valid boolean"),
    ],
)
def test_a_fact_of_the_wrong_kind_is_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    saved = artifact(tmp_path)
    saved.save()
    saved.sidecar.write_text(json.dumps(json.loads(saved.sidecar.read_text()) | {field: value}))

    with pytest.raises(CheckpointError, match=message):
        Artifact.load(saved.path)


@pytest.mark.parametrize("text", ["{", "[]", "3", json.dumps({"path": "a"}), json.dumps({"size": 3}), "\x00"])
def test_a_sidecar_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    saved = artifact(tmp_path)
    saved.sidecar.write_text(text)

    with pytest.raises(CheckpointError, match="model.onnx.json is not an artifact's description .*; export again"):
        Artifact.load(saved.path)


def test_a_file_that_lost_one_that_belongs_to_it_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    saved = replace(artifact(tmp_path), files=("model.bin",))
    saved = replace(saved, sha256=saved.fingerprint())
    assert saved.is_whole()

    (tmp_path / "model.bin").unlink()

    assert not saved.is_whole()


def test_the_size_counts_every_file_that_belongs_to_it(tmp_path: Path) -> None:
    saved = artifact(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"1234567")
    (tmp_path / "folder" / "1").mkdir(parents=True)
    (tmp_path / "folder" / "1" / "model").write_bytes(b"123")

    assert saved.size_bytes == 5
    assert replace(saved, files=("model.bin",)).size_bytes == 12
    assert replace(saved, path=tmp_path / "folder").size_bytes == 3


def test_a_changed_file_is_not_whole(tmp_path: Path) -> None:
    saved = replace(artifact(tmp_path), sha256=sha256(tmp_path / "model.onnx"))

    assert saved.is_whole()
    saved.path.write_bytes(b"grape")
    assert not saved.is_whole()


def test_images_go_in_as_they_are_or_as_the_bytes_they_were(tmp_path: Path) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    saved = artifact(tmp_path)
    images = (levels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.2

    assert saved.encode(images) is images
    assert torch.equal(replace(saved, preprocessing=True).encode(images), levels)
    assert torch.equal(to_levels(levels.permute(0, 3, 1, 2) / 255, (), ()), levels)
    assert to_levels(torch.tensor([[[[2.0, -1.0]]]]), (), ()).flatten().tolist() == [255, 0]
