"""What a data set is: two splits that hand out batches of normalised images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from chase.errors import RecipeError

Batches = Iterator[tuple[Tensor, Tensor]]
Shard = tuple[int, int]
"""The number of a process, counted from 0, and how many there are."""
ALONE: Shard = (0, 1)


class Split(Protocol):
    """Images and their labels."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n], on the CPU."""

    def subset(self, indices: Tensor) -> Split:
        """The images at `indices` (int64 [m]), in that order."""

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> Split:
        """The same images, normalised with another mean and standard deviation per channel."""

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
        """Normalised images float32 [b, c, h, w] and labels int64 [b] on `device`.

        Without `shuffle_seed`: every image in order. With it: order and augmentation follow from the seed
        alone, and an incomplete last batch is dropped unless it is the only one (BatchNorm needs full ones).

        `start` batches are left out, as if they had been seen already. Of each batch, the process `shard[0]` of
        `shard[1]` gets its part, [b / shard[1], c, h, w].

        Raises:
            RecipeError: if `batch_size` is not positive, `augment` has no seed to draw from, or the batches cannot be
                divided among the processes.
        """

    def num_batches(self, batch_size: int, shuffled: bool) -> int:
        """The number of batches that `batches` yields."""


Divide = Callable[[Split, float, int], tuple[Tensor, Tensor]]
"""Contract: `(split, fraction, seed) → (rest, held)`, the indices of a random part with round(fraction * n) images, at
least one, and of all others; both ascending, int64."""


def by_class(split: Split, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out the same share of each class; see `Divide`."""
    return stratified(split.labels, fraction, seed)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set of images with a train and a test split.

    `mean` and `std` are per channel, of images scaled to [0, 1]; `input_shape` is (channels, height, width); `divide`
    chooses the images that are held out for validation.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    train: Split
    test: Split
    divide: Divide = by_class

    def held_out(self, fraction: float, seed: int) -> tuple[Split, Split]:
        """The rest of the train split, and a validation split with `fraction` of its images.

        Raises:
            RecipeError: if `fraction` is outside [0, 1) or leaves no image for training.
        """
        if not 0 <= fraction < 1:
            raise RecipeError(f"held-out fraction {fraction} is outside [0, 1); 0.1 holds out a tenth")
        if not fraction:  # without a look at the labels, which may take a pass over the files
            return self.train, self.train.subset(torch.arange(0))
        rest, held = self.divide(self.train, fraction, seed)
        if not len(rest):
            raise RecipeError(f"held-out fraction {fraction} of {len(held)} images leaves none to train on")
        return self.train.subset(rest), self.train.subset(held)


def stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of the rest and of a random part of `labels`, both ascending.

    The part has round(fraction * n) indices, at least one unless `fraction` is 0; each class gives its share,
    and the classes whose shares were rounded down furthest give one more until the number is exact.
    """
    wanted = max(round(fraction * len(labels)), 1) if fraction else 0
    members = _by_class(labels, torch.Generator().manual_seed(seed))
    shares = torch.tensor([len(each) * fraction for each in members], dtype=torch.float64)
    counts = shares.floor().long()
    most_cut = (shares - counts).sort(descending=True, stable=True).indices
    counts[most_cut[: wanted - int(counts.sum())]] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for each, count in zip(members, counts.tolist(), strict=True):
        chosen[each[:count]] = True
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def class_balanced(
    split: Split, *, per_class: int = 10, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Normalised images [b, c, h, w] and labels [b] of `per_class` random images of each class, in random order.

    A class with fewer images gives all it has.

    Raises:
        RecipeError: if `per_class` is not positive or the split is empty.
    """
    if per_class < 1:
        raise RecipeError(f"per_class {per_class} is not positive; 10 images of each class are usual")
    if not len(split):
        raise RecipeError("a split without images has no batch to give; choose another one")
    chosen = balanced(split.labels, per_class, seed)
    return next(split.subset(chosen).batches(len(chosen), device=device))


def balanced(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """The indices of `per_class` random entries of each class, or of all where there are fewer, in random order."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.cat([members[:per_class] for members in _by_class(labels, generator)])
    return chosen[torch.randperm(len(chosen), generator=generator)]


def _by_class(labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    """The indices of each class, in random order."""
    shuffled = torch.randperm(len(labels), generator=generator)
    return [shuffled[labels[shuffled] == label] for label in labels.unique()]


def epoch_seed(seed: int, epoch: int) -> int:
    """A shuffle seed for `epoch` of the run with `seed`, unrelated to those of other epochs and runs."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def num_batches(images: int, batch_size: int, shuffled: bool) -> int:
    """The number of batches of one epoch; see `Split.batches` for what happens to an incomplete one."""
    if shuffled and images >= batch_size:
        return images // batch_size
    return -(-images // batch_size)


def epoch_generator(batch_size: int, shuffle_seed: int | None, augment: bool) -> torch.Generator | None:
    """The source of an epoch's randomness; None if it is to run in order.

    Raises:
        RecipeError: as `Split.batches` says.
    """
    if batch_size < 1:
        raise RecipeError(f"batch size {batch_size} is not positive; 128 is usual")
    if shuffle_seed is not None:
        return torch.Generator().manual_seed(shuffle_seed)
    if augment:
        raise RecipeError("augmentation is random and needs a shuffle_seed; pass one or turn augment off")
    return None


def epoch_order(images: int, batch_size: int, generator: torch.Generator | None) -> Tensor:
    """The positions of the images of one epoch, int64; a multiple of `batch_size` of them if shuffled."""
    if generator is None:
        return torch.arange(images)
    order = torch.randperm(images, generator=generator)
    return order[: num_batches(images, batch_size, True) * batch_size]


def portion(images: int, batch_size: int, start: int, shard: Shard) -> tuple[Tensor, int]:
    """The positions (int64 [m]) in an epoch of `images` that one process reads from batch `start` on, and how many of
    them make its part of a batch.

    Raises:
        RecipeError: if the batches cannot be divided evenly.
    """
    process, processes = shard
    if batch_size % processes or images % processes:
        raise RecipeError(
            f"batches of {batch_size} from {images} images cannot be divided among {processes} processes; choose "
            f"data.batch_size as a multiple of {processes}, and no larger than the data set"
        )
    return torch.arange(start * batch_size + process, images, processes), batch_size // processes


class Normalise:
    """uint8 images [b, c, h, w] as float32 with zero mean and unit variance per channel, on their device."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> None:
        means, stds = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
        self.scale = (1 / (255 * stds)).float().to(device)
        self.shift = (-means / stds).float().to(device)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)
