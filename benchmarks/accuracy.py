"""Accuracy and agreement of whatever runs."""

from __future__ import annotations

import torch
from torch import Tensor

from chase.data.split import Split
from chase.errors import DataError
from chase.runtimes import Runtime


def accuracy(runtime: Runtime, split: Split, batch_size: int = 256) -> float:
    """Top-1 accuracy on all images of a split, in percent.

    Raises:
        DataError: if the split is empty.
    """
    return _percent(predictions(runtime, split, batch_size) == split.labels)


def agreement(first: Runtime, second: Runtime, split: Split, batch_size: int = 256) -> float:
    """How many images of a split both give the same top-1 answer, in percent.

    Raises:
        DataError: if the split is empty.
    """
    return _percent(predictions(first, split, batch_size) == predictions(second, split, batch_size))


def predictions(runtime: Runtime, split: Split, batch_size: int = 256) -> Tensor:
    """The top-1 class of each image, int64 [n], on the CPU.

    Raises:
        DataError: if the split is empty.
    """
    if not len(split):
        raise DataError("the split holds no images; accuracy needs at least one")
    batches = split.batches(batch_size, device=runtime.device)
    return torch.cat([runtime.run(x).argmax(1).cpu() for x, _ in batches])


def _percent(hits: Tensor) -> float:
    return 100 * int(hits.sum()) / len(hits)
