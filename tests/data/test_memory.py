"""Batches of images in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from chase.data.memory import Augmentation, MemorySplit, channel_statistics
from chase.errors import RecipeError

IDENTITY: Any = {"mean": (0.0,), "std": (1 / 255,)}  # a normalised pixel is its uint8 value


def split(images: Tensor, **augmentation: Any) -> MemorySplit:
    labels = torch.arange(len(images))
    return MemorySplit(images, labels, **IDENTITY, augmentation=Augmentation(**augmentation))


def pictures(count: int, side: int = 6) -> Tensor:
    """Grey images without two equal pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randperm(255, generator=generator)[: side * side] + 1 for _ in range(count)]
    return torch.stack(pixels).view(count, 1, side, side).to(torch.uint8)


def crops(image: Tensor, by: int, mode: str, flips: bool) -> list[Tensor]:
    """Every crop of one image [1, h, w], padded by torch itself, and its mirror image."""
    side = image.shape[1]
    padded = pad(image.float(), (by,) * 4, mode=mode)
    offsets = range(2 * by + 1)
    found = [padded[:, row : row + side, column : column + side] for row in offsets for column in offsets]
    return found + [crop.flip(2) for crop in found] if flips else found


def test_without_a_seed_every_image_comes_in_order() -> None:
    images = pictures(5)

    batches = list(split(images).batches(2))

    assert torch.equal(torch.cat([x for x, _ in batches]).round(), images.float())
    assert torch.cat([y for _, y in batches]).tolist() == [0, 1, 2, 3, 4]
    assert [len(y) for _, y in batches] == [2, 2, 1]
    assert (batches[0][0].dtype, batches[0][1].dtype) == (torch.float32, torch.int64)


def test_shuffled_images_keep_their_labels() -> None:
    images = pictures(20)

    ((x, y),) = split(images).batches(20, shuffle_seed=5)

    assert y.tolist() != sorted(y.tolist())
    assert torch.equal(x.round(), images[y].float())


@pytest.mark.parametrize(("mode", "torch_mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("flip", [True, False])
def test_an_augmented_image_is_one_of_its_own_crops(mode: str, torch_mode: str, flip: bool) -> None:
    images = pictures(20)

    ((x, y),) = split(images, pad=2, padding_mode=mode, flip=flip).batches(20, shuffle_seed=0, augment=True)

    for image, label in zip(x.round(), y, strict=True):
        assert any(torch.equal(image, crop) for crop in crops(images[label], 2, torch_mode, flip))


def test_every_image_of_a_batch_has_its_own_crop_and_flip() -> None:
    same = pictures(1).expand(512, 1, 6, 6)

    ((x, _),) = split(same, pad=1).batches(512, shuffle_seed=0, augment=True)

    assert len({tuple(image.flatten().tolist()) for image in x.round()}) == 2 * 3 * 3


def test_the_seed_alone_decides_order_and_augmentation() -> None:
    mine = split(pictures(12))
    torch.manual_seed(1)
    first = list(mine.batches(4, shuffle_seed=7, augment=True))
    torch.manual_seed(2)
    again = list(mine.batches(4, shuffle_seed=7, augment=True))
    other = list(mine.batches(4, shuffle_seed=8, augment=True))

    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_batches_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()

    list(split(pictures(4)).batches(2, shuffle_seed=1, augment=True))

    assert torch.equal(torch.get_rng_state(), before)


def test_a_subset_of_a_subset_holds_the_right_images() -> None:
    images = pictures(6)
    part = split(images).subset(torch.tensor([5, 3, 1])).subset(torch.tensor([2, 0]))

    ((x, y),) = part.batches(2)

    assert len(part) == 2
    assert part.num_batches(2, shuffled=True) == 1
    assert y.tolist() == part.labels.tolist() == [1, 5]
    assert torch.equal(x.round(), images[[1, 5]].float())


def test_the_images_are_copied_to_a_device_once() -> None:
    mine = split(pictures(2))
    part = mine.subset(torch.tensor([0]))

    list(part.batches(1, device="meta", shuffle_seed=0, augment=True))
    copy = mine._copies[torch.device("meta")]
    list(mine.batches(1, device="meta"))

    assert mine._copies[torch.device("meta")] is copy


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_gpu_gets_the_same_batches() -> None:
    mine = split(pictures(8))
    here = mine.batches(4, shuffle_seed=0, augment=True)
    there = mine.batches(4, device="cuda", shuffle_seed=0, augment=True)

    for (x, y), (x_gpu, y_gpu) in zip(here, there, strict=True):
        torch.testing.assert_close(x_gpu.cpu(), x)
        assert torch.equal(y_gpu.cpu(), y)


def test_augmentation_without_a_seed_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs a shuffle_seed"):
        split(pictures(1)).batches(1, augment=True)


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch size 0 is not positive"):
        split(pictures(1)).batches(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad": -1}, "data.pad must be a number of pixels from 0 up, not -1"),
        ({"pad": 1.5}, "not 1.5"),
        ({"pad": 6}, "data.pad 6 is not smaller than the images, 6 pixels; choose at most 3"),
        ({"padding_mode": "edge"}, "data.padding_mode must be zero or reflect, not 'edge'"),
        ({"flip": "no"}, "data.flip must be true or false, not 'no'"),
    ],
)
def test_a_wrong_augmentation_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        split(pictures(1), **settings)


@pytest.mark.parametrize(("side", "expected"), [(32, 4), (8, 1), (6, 0)])
def test_the_default_padding_is_an_eighth_of_the_image(side: int, expected: int) -> None:
    assert Augmentation().padding(torch.empty(1, 1, side, side + 9)) == expected


def test_statistics_are_those_of_the_scaled_pixels() -> None:
    images = torch.randint(256, (5, 2, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 51  # a constant channel

    mean, std = channel_statistics(images)

    scaled = images[:, 0].double() / 255
    assert mean == pytest.approx((scaled.mean().item(), 0.2))
    assert std == pytest.approx((scaled.std(unbiased=False).item(), 1.0))


def test_an_epoch_can_be_entered_at_any_batch() -> None:
    images = split(pictures(23))

    whole = list(images.batches(4, shuffle_seed=1, augment=True))
    rest = list(images.batches(4, shuffle_seed=1, augment=True, start=3))

    assert len(rest) == 2
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(whole[3:], rest, strict=True))
    assert list(images.batches(4, shuffle_seed=1, start=5)) == []


def test_processes_share_every_batch() -> None:
    images = split(pictures(23))

    whole = list(images.batches(6, shuffle_seed=1, augment=True, start=1))
    shares = [list(images.batches(6, shuffle_seed=1, augment=True, start=1, shard=(rank, 3))) for rank in range(3)]

    for number, (x, y) in enumerate(whole):
        parts = [share[number] for share in shares]
        assert torch.equal(torch.stack([part[0] for part in parts], 1).flatten(0, 1), x)
        assert torch.equal(torch.stack([part[1] for part in parts], 1).flatten(), y)


def test_batches_that_cannot_be_shared_are_refused() -> None:
    images = split(pictures(23))

    for size in (5, 46):  # 5 into 2; and the only batch has 23 images
        with pytest.raises(RecipeError, match=rf"batches of {size} from .* divided among 2 processes; choose"):
            images.batches(size, shuffle_seed=1, shard=(0, 2))
