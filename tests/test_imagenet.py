"""The ImageNet recipe from end to end, on a made-up tree of a few hundred JPEGs and a network of its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jpegs import encoded, shard, tinted

from chase.checkpoint import load_network
from chase.cli import main
from chase.data import load_data
from chase.exporters import verification
from chase.exporters.child import answers

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CLASSES = ("n01440764", "n01443537", "n01484850", "n02002556")
SMALLER = ["--model", "vgg8", "--epochs", "4", "--seed", "1"]
SETTINGS = ["model.width=0.25", "data.batch_size=25", "data.size=32", "data.workers=1", "schedule.warmup_epochs=1"]
METHOD = ["method.update_every=4", "method.channel_every=4", "optimizer.lr=0.05"]
OPTIONS = [*SMALLER, *(part for setting in (*SETTINGS, *METHOD) for part in ("-o", setting))]


def content(number: int, index: int) -> bytes:
    """An image of class `number`; some are grey, some in CMYK, as in ImageNet."""
    image = tinted(number, len(CLASSES), 72, seed=100 * number + index)
    return encoded(image.convert({3: "L", 7: "CMYK"}.get(index % 16, "RGB")))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images to train on; validation has none of the third class."""
    root = tmp_path_factory.mktemp("imagenet")
    for part, count in (("train", 50), ("val", 10)):
        for number, name in enumerate(CLASSES):
            if (part, number) != ("val", 2):
                (root / part / name).mkdir(parents=True)
                for index in range(count):
                    (root / part / name / f"{index}.JPEG").write_bytes(content(number, index + 5 * (part == "val")))
    return root


def chase(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    return int(str(stop.value.code))


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all commands after each other leave of it."""
    folder = tmp_path_factory.mktemp("work")
    here: dict[str, Any] = {"isolated": False}  # a fresh process, with tests of its own, would take seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "answers", lambda *args, **options: answers(*args, **(options | here)))
        patch.chdir(folder)
        assert chase("train", "--recipe", "imagenet-resnet50", "--data", str(tree), *OPTIONS, "--quiet") == 0
        assert chase("slim", "--quiet") == 0
        assert chase("export", "--format", "onnx", "--quiet") == 0
    return folder / "runs/imagenet-resnet50"


def test_the_slim_network_has_learned_and_meets_both_sparsities(run: Path) -> None:
    facts = load_network(run / "slim.pt").facts

    assert facts["test_accuracy"] > 50  # chance is a third, since validation lacks a class
    assert facts["channel_sparsity"] == pytest.approx(0.4, abs=0.01)
    assert facts["sparsity"] == pytest.approx(0.9, abs=0.001)
    assert load_network(run / "slim.pt").input.classes == CLASSES


def test_the_exported_file_is_evaluated_on_the_centre_of_every_validation_image(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chase("eval", str(run / "model.onnx"), "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["accuracy"]) == (30, load_network(run / "slim.pt").facts["test_accuracy"])


def test_a_missing_class_does_not_shift_the_others(tree: Path) -> None:
    labels = load_data(str(tree)).test.labels

    assert labels.bincount(minlength=4).tolist() == [10, 10, 0, 10]


def test_shards_of_the_same_images_train_the_same_network(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset")
    for part, split in (("train", load_data(str(tree)).train), ("val", load_data(str(tree)).test)):
        files: Any = split
        members = {
            f"{index:04d}.{suffix}": value
            for index, (path, label) in enumerate(zip(files.source.paths, files.labels.tolist(), strict=True))
            for suffix, value in (("jpg", Path(path).read_bytes()), ("cls", str(label).encode()))
        }
        shard(tmp_path / f"shards/{part}-0.tar", members)
    (tmp_path / "shards/classes.txt").write_text("\n".join(CLASSES))
    monkeypatch.chdir(tmp_path)

    here, there = (load_data(str(place), size=32, workers=0) for place in (tree, tmp_path / "shards"))

    assert here.classes == there.classes
    for (x, y), (x_shard, y_shard) in zip(here.train.batches(50), there.train.batches(50), strict=True):
        assert torch.equal(x, x_shard)
        assert torch.equal(y, y_shard)
    assert (
        chase("train", "--recipe", "imagenet-resnet50", "--data", "shards", *OPTIONS, "--epochs", "1", "--quiet") == 0
    )
    assert load_network(Path("runs/imagenet-resnet50/checkpoint.pt")).input.classes == CLASSES


def test_a_corrupt_jpeg_is_one_clear_error_that_names_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for name in CLASSES[:2]:
            (tmp_path / part / name).symlink_to(tree / part / name)
    (tmp_path / "train" / CLASSES[0]).unlink()
    (tmp_path / "train" / CLASSES[0]).mkdir()
    for index in range(50):
        whole = content(0, index)
        broken = whole[: len(whole) // 2] if index == 30 else whole
        (tmp_path / "train" / CLASSES[0] / f"{index}.JPEG").write_bytes(broken)
    monkeypatch.chdir(tmp_path)

    assert chase("train", "--recipe", "imagenet-resnet50", "--data", str(tmp_path), *OPTIONS) == 2

    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"chase: cannot read the image {tmp_path}/train/{CLASSES[0]}/30.JPEG: ")
    assert message.endswith("; remove or replace it")
