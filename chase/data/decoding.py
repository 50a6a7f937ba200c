"""From an encoded image to a crop of one size: the part of loading that takes a processor's time."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from chase.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = (0.08, 1.0)  # of a random crop, as a share of the image
RATIO = 4 / 3  # the widest random crop, and 1 / RATIO the narrowest


class Picture(NamedTuple):
    """An image yet to be decoded: a file's path, or a name for errors and the content; the class; the seed of its crop.

    Without a seed, the crop is the centre.
    """

    name: str
    label: int
    content: bytes | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Decoder(Dataset[tuple[Tensor, int]]):
    """A torch data set whose keys are the pictures themselves: images uint8 [3, size, size] and their classes.

    So a worker process needs to know no file names, and stays the same from one epoch to the next.
    """

    size: int

    def __getitem__(self, picture: Picture) -> tuple[Tensor, int]:
        with opened(picture.name, picture.content) as image:
            if picture.seed is None:
                return centre_crop(pixels(image), self.size), picture.label
            return random_crop(image, self.size, picture.seed), picture.label


@contextlib.contextmanager
def opened(name: str, content: bytes | None = None) -> Iterator[Image]:
    """The image in the file `name`, or in `content`; of any format and colours, not yet decoded.

    Raises:
        DataError: if it cannot be read as an image, here or in the block.
    """
    from PIL import Image

    try:
        with Image.open(name if content is None else io.BytesIO(content)) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {name}: {error}; remove or replace it") from error


def pixels(image: Image) -> Tensor:
    """The image in RGB, uint8 [3, h, w]."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # not through numpy, which copies it once more
    flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return flat.view(rgb.height, rgb.width, 3).permute(2, 0, 1)


def random_crop(image: Image, size: int, seed: int) -> Tensor:
    """A random part of `image`, uint8 [3, size, size], mirrored half the time."""
    from torchvision.transforms.v2 import functional

    random = Random(seed)  # of its own, and many times faster than to set torch's aside
    top, left, height, width = crop_box(image.height, image.width, random)
    part = pixels(image.crop((left, top, left + width, top + height)))  # half of the image is not worth converting
    scaled: Tensor = functional.resize(part, [size, size], antialias=True)
    return scaled.flip(2) if random.random() < 0.5 else scaled


def crop_box(height: int, width: int, random: Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part: 8 to 100 % of the area, 3:4 to 4:3 (Szegedy et al., 2015, §6).

    Ten tries; an image that is too long and narrow for them gives the largest centre of an allowed ratio.
    """
    for _ in range(10):
        area = height * width * random.uniform(*AREA)
        ratio = math.exp(random.uniform(-math.log(RATIO), math.log(RATIO)))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    h, w = min(height, round(width * RATIO)), min(width, round(height * RATIO))
    return (height - h) // 2, (width - w) // 2, h, w


def centre_crop(image: Tensor, size: int) -> Tensor:
    """The centre [3, size, size] of `image` uint8 [3, h, w], its shorter side scaled to 256/224 size."""
    from torchvision.transforms.v2 import functional

    scaled = functional.resize(image, [round(size * 256 / 224)], antialias=True)
    cropped: Tensor = functional.center_crop(scaled, [size, size])
    return cropped
