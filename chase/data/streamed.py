"""A split whose images are decoded by worker processes each time they are asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from chase.data.decoding import Decoder, Picture
from chase.data.split import (
    ALONE,
    Batches,
    Data,
    Divide,
    Normalise,
    Shard,
    by_class,
    epoch_generator,
    num_batches,
    portion,
)
from chase.errors import DataError, RecipeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Loader = DataLoader[Any]


class Source(Protocol):
    """Where the encoded images of a split come from."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n]."""

    def subset(self, indices: Tensor) -> Source:
        """The images at `indices` (int64 [m]), in that order."""

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """A random order of all images, int64 [n], that this source can hand out at full speed."""

    def pictures(self, order: Tensor) -> Iterator[Picture]:
        """The images at the positions `order` (int64 [m]), in that order.

        Raises:
            DataError: if they cannot be read.
        """


class _Plan:
    """The batches that a loader is to load in its next pass."""

    batches: Iterable[list[Picture]] = ()

    def __iter__(self) -> Iterator[list[Picture]]:
        return iter(self.batches)


class Workers:
    """Processes that decode, kept from one epoch to the next and shared by the splits of a data set.

    The main process reads in order and hands the encoded images out; so neither order nor crops depend on `count`.
    """

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count
        self._idle: dict[bool, tuple[Loader, _Plan]] = {}

    def decoded(self, batches: Iterable[list[Picture]], *, pinned: bool) -> Batches:
        """Images uint8 [b, 3, size, size] and labels int64 [b] of each batch, in page-locked memory if `pinned`.

        Raises:
            DataError: if an image cannot be decoded.
        """
        # One that is in use is not among the idle: two passes at the same moment have processes of their own.
        loader, plan = self._idle.pop(pinned) if pinned in self._idle else self._start(pinned)
        plan.batches = batches
        try:
            yield from loader
        except DataError as error:
            # A worker wraps the message in its traceback, whose last line has it.
            raise DataError(str(error).splitlines()[-1].removeprefix("chase.errors.DataError: ")) from error
        finally:
            self._idle[pinned] = (loader, plan)

    def _start(self, pinned: bool) -> tuple[Loader, _Plan]:
        plan = _Plan()
        loader: Loader = DataLoader(
            Decoder(self.size),
            batch_sampler=plan,
            num_workers=self.count,
            persistent_workers=self.count > 0,
            pin_memory=pinned,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # otherwise it draws from the global one
        )
        return loader, plan


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C is the main process's business: it may still want to finish its step and save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, kw_only=True)
class StreamedSplit:
    """The images of a source, cropped to the size of `workers`."""

    source: Source
    workers: Workers
    mean: Sequence[float]
    std: Sequence[float]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n], on the CPU."""
        return self.source.labels

    def subset(self, indices: Tensor) -> StreamedSplit:
        """The images at `indices` (int64 [m]), in that order."""
        return replace(self, source=self.source.subset(indices))

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> StreamedSplit:
        """The same images, normalised with another mean and standard deviation per channel."""
        return replace(self, mean=mean, std=std)

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
        """Normalised images float32 [b, 3, size, size] and labels int64 [b] on `device`; see `Split.batches`.

        With `augment`: a random resized crop, mirrored half the time. Without: the centre.

        Raises:
            DataError: if an image cannot be read.
        """
        generator = epoch_generator(batch_size, shuffle_seed, augment)
        order = torch.arange(len(self)) if generator is None else self.source.shuffled(generator)
        order = order[: self.num_batches(batch_size, generator is not None) * batch_size]
        seeds = torch.randint(2**62, (len(order),), generator=generator) if augment else None
        mine, size = portion(len(order), batch_size, start, shard)
        pictures = self._pictures(order[mine], None if seeds is None else seeds[mine])
        return self._iterate(pictures, size, torch.device(device))

    def _pictures(self, order: Tensor, seeds: Tensor | None) -> Iterator[Picture]:
        pictures = self.source.pictures(order)
        if seeds is None:
            return pictures
        # A seed per image: its crop does not depend on the process that makes it.
        return (picture._replace(seed=int(seed)) for picture, seed in zip(pictures, seeds, strict=True))

    def _iterate(self, pictures: Iterator[Picture], batch_size: int, device: torch.device) -> Batches:
        normalise = Normalise(self.mean, self.std, device)
        batches = iter(lambda: list(islice(pictures, batch_size)), [])
        for images, labels in self.workers.decoded(batches, pinned=device.type == "cuda"):
            yield normalise(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)


def streamed_data(
    name: str,
    classes: Sequence[str],
    *,
    train: Source,
    test: Source,
    size: int,
    workers: int | None,
    divide: Divide = by_class,
) -> Data:
    """The data set of two sources, normalised with ImageNet's mean and standard deviation.

    `workers` None is a process for each core that this one may use, at most 16.

    Raises:
        RecipeError: if `size` or `workers` is out of range.
    """
    if type(size) is not int or size < 1:
        raise RecipeError(f"data.size must be a number of pixels from 1 up, not {size!r}")
    if workers is None:
        workers = min(16, _cores())
    if type(workers) is not int or workers < 0:
        raise RecipeError(f"data.workers must be a number of processes from 0 up, not {workers!r}")
    split = partial(StreamedSplit, workers=Workers(size, workers), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return Data(
        name=name,
        classes=tuple(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=(3, size, size),
        train=split(source=train),
        test=split(source=test),
        divide=divide,
    )


def _cores() -> int:
    """The cores that this process may use; those of a machine are shared by the processes that torchrun started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
