"""NumPy archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from chase.data import load_data
from chase.errors import DataError, RecipeError

Arrays = dict[str, NDArray[Any]]


def arrays(shape: tuple[int, ...] = (6, 5, 3)) -> Arrays:
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (4, *shape), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0]),
        "x_test": generator.integers(0, 256, (2, *shape), dtype=np.uint8),
        "y_test": np.array([2, 1], dtype=np.uint8),
    }


def saved(folder: Path, content: Arrays) -> str:
    path = folder / "images.npz"
    np.savez(path, allow_pickle=True, **content)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [((6, 5, 3), (3, 6, 5)), ((3, 6, 5), (3, 6, 5)), ((6, 5), (1, 6, 5)), ((6, 5, 1), (1, 6, 5))],
)
def test_every_layout_becomes_channels_first(
    tmp_path: Path, shape: tuple[int, ...], input_shape: tuple[int, int, int]
) -> None:
    content = arrays(shape)
    data = load_data(saved(tmp_path, content))
    ((x, y),) = data.test.batches(2)
    pixels = x * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)

    expected = content["x_test"].transpose(0, 3, 1, 2) if shape[-1] in (1, 3) else content["x_test"]
    assert data.input_shape == input_shape
    assert np.array_equal(pixels.mul(255).round().numpy(), expected.reshape(2, *input_shape))
    assert (data.classes, y.tolist(), y.dtype) == (("0", "1", "2"), [2, 1], torch.int64)


def test_class_names_come_from_the_archive(tmp_path: Path) -> None:
    path = saved(tmp_path, {**arrays(), "classes": np.array(["ant", "bee", "cat", "dog"])})

    assert load_data("npz", root=path).classes == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((4, 6, 5, 3))}, "x_train is float64; it must be uint8"),
        (
            {"x_test": np.zeros((2, 6, 6, 3), np.uint8)},
            r"x_train has images \[3, 6, 5\] and x_test \[3, 6, 6\]",
        ),
        ({"x_train": np.zeros((4, 6, 5, 9), np.uint8)}, r"x_train has the shape \[4, 6, 5, 9\]; it must be"),
        ({"x_train": np.zeros((4, 6), np.uint8)}, r"x_train has the shape \[4, 6\]; it must be"),
        ({"x_test": np.zeros((0, 6, 5, 3), np.uint8)}, r"x_test has the shape \[0, 6, 5, 3\], which holds no pixel"),
        ({"y_train": np.eye(4)}, r"y_train has the shape \[4, 4\]; x_train has 4 images, and each has one label"),
        ({"y_train": np.array([0, 1])}, r"y_train has the shape \[2\]; x_train has 4 images, and"),
        (
            {"y_train": np.array([0.0, 1, 2, 0])},
            "y_train has 4 labels of type float64; they must be integers",
        ),
        ({"y_train": np.array([], dtype=int)}, r"y_train has the shape \[0\]"),
        ({"y_test": np.array([0.0, 1])}, "y_test is float64; labels must be integers"),
        ({"y_test": np.array([0, 3])}, "y_test has labels from 0 to 3; 3 classes are 0 to 2"),
        ({"y_train": np.array([-1, 1, 2, 0])}, "y_train has labels from -1 to 2"),
        ({"classes": np.array(["ant", "bee"])}, "y_train has labels from 0 to 2; 2 classes are 0 to 1"),
        (
            {"y_test": np.array([None, {}])},
            r"cannot be read as an .npz archive \(Object arrays cannot be loaded",
        ),
    ],
)
def test_a_malformed_archive_says_what_is_wrong(tmp_path: Path, change: Arrays, message: str) -> None:
    path = saved(tmp_path, {**arrays(), **change})

    with pytest.raises(DataError, match=message):
        load_data(path)


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    content = arrays()
    del content["x_test"], content["y_train"]

    with pytest.raises(DataError, match="lacks y_train, x_test; it must hold x_train"):
        load_data(saved(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.npz"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"images.npz cannot be read as an .npz archive \("):
        load_data(str(path))


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))

    with pytest.raises(DataError, match="cannot be read as an .npz archive"):
        load_data(str(path))


def test_a_missing_archive_says_how_to_write_one() -> None:
    with pytest.raises(DataError, match=r"no file nowhere.npz; write one with numpy.savez: x_train \[n, h, w, c\]"):
        load_data("nowhere.npz")


def test_an_archive_needs_a_root() -> None:
    with pytest.raises(RecipeError, match="data 'npz' needs root"):
        load_data("npz")
