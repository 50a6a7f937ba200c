"""Resized: a split whose images have another size, for networks that run at a lower resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from chase.data.split import ALONE, Batches, Shard, Split


@dataclass(frozen=True)
class Resized:
    """The images of a split, each resized to `size` (height, width).

    The normalised images are resized with antialiased bilinear interpolation; as normalisation is linear and the
    weights of a pixel sum to 1, the order of the two does not matter.
    """

    split: Split
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n]."""
        return self.split.labels

    def subset(self, indices: Tensor) -> Resized:
        """The images at `indices`, resized."""
        return Resized(self.split.subset(indices), self.size)

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> Resized:
        """The same images, normalised in another way, resized."""
        return Resized(self.split.normalised_with(mean, std), self.size)

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        shuffle_seed: int | None = None,
        augment: bool = False,
        start: int = 0,
        shard: Shard = ALONE,
    ) -> Batches:
        """As `Split.batches`, with images float32 [b, c, *size]."""
        given = self.split.batches(
            batch_size, device=device, shuffle_seed=shuffle_seed, augment=augment, start=start, shard=shard
        )
        return ((resize(images, self.size), labels) for images, labels in given)

    def num_batches(self, batch_size: int, shuffled: bool) -> int:
        """The number of batches that `batches` yields."""
        return self.split.num_batches(batch_size, shuffled)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [b, c, h, w] as [b, c, *size], by antialiased bilinear interpolation."""
    return functional.interpolate(images, size, mode="bilinear", antialias=True)
