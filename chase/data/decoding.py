"""From an encoded image to a crop of one size: the part of loading that takes a processor's time."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from chase.errors import DataError

AREA = (0.08, 1.0)  # of a random crop, as a share of the image
RATIO = 4 / 3  # the widest random crop, and 1 / RATIO the narrowest
JPEG = b"\xff\xd8\xff"


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
        image = decode(picture.name, picture.content)
        if picture.seed is None:
            return centre_crop(image, self.size), picture.label
        return random_crop(image, self.size, picture.seed), picture.label


def decode(name: str, content: bytes | None = None) -> Tensor:
    """The image in the file `name`, or in `content`, uint8 [3, h, w] in RGB, whatever its format and colours.

    Raises:
        DataError: if it cannot be read as an image.
    """
    from PIL import Image

    try:
        encoded = Path(name).read_bytes() if content is None else content
        return _jpeg(encoded) if encoded.startswith(JPEG) else _other(encoded)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {name}: {error}; remove or replace it") from error


def _jpeg(content: bytes) -> Tensor:
    """By torchvision, in half of Pillow's time and with the same pixels; Pillow says what is wrong with a broken one."""
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:
        return _other(content)


def _other(content: bytes) -> Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def random_crop(image: Tensor, size: int, seed: int) -> Tensor:
    """A random part of `image` uint8 [3, h, w], scaled to [3, size, size] and mirrored half the time."""
    from torchvision.transforms.v2 import functional

    random = Random(seed)  # an eighth of the time that torch takes to set its global generator aside
    box = crop_box(image.shape[1], image.shape[2], random)
    cropped: Tensor = functional.resized_crop(image, *box, [size, size], antialias=True)
    return cropped.flip(2) if random.random() < 0.5 else cropped


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
