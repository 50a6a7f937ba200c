"""A split whose images fit into memory: they move to the device once and are cropped and flipped there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chase.data.split import (
    ALONE,
    Batches,
    Data,
    Normalise,
    Shard,
    epoch_generator,
    epoch_order,
    num_batches,
    portion,
)
from chase.errors import RecipeError

PADDING_MODES = ("zero", "reflect")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A random crop of the image padded by `pad` pixels a side and, with `flip`, mirrored half the time.

    `pad` None is an eighth of the shorter side, 4 for 32x32 images. `padding_mode` is "zero" or "reflect".
    """

    pad: int | None = None
    padding_mode: str = "zero"
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad is not None and (type(self.pad) is not int or self.pad < 0):
            raise RecipeError(f"data.pad must be a number of pixels from 0 up, not {self.pad!r}")
        if self.padding_mode not in PADDING_MODES:
            raise RecipeError(f"data.padding_mode must be zero or reflect, not {self.padding_mode!r}")
        if type(self.flip) is not bool:
            raise RecipeError(f"data.flip must be true or false, not {self.flip!r}")

    def padding(self, images: Tensor) -> int:
        """The padding of `images` [n, c, h, w] on each side, in pixels.

        Raises:
            RecipeError: if it is not smaller than the image, which leaves nothing to reflect.
        """
        side = min(images.shape[2:])
        pad = side // 8 if self.pad is None else self.pad
        if pad >= side:
            raise RecipeError(
                f"data.pad {pad} is not smaller than the images, {side} pixels; choose at most {side // 2}"
            )
        return pad


class MemorySplit:
    """Images uint8 [n, c, h, w] and labels int64 [n], shared with every subset and kept once per device."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
    ) -> None:
        self.mean, self.std = mean, std
        self.augmentation = augmentation
        self._pad = augmentation.padding(images)
        padded = _padded(images, self._pad, augmentation.padding_mode)
        self._copies: dict[torch.device, Tensor] = {padded.device: padded}
        self._labels = labels
        self._indices = torch.arange(len(labels))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n], on the CPU."""
        return self._labels[self._indices]

    def subset(self, indices: Tensor) -> MemorySplit:
        """The images at `indices` (int64 [m]), in that order; no image is copied."""
        part = MemorySplit.__new__(MemorySplit)
        part.__dict__.update(self.__dict__, _indices=self._indices[indices])
        return part

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> MemorySplit:
        """The same images, normalised with another mean and standard deviation per channel."""
        other = MemorySplit.__new__(MemorySplit)
        other.__dict__.update(self.__dict__, mean=mean, std=std)
        return other

    def num_batches(self, batch_size: int, shuffled: bool) -> int:
        """The number of batches that `batches` yields."""
        return num_batches(len(self), batch_size, shuffled)

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
        """Normalised images float32 [b, c, h, w] and labels int64 [b] on `device`; see `Split.batches`.

        With `augment`, every image has its own crop and its own flip.
        """
        generator = epoch_generator(batch_size, shuffle_seed, augment)
        order = epoch_order(len(self), batch_size, generator)
        # Drawn on the CPU for the whole epoch: the same batches on every device, and one copy to it.
        draws = self._draw(len(order), generator) if augment else None
        mine, size = portion(len(order), batch_size, start, shard)
        draws = draws if draws is None else draws[:, mine]
        return self._iterate(self._indices[order[mine]], draws, size, torch.device(device))

    def _draw(self, images: int, generator: torch.Generator | None) -> Tensor:
        """A row offset, a column offset and a flip (0 or 1) per image, int64 [3, images]."""
        offsets = torch.randint(2 * self._pad + 1, (2, images), generator=generator)
        flips = torch.randint(1 + self.augmentation.flip, (1, images), generator=generator)
        return torch.cat([offsets, flips])

    def _iterate(self, indices: Tensor, draws: Tensor | None, batch_size: int, device: torch.device) -> Batches:
        normalise = Normalise(self.mean, self.std, device)
        crops = self._crops(device)
        if draws is None:
            draws = torch.tensor([[self._pad], [self._pad], [0]]).expand(3, len(indices))
        epoch = torch.vstack([indices, draws, self._labels[indices]]).to(device)
        for start in range(0, len(indices), batch_size):
            index, rows, columns, flips, label = epoch[:, start : start + batch_size]
            images = crops[index, :, rows, columns]
            images = torch.where(flips.bool()[:, None, None, None], images.flip(3), images)
            yield normalise(images), label

    def _crops(self, device: torch.device) -> Tensor:
        """A view of every crop of every image: [n, c, rows, columns, h, w]."""
        if device not in self._copies:
            self._copies[device] = next(iter(self._copies.values())).to(device)
        padded = self._copies[device]
        height, width = (side - 2 * self._pad for side in padded.shape[2:])
        return padded.unfold(2, height, 1).unfold(3, width, 1)


def _padded(images: Tensor, pad: int, mode: str) -> Tensor:
    """`images` [n, c, h, w] with `pad` more pixels on each side."""
    if mode == "zero":
        return torch.nn.functional.pad(images, (pad, pad, pad, pad))
    for dim in (2, 3):  # torch does not reflect uint8 itself
        before = images.narrow(dim, 1, pad).flip(dim)
        after = images.narrow(dim, images.shape[dim] - 1 - pad, pad).flip(dim)
        images = torch.cat([before, images, after], dim)
    return images


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images [n, c, h, w] scaled to [0, 1]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    # From the histogram: exact, and no float copy of the images.
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)]).double()
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(1)
    # A constant channel says nothing; any finite scale serves.
    std = variance.sqrt().where(variance > 0, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def memory_data(
    name: str,
    classes: Sequence[str],
    *,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    augmentation: Augmentation,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Data:
    """The data set of two pairs of images uint8 [n, c, h, w] and labels int64 [n].

    `statistics` is mean and std per channel; None measures them on the training images.
    """
    mean, std = statistics or channel_statistics(train[0])
    splits = [MemorySplit(*pair, mean=mean, std=std, augmentation=augmentation) for pair in (train, test)]
    channels, height, width = train[0].shape[1:]
    return Data(
        name=name,
        classes=tuple(classes),
        mean=mean,
        std=std,
        input_shape=(channels, height, width),
        train=splits[0],
        test=splits[1],
    )
