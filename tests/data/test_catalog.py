"""Data sets by name."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chase.data import DATASETS, Data, load_data
from chase.data.memory import MemorySplit
from chase.errors import DataError, RecipeError, UnknownName


def written(path: Path, content: dict[str, Any]) -> str:
    """Pickle `content` to `path`, as the CIFAR archives do; its md5."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def rows(count: int, first: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`count` images in CIFAR's layout, [count, 3072]; image i is (first + i, first + i + 100, 250)."""
    values = first + np.arange(count)[:, None, None] + 100 * np.arange(2)[None, :, None]
    planes = np.concatenate([values, np.full((count, 1, 1), 250)], axis=1)
    return planes.repeat(1024, axis=2).reshape(count, 3072).astype(np.uint8)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both CIFAR archives on disk with a handful of images, their checksums made known to torchvision."""
    from torchvision.datasets import CIFAR10, CIFAR100

    names10 = {"label_names": [f"class{i}" for i in range(10)]}
    folder = tmp_path / "cifar-10-batches-py"
    train = [
        [f"data_batch_{i}", written(folder / f"data_batch_{i}", {"data": rows(2, 2 * i), "labels": [i, 9]})]
        for i in range(1, 6)
    ]
    test = [["test_batch", written(folder / "test_batch", {"data": rows(3, 0), "labels": [0, 1, 2]})]]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", test)
    monkeypatch.setitem(CIFAR10.meta, "md5", written(folder / "batches.meta", names10))

    names100 = {"fine_label_names": [f"fine{i}" for i in range(100)], "coarse_label_names": ["coarse"]}
    folder = tmp_path / "cifar-100-python"
    labels = {"fine_labels": [99, 0], "coarse_labels": [0, 0]}
    for part in ("train", "test"):
        found = [[part, written(folder / part, {"data": rows(2, 7), **labels})]]
        monkeypatch.setattr(CIFAR100, f"{part}_list", found)
    monkeypatch.setitem(CIFAR100.meta, "md5", written(folder / "meta", names100))
    return tmp_path


def pixels(data: Data) -> torch.Tensor:
    """The top left pixel of each train image, uint8 values [n, channels]."""
    x = torch.cat([x for x, _ in data.train.batches(64)])[:, :, 0, 0]
    return (x * torch.tensor(data.std) + torch.tensor(data.mean)).mul(255).round()


def test_digits_are_1797_grey_images_split_in_a_fixed_way() -> None:
    data, again = load_data("digits"), load_data("digits")

    assert (len(data.train), len(data.test)) == (1438, 359)
    assert (data.input_shape, data.classes) == ((1, 8, 8), tuple("0123456789"))
    assert data.test.labels.bincount().min() >= 34
    assert torch.equal(next(data.test.batches(8))[0], next(again.test.batches(8))[0])
    assert set(pixels(data).flatten().tolist()) <= {round(255 / 16 * value) for value in range(17)}


def test_digits_are_cropped_with_one_pixel_and_never_flipped() -> None:
    train = load_data("digits").train

    assert isinstance(train, MemorySplit)
    assert (train.augmentation.pad, train.augmentation.flip) == (1, False)


def test_cifar10_is_read_from_torchvisions_files(cifar: Path) -> None:
    data = load_data("cifar10", root=str(cifar))

    assert (len(data.train), len(data.test), data.input_shape) == (10, 3, (3, 32, 32))
    assert data.classes[:2] == ("class0", "class1")
    assert data.train.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert pixels(data)[:3].tolist() == [[2, 102, 250], [3, 103, 250], [4, 104, 250]]
    assert (data.mean, data.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert isinstance(data.train, MemorySplit)
    assert (data.train.augmentation.pad, data.train.augmentation.padding_mode) == (4, "reflect")


def test_cifar100_has_its_fine_classes_and_is_found_through_the_environment(
    cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHASE_DATA", str(cifar))
    data = load_data("cifar100", pad=3)

    assert data.classes[99] == "fine99"
    assert data.test.labels.tolist() == [99, 0]
    assert (data.mean, data.std) == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    assert isinstance(data.train, MemorySplit)
    assert (data.train.augmentation.pad, data.train.augmentation.padding_mode) == (3, "zero")


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_missing_cifar_says_how_to_download_it(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(name, root=str(tmp_path))

    assert str(caught.value) == (
        f"no intact {kind} in '{tmp_path}'; download it with "
        f"torchvision.datasets.{kind}('{tmp_path}', download=True), or set root or CHASE_DATA"
    )


def test_cifar_lies_in_data_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHASE_DATA", raising=False)

    with pytest.raises(DataError, match="no intact CIFAR10 in 'data'"):
        load_data("cifar10")


def test_synthetic_data_follow_from_their_seed() -> None:
    first, again, other = (load_data("synthetic", classes=3, shape=[1, 4, 5], seed=seed) for seed in (1, 1, 2))

    assert (first.input_shape, len(first.classes), len(first.train), len(first.test)) == (
        (1, 4, 5),
        3,
        512,
        128,
    )
    assert torch.equal(pixels(first), pixels(again))
    assert not torch.equal(pixels(first), pixels(other))
    assert set(first.train.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    "settings", [{"classes": 0}, {"train": -1}, {"test": 1.5}, {"shape": (3, 32)}, {"shape": (3, 0, 32)}]
)
def test_impossible_synthetic_data_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="synthetic data needs positive numbers and a shape"):
        load_data("synthetic", **settings)


def test_an_unknown_data_set_gets_a_hint() -> None:
    with pytest.raises(UnknownName, match="no dataset named 'cifar-10'; did you mean 'cifar10'"):
        load_data("cifar-10")


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("digits", "paad", "data 'digits' has no setting 'paad'; did you mean 'pad'"),
        ("synthetic", "clases", "did you mean 'classes'"),
        ("digits", "root", "data 'digits' has no setting 'root'"),
    ],
)
def test_an_unknown_setting_is_named(name: str, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_data(name, **{setting: "1"})


def test_a_path_takes_no_root() -> None:
    with pytest.raises(RecipeError, match="data 'my/images' is a path already; leave root 'x' out"):
        load_data("my/images", root="x")


def test_an_existing_folder_is_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()

    with pytest.raises(DataError, match="no folder images/train"):
        load_data("images")


def test_a_loader_of_ones_own_may_take_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(**settings: Any) -> Data:
        return load_data("synthetic", **settings)

    monkeypatch.setitem(DATASETS, "mine", mine)

    assert len(load_data("mine", train=4, test=2).train) == 4


def test_importing_the_package_loads_no_torchvision_and_no_sklearn() -> None:
    code = "import sys, chase.data; sys.exit(bool({'torchvision', 'sklearn'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
