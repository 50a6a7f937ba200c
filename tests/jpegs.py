"""Small image files of many kinds, and trees and shards of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(width: int, height: int, seed: int) -> Image.Image:
    """A picture in RGB that depends on `seed` alone."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str = "JPEG", **settings: Any) -> bytes:
    """The content of its file."""
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def tinted(number: int, classes: int, side: int, seed: int) -> Image.Image:
    """A picture whose brightness tells its class."""
    pixels = np.random.default_rng(seed).integers(0, 60, (side, side + 8, 3)) + 190 * number // max(1, classes - 1)
    return Image.fromarray(pixels.astype(np.uint8))


def shard(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
