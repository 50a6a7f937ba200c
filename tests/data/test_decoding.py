"""From encoded images to crops."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from jpegs import encoded, noise
from PIL import Image
from torchvision.transforms import v2

from chase.data.decoding import Decoder, Picture, centre_crop, crop_box, opened, pixels, random_crop
from chase.errors import DataError


def decoded(content: bytes) -> torch.Tensor:
    with opened("it", content) as image:
        return pixels(image)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "1", "RGBA"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    image = noise(9, 7, seed=0).convert(mode)
    content = encoded(image, "JPEG" if mode in ("RGB", "L", "CMYK") else "PNG")

    with Image.open(io.BytesIO(content)) as again:
        expected = np.array(again.convert("RGB")).transpose(2, 0, 1)

    assert decoded(content).dtype == torch.uint8
    assert np.array_equal(decoded(content).numpy(), expected)


def test_a_file_is_read_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(noise(9, 7, seed=1)))

    with opened(str(tmp_path / "a.jpg")) as image:
        assert torch.equal(pixels(image), decoded((tmp_path / "a.jpg").read_bytes()))


@pytest.mark.parametrize("content", [b"", b"no image", encoded(noise(64, 64, seed=0))[:700]])
def test_a_broken_image_is_named(content: bytes) -> None:
    with pytest.raises(DataError, match="cannot read the image n01/x.jpg: .*; remove or replace it"):
        Decoder(8)[Picture("n01/x.jpg", 0, content, seed=1)]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match="cannot read the image gone.jpg: .*No such file"):
        Decoder(8)[Picture("gone.jpg", 0)]


def test_a_crop_box_lies_inside_and_keeps_area_and_ratio() -> None:
    random = Random(0)

    for _ in range(500):
        top, left, height, width = crop_box(120, 160, random)
        assert 0 <= top <= top + height <= 120
        assert 0 <= left <= left + width <= 160
        assert 0.07 <= height * width / (120 * 160) <= 1
        assert 0.72 <= width / height <= 1.39


def test_crop_boxes_are_distributed_as_those_of_torchvision() -> None:
    random, image = Random(0), torch.empty(3, 120, 160, dtype=torch.uint8)
    theirs = v2.RandomResizedCrop(224)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [theirs.make_params([image]) for _ in range(3000)]
    expected = np.array([[box[key] for key in ("top", "left", "height", "width")] for box in drawn], float)
    found = np.array([crop_box(120, 160, random) for _ in range(3000)], float)

    # The standard error of a mean of 3000 is below 1/50 of the standard deviation.
    assert np.abs(found.mean(0) - expected.mean(0)).max() < 0.08 * expected.std(0).max()
    assert found.std(0) == pytest.approx(expected.std(0), rel=0.08)


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10)])
def test_a_very_long_image_gives_its_centre(height: int, width: int) -> None:
    short, long = 10, math.floor(10 * 4 / 3)

    found = {crop_box(height, width, Random(seed)) for seed in range(200)}

    top, left, h, w = max(found, key=lambda box: box[2] * box[3])
    assert {h, w} == {short, long}
    assert (top, left) == ((height - h) // 2, (width - w) // 2)


def test_a_random_crop_is_the_box_of_its_seed_scaled_and_perhaps_mirrored() -> None:
    image = noise(50, 40, seed=2)

    for seed in range(6):
        random = Random(seed)
        top, left, height, width = crop_box(40, 50, random)
        part = pixels(image)[:, top : top + height, left : left + width]
        expected = v2.functional.resize(part, [16, 16], antialias=True)
        mirrored = random.random() < 0.5
        found = random_crop(image, 16, seed)
        assert torch.equal(found, expected.flip(2) if mirrored else expected)


def test_half_of_the_crops_are_mirrored() -> None:
    image = Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], (40, 1, 3)))  # brighter right

    rising = sum(bool(crop[0, 0, 0] < crop[0, 0, -1]) for crop in (random_crop(image, 8, seed) for seed in range(400)))

    assert 160 <= rising <= 240


def test_the_centre_is_scaled_by_256_over_224() -> None:
    image = torch.zeros(3, 64, 128, dtype=torch.uint8)
    image[:, :, 36:92] = 255  # 56 wide: what is left of the middle 64 after the crop

    assert centre_crop(image, 56).shape == (3, 56, 56)
    assert centre_crop(image, 56).min() == 255


def test_a_picture_crosses_to_another_process() -> None:
    picture: Any = Picture("x", 3, b"content", 7)

    assert pickle.loads(pickle.dumps(picture)) == picture
    assert pickle.loads(pickle.dumps(Decoder(5))) == Decoder(5)
