"""Trees of image files: <root>/train/<class>/<image> and <root>/val/ or <root>/test/ alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from chase.data.decoding import Picture, opened, pixels
from chase.data.memory import Augmentation, memory_data
from chase.data.split import Data
from chase.data.streamed import streamed_data
from chase.errors import DataError, RecipeError, reason

SMALL_SIDE = 64  # images up to this many pixels are decoded once and kept in memory


@dataclass(frozen=True)
class Files:
    """The image files of one split and the class of each, int64 [n]: a `Source`."""

    paths: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Tensor) -> Files:
        """The files at `indices` (int64 [m]), in that order."""
        return Files(tuple(self.paths[index] for index in indices.tolist()), self.labels[indices])

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Any order, each as likely as the others, int64 [n]."""
        return torch.randperm(len(self), generator=generator)

    def pictures(self, order: Tensor) -> Iterator[Picture]:
        """The files at the positions `order` (int64 [m]), which are read where they are decoded."""
        labels = self.labels[order].tolist()
        return (Picture(self.paths[index], label) for index, label in zip(order.tolist(), labels, strict=True))


def load_folder(
    root: str | None = None,
    *,
    pad: int | None = None,
    padding_mode: str = "zero",
    flip: bool = True,
    size: int = 224,
    workers: int | None = None,
) -> Data:
    """The tree at `root`: train/ and test/ (or val/, if there is no test/), with a folder per class in each.

    Images of at most 64 pixels are kept in memory: `pad`, `padding_mode` and `flip` apply, mean and std are
    measured. Larger ones are read by `workers` processes as crops of `size` pixels, and mean and std are
    ImageNet's.

    Raises:
        DataError: if the tree is not there or not of this form.
        RecipeError: if a setting is out of range.
    """
    augmentation = Augmentation(pad=pad, padding_mode=padding_mode, flip=flip)
    if root is None:
        raise RecipeError("data 'folder' needs root, the folder that holds train/ and test/ or val/")
    held = "test" if (Path(root) / "test").is_dir() else "val"
    classes, train, test = find_files(Path(root), held)
    shape = _decoded_file(train.paths[0]).shape
    if max(shape) > SMALL_SIDE:
        return streamed_data(root, classes, train=train, test=test, size=size, workers=workers)
    read = partial(_decoded, shape=shape)
    return memory_data(root, classes, train=read(train), test=read(test), augmentation=augmentation)


def load_imagenet(root: str | None = None, *, size: int = 224, workers: int | None = None) -> Data:
    """ImageNet as a tree, <root>/train/<class>/ and <root>/val/<class>/; `root` is data/imagenet by default.

    Raises:
        DataError: if the tree is not there.
        RecipeError: if a setting is out of range.
    """
    root = root or os.path.join(os.environ.get("CHASE_DATA", "data"), "imagenet")
    classes, train, test = find_files(Path(root), "val")
    return streamed_data("imagenet", classes, train=train, test=test, size=size, workers=workers)


def find_files(root: Path, held: str) -> tuple[tuple[str, ...], Files, Files]:
    """The classes of the tree at `root` and the files of its train/ and its `held`/ part.

    Raises:
        DataError: if a part is missing or empty, or `held` has a class that train/ has not.
    """
    classes, train = _scan(root / "train")
    theirs, test = _scan(root / held)
    foreign = sorted(set(theirs) - set(classes))
    if foreign:
        raise DataError(f"{root / held} has the class {foreign[0]!r}, which {root / 'train'} has not; add or remove it")
    # A class without test images would shift the numbers of those after it.
    numbers = torch.tensor([classes.index(name) for name in theirs])
    return classes, train, replace(test, labels=numbers[test.labels])


def _scan(folder: Path) -> tuple[tuple[str, ...], Files]:
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise DataError(f"no folder {folder}; lay the images out as {folder}/<class>/<image>, or point root elsewhere")
    try:
        found = ImageFolder(str(folder))
    except OSError as error:
        why = reason(error)
        raise DataError(f"{folder} has no images in class folders: {why}; expected <class>/<image>") from error
    paths, labels = zip(*found.samples, strict=True)
    return tuple(found.classes), Files(paths, torch.tensor(labels))


def _decoded(files: Files, *, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """All images uint8 [n, 3, h, w] and their labels."""
    images = torch.empty(len(files.paths), *shape, dtype=torch.uint8)
    # One thread: on images this small, two wait for each other (measured, 3.7k against 5.5k images/s).
    for index, path in enumerate(files.paths):
        image = _decoded_file(path)
        if image.shape != shape:
            found, first = (f"{width}x{height}" for _, height, width in (image.shape, shape))
            raise DataError(f"{path} is {found} and the first image {first}; small images must share one size")
        images[index] = image
    return images, files.labels


def _decoded_file(path: str) -> Tensor:
    with opened(path) as image:
        return pixels(image)
