"""Splits whose images have another size."""

from __future__ import annotations

import torch

from chase.benchmarks.resized import Resized, resize
from chase.data import load_data

TEST = load_data("synthetic", shape=[1, 8, 8], train=16, test=6).test


def test_images_are_resized_and_labels_are_not_touched() -> None:
    split = Resized(TEST, (4, 6))
    images, labels = zip(*split.batches(4), strict=True)

    assert [each.shape for each in images] == [(4, 1, 4, 6), (2, 1, 4, 6)]
    assert torch.equal(torch.cat(labels), TEST.labels)
    assert (len(split), split.num_batches(4, shuffled=False)) == (6, 2)
    assert torch.equal(split.labels, TEST.labels)


def test_pixels_are_weighted_by_a_triangle_twice_as_wide() -> None:
    image = torch.zeros(1, 1, 1, 8)
    image[..., 3] = 1  # 0.5 from the middle of the new pixel 1, 1.5 from that of 2, beyond the reach (2) of the others

    assert torch.equal(resize(image, (1, 4)), torch.tensor([[[[0, 3 / 8, 1 / 8, 0]]]]))


def test_the_same_image_at_a_size_of_its_own_stays() -> None:
    images = next(iter(TEST.batches(6)))[0]

    assert torch.allclose(resize(images, (8, 8)), images, atol=1e-6)


def test_resizing_and_normalising_change_places() -> None:
    first = Resized(TEST, (5, 5)).normalised_with([0.25], [0.5])
    images = next(iter(Resized(TEST.normalised_with([0.0], [1.0]), (5, 5)).batches(6)))[0]

    assert torch.allclose(next(iter(first.batches(6)))[0], (images - 0.25) / 0.5, atol=1e-5)


def test_a_part_is_resized_like_the_whole() -> None:
    split = Resized(TEST, (4, 4))
    whole, part = (next(iter(each.batches(6)))[0] for each in (split, split.subset(torch.tensor([5, 0]))))

    assert torch.equal(part, whole[[5, 0]])
