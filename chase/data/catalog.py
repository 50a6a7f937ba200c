"""Data sets by name or path."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chase.data.folder import load_folder, load_imagenet
from chase.data.memory import Augmentation, memory_data
from chase.data.npz import load_npz
from chase.data.shards import load_shards
from chase.data.split import Data, stratified
from chase.errors import DataError, RecipeError
from chase.registry import Registry, did_you_mean
from chase.settings import DataSettings

_DIGITS_SEED = 1797  # the test images of `digits` never change
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def load_digits(*, pad: int = 1, padding_mode: str = "zero", flip: bool = False) -> Data:
    """1797 handwritten digits from scikit-learn, 8x8 and grey; a fixed fifth of each class is for testing."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(digits.target).long()
    train, test = stratified(labels, 0.2, _DIGITS_SEED)
    return memory_data(
        "digits",
        [str(name) for name in digits.target_names],
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        augmentation=Augmentation(pad=pad, padding_mode=padding_mode, flip=flip),
    )


def load_cifar10(root: str | None = None, *, pad: int = 4, padding_mode: str = "reflect", flip: bool = True) -> Data:
    """CIFAR-10 from torchvision's files in `root` (by default CHASE_DATA, else data/).

    Raises:
        DataError: if the files are not there.
    """
    return _cifar("CIFAR10", root, Augmentation(pad=pad, padding_mode=padding_mode, flip=flip), _CIFAR10)


def load_cifar100(root: str | None = None, *, pad: int = 4, padding_mode: str = "zero", flip: bool = True) -> Data:
    """CIFAR-100, fine classes, from torchvision's files in `root` (by default CHASE_DATA, else data/).

    Raises:
        DataError: if the files are not there.
    """
    return _cifar("CIFAR100", root, Augmentation(pad=pad, padding_mode=padding_mode, flip=flip), _CIFAR100)


def _cifar(
    kind: str,
    root: str | None,
    augmentation: Augmentation,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> Data:
    from torchvision import datasets

    root = root or os.environ.get("CHASE_DATA", "data")
    try:
        train, test = (getattr(datasets, kind)(root, train=part, download=False) for part in (True, False))
    except RuntimeError as error:
        call = f"torchvision.datasets.{kind}({root!r}, download=True)"
        raise DataError(f"no intact {kind} in {root!r}; download it with {call}, or set root or CHASE_DATA") from error
    return memory_data(
        kind.lower(),
        train.classes,
        train=_tensors(train),
        test=_tensors(test),
        augmentation=augmentation,
        statistics=statistics,
    )


def _tensors(part: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)


def load_synthetic(
    *,
    classes: int = 10,
    shape: Sequence[int] = (3, 32, 32),
    train: int = 512,
    test: int = 128,
    seed: int = 0,
    pad: int | None = None,
    padding_mode: str = "zero",
    flip: bool = True,
) -> Data:
    """Random images [n, *shape] and labels, the same for the same `seed`: for timing, not for learning.

    Raises:
        RecipeError: if a number is not positive or `shape` is not (channels, height, width).
    """
    if len(shape) != 3 or not all(type(count) is int and count > 0 for count in (classes, train, test, *shape)):
        found = f"classes {classes}, train {train}, test {test}, shape {list(shape)}"
        raise RecipeError(f"synthetic data needs positive numbers and a shape [c, h, w], not {found}")
    generator = torch.Generator().manual_seed(seed)
    pairs = [
        (
            torch.randint(256, (images, *shape), generator=generator, dtype=torch.uint8),
            torch.randint(classes, (images,), generator=generator),
        )
        for images in (train, test)
    ]
    names = [str(number) for number in range(classes)]
    augmentation = Augmentation(pad=pad, padding_mode=padding_mode, flip=flip)
    return memory_data("synthetic", names, train=pairs[0], test=pairs[1], augmentation=augmentation)


DATASETS: Registry[Callable[..., Data]] = Registry(
    "dataset",
    {
        "digits": load_digits,
        "cifar10": load_cifar10,
        "cifar100": load_cifar100,
        "imagenet": load_imagenet,
        "folder": load_folder,
        "npz": load_npz,
        "webdataset": load_shards,
        "synthetic": load_synthetic,
    },
)


def load_data(name: str, *, root: str | None = None, **settings: Any) -> Data:
    """The data set `name`: an entry of DATASETS, or the path of an .npz archive, of an image tree or of tar shards.

    `root` is where its files are; `settings` go to its loader.

    Raises:
        UnknownName: if no data set has this name.
        RecipeError: if the data set lacks one of `settings` or refuses its value.
        DataError: if its files are missing or malformed; says how to get them.
    """
    if name not in DATASETS and (kind := _kind_of_path(name)):
        if root is not None:
            raise RecipeError(f"data {name!r} is a path already; leave root {root!r} out")
        name, root = kind, name
    if root is not None:
        settings["root"] = root
    loader = DATASETS[name]
    _check_settings(name, loader, settings)
    return loader(**settings)


def data_for(settings: DataSettings) -> Data:
    """The data set that a recipe's block names; see `load_data` for errors."""
    return load_data(settings.name, root=settings.root, **settings.settings)


def _kind_of_path(name: str) -> str | None:
    """Which data set a path or a URL is; None if `name` is neither."""
    if "://" in name or name.startswith("pipe:") or name.endswith((".tar", ".tar.gz", ".tgz")):
        return "webdataset"
    if name.endswith(".npz"):
        return "npz"
    if any(Path(name).glob("train-*.tar")):
        return "webdataset"
    return "folder" if "/" in name or Path(name).exists() else None


def _check_settings(name: str, loader: Callable[..., Data], settings: dict[str, Any]) -> None:
    parameters = inspect.signature(loader).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for setting in settings:
        if setting not in parameters:
            raise RecipeError(f"data {name!r} has no setting {setting!r}; {did_you_mean(setting, parameters)}")
