"""Trees of image files: <root>/train/<class>/<image> and <root>/val/ or <root>/test/ alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from chase.data.memory import Augmentation, memory_data
from chase.data.split import Batches, Data, Normalise, epoch_generator, epoch_order, num_batches
from chase.errors import DataError, RecipeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL_SIDE = 64  # images up to this many pixels are decoded once and kept in memory


@dataclass(frozen=True)
class Files:
    """The image files of one split and the class of each, int64 [n]."""

    paths: tuple[str, ...]
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Views(Dataset[tuple[Tensor, Tensor]]):
    """A torch data set of `paths`: images uint8 [3, size, size], cropped at random where a seed is given."""

    files: Files
    size: int
    seeds: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = decode(self.files.paths[index])
        if self.seeds is None:
            return centre_crop(image, self.size), self.files.labels[index]
        # A seed per image: its crop does not depend on how many workers there are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seeds[index])
            return random_crop(image, self.size), self.files.labels[index]


class FolderSplit:
    """Image files that are decoded by worker processes each time they are asked for."""

    def __init__(self, files: Files, *, size: int, mean: Sequence[float], std: Sequence[float], workers: int) -> None:
        self.files, self.size, self.workers = files, size, workers
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.files.paths)

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n], on the CPU."""
        return self.files.labels

    def subset(self, indices: Tensor) -> FolderSplit:
        """The images at `indices` (int64 [m]), in that order."""
        return FolderSplit(
            _chosen(self.files, indices), size=self.size, mean=self.mean, std=self.std, workers=self.workers
        )

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> FolderSplit:
        """The same images, normalised with another mean and standard deviation per channel."""
        return FolderSplit(self.files, size=self.size, mean=mean, std=std, workers=self.workers)

    def num_batches(self, batch_size: int, shuffled: bool) -> int:
        """The number of batches that `batches` yields."""
        return num_batches(len(self), batch_size, shuffled)

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        shuffle_seed: int | None = None,
        augment: bool = False,
    ) -> Batches:
        """Normalised images float32 [b, 3, size, size] and labels int64 [b] on `device`; see `Split.batches`.

        With `augment`: a random resized crop, mirrored half the time. Without: the centre.

        Raises:
            DataError: if a file is no image.
        """
        generator = epoch_generator(batch_size, shuffle_seed, augment)
        order = epoch_order(len(self), batch_size, generator)
        views = Views(files=_chosen(self.files, order), size=self.size)
        if augment:
            seeds = torch.randint(2**62, (len(order),), generator=generator)
            views = replace(views, seeds=tuple(seeds.tolist()))
        return self._iterate(views, batch_size, torch.device(device))

    def _iterate(self, views: Views, batch_size: int, device: torch.device) -> Batches:
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            views,
            batch_size=batch_size,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # otherwise it draws from the global one
        )
        normalise = Normalise(self.mean, self.std, device)
        try:
            for images, labels in loader:
                yield normalise(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)
        except DataError as error:
            # A worker wraps the message in its traceback, whose last line has it.
            raise DataError(str(error).splitlines()[-1].removeprefix("chase.errors.DataError: ")) from error


def _chosen(files: Files, indices: Tensor) -> Files:
    return Files(tuple(files.paths[index] for index in indices.tolist()), files.labels[indices])


def decode(path: str) -> Tensor:
    """The image in the file `path`, uint8 [3, h, w] in RGB.

    Raises:
        DataError: if the file cannot be read as an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read the image {path}: {error}; remove or replace it") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def random_crop(image: Tensor, size: int) -> Tensor:
    """A random part of `image` uint8 [3, h, w] scaled to [3, size, size] and mirrored half the time."""
    from torchvision.transforms import v2

    cropped: Tensor = v2.RandomResizedCrop(size, antialias=True)(image)
    mirrored: Tensor = v2.RandomHorizontalFlip()(cropped)
    return mirrored


def centre_crop(image: Tensor, size: int) -> Tensor:
    """The centre [3, size, size] of `image` uint8 [3, h, w], its shorter side scaled to 256/224 size."""
    from torchvision.transforms.v2 import functional

    scaled = functional.resize(image, [round(size * 256 / 224)], antialias=True)
    cropped: Tensor = functional.center_crop(scaled, [size, size])
    return cropped


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
    shape = decode(train.paths[0]).shape
    if max(shape) > SMALL_SIDE:
        return _streamed(root, classes, (train, test), size=size, workers=workers)
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
    return _streamed("imagenet", classes, (train, test), size=size, workers=workers)


def _streamed(
    name: str, classes: tuple[str, ...], files: tuple[Files, Files], *, size: int, workers: int | None
) -> Data:
    if type(size) is not int or size < 1:
        raise RecipeError(f"data.size must be a number of pixels from 1 up, not {size!r}")
    if workers is None:
        workers = min(16, _cores())
    if type(workers) is not int or workers < 0:
        raise RecipeError(f"data.workers must be a number of processes from 0 up, not {workers!r}")
    split = partial(FolderSplit, size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD, workers=workers)
    return Data(
        name=name,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=(3, size, size),
        train=split(files[0]),
        test=split(files[1]),
    )


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
        reason = " ".join(str(error).split())
        raise DataError(f"{folder} has no images in class folders: {reason}; expected <class>/<image>") from error
    paths, labels = zip(*found.samples, strict=True)
    return tuple(found.classes), Files(paths, torch.tensor(labels))


def _decoded(files: Files, *, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """All images uint8 [n, 3, h, w] and their labels."""
    images = torch.empty(len(files.paths), *shape, dtype=torch.uint8)
    # One thread: on images this small, two wait for each other (measured, 3.7k against 5.5k images/s).
    for index, path in enumerate(files.paths):
        image = decode(path)
        if image.shape != shape:
            found, first = (f"{width}x{height}" for _, height, width in (image.shape, shape))
            raise DataError(f"{path} is {found} and the first image {first}; small images must share one size")
        images[index] = image
    return images, files.labels
