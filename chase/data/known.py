"""What is known of the named data sets without loading them."""

from __future__ import annotations

from dataclasses import dataclass

from chase.data.catalog import data_for
from chase.data.split import Data
from chase.settings import DataSettings


@dataclass(frozen=True)
class Extent:
    """The number of classes, the input's shape (channels, height, width), and the number of training images."""

    classes: int
    input_shape: tuple[int, int, int]
    train: int


KNOWN = {
    "cifar10": Extent(10, (3, 32, 32), 50_000),
    "cifar100": Extent(100, (3, 32, 32), 50_000),
    "imagenet": Extent(1000, (3, 224, 224), 1_281_167),
}


def extent(settings: DataSettings) -> Extent:
    """The extent of a data set; one that is not among the known ones is loaded."""
    if settings.name in KNOWN and not settings.settings:
        return KNOWN[settings.name]
    return extent_of(data_for(settings))


def extent_of(data: Data) -> Extent:
    """The extent of a data set that is loaded."""
    return Extent(len(data.classes), data.input_shape, len(data.train))
