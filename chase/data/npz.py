"""NumPy archives of images."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chase.data.memory import Augmentation, memory_data
from chase.data.split import Data
from chase.errors import DataError, RecipeError, reason

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
LAYOUT = "x_train [n, h, w, c] uint8, y_train [n] integers, x_test and y_test alike, and optionally classes"


def load_npz(root: str | None = None, *, pad: int | None = None, padding_mode: str = "zero", flip: bool = True) -> Data:
    """The archive at `root`: x_train, y_train, x_test, y_test and, if there, the class names `classes`.

    Images are uint8 [n, h, w, c], [n, c, h, w] or [n, h, w] with at most four channels; labels count from 0.
    Mean and std are those of the training images.

    Raises:
        DataError: if the archive is missing, unreadable or not of this form.
        RecipeError: if a setting is out of range.
    """
    augmentation = Augmentation(pad=pad, padding_mode=padding_mode, flip=flip)
    if root is None:
        raise RecipeError("data 'npz' needs root, the path of the archive")
    arrays = _read(root)
    train, test = _images(root, arrays, "train"), _images(root, arrays, "test")
    if train.shape[1:] != test.shape[1:]:
        shapes = [list(part.shape[1:]) for part in (train, test)]
        raise DataError(f"{root}: x_train has images {shapes[0]} and x_test {shapes[1]}; they must agree")
    classes = _classes(root, arrays)
    pairs = {
        split: (images, _labels(root, arrays[f"y_{split}"], split, (len(images), len(classes))))
        for split, images in (("train", train), ("test", test))
    }
    return memory_data(root, classes, train=pairs["train"], test=pairs["test"], augmentation=augmentation)


def _read(path: str) -> Mapping[str, NDArray[Any]]:
    try:
        # numpy itself leaves a broken file open, and takes what is no archive for a pickle, to be loaded unsafely
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("it is no zip file")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in (*REQUIRED, "classes") if name in archive}
    except FileNotFoundError as error:
        raise DataError(f"no file {path}; write one with numpy.savez: {LAYOUT}") from error
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} cannot be read as an .npz archive ({reason(error)}); it must hold {LAYOUT}") from error
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it must hold {LAYOUT}")
    return arrays


def _images(path: str, arrays: Mapping[str, NDArray[Any]], split: str) -> Tensor:
    """The images of `split`, [n, c, h, w]."""
    images = arrays[f"x_{split}"]
    if images.dtype != np.uint8:
        raise DataError(f"{path}: x_{split} is {images.dtype}; it must be uint8, 0 to 255")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] <= 4:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] > 4 or not images.size:
        shape = f"{list(arrays[f'x_{split}'].shape)}{'' if images.size else ', which holds no pixel'}"
        raise DataError(f"{path}: x_{split} has the shape {shape}; it must be [n, h, w, c], c at most 4, or [n, h, w]")
    return torch.from_numpy(np.ascontiguousarray(images))


def _classes(path: str, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    if "classes" in arrays:
        return tuple(str(name) for name in arrays["classes"].ravel())
    labels = arrays["y_train"]
    _check_count(path, labels, "train", len(arrays["x_train"]))
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: y_train has {labels.size} labels of type {labels.dtype}; they must be integers")
    return tuple(str(number) for number in range(int(labels.max()) + 1))


def _check_count(path: str, labels: NDArray[Any], split: str, images: int) -> None:
    if labels.shape != (images,):
        shape = list(labels.shape)
        raise DataError(
            f"{path}: y_{split} has the shape {shape}; x_{split} has {images} images, and each has one label"
        )


def _labels(path: str, labels: NDArray[Any], split: str, expected: tuple[int, int]) -> Tensor:
    images, classes = expected
    _check_count(path, labels, split, images)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: y_{split} is {labels.dtype}; labels must be integers")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{path}: y_{split} has labels from {found}; {classes} classes are 0 to {classes - 1}")
    return torch.from_numpy(labels.astype(np.int64))
