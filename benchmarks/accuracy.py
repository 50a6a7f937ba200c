"""Accuracy of whatever runs, and how far its answers are from those of the network that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.data.split import Split
from chase.errors import DataError
from chase.runtimes import Runtime

TOP = 5  # the top-5 answers, which say nothing about five classes or fewer


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one pass over a test set says, in percent; without labelled images only the rest, and the `reason`.

    `agreement` is with the top-1 answers of the fp32 network that the artifact came from, whose own top-1 accuracy is
    `reference_accuracy`; `flipped` images have another answer, and `worst_logit_error` is the largest absolute
    difference of any logit (None where the artifact answers with probabilities, or not with finite numbers).
    `resized_from` is the height and width that the images had, where they were resized for a smaller network.
    """

    accuracy: float | None = None
    top5: float | None = None
    reason: str | None = None
    agreement: float | None = None
    flipped: int | None = None
    worst_logit_error: float | None = None
    reference_accuracy: float | None = None
    finite: bool = True
    resized_from: tuple[int, ...] | None = None


def accuracy(runtime: Runtime, split: Split, *, artifact: Artifact | None = None, batch_size: int = 256) -> float:
    """Top-1 accuracy on all images of a split, in percent; `artifact` is what the runtime runs, if it is a file.

    Raises:
        DataError: if the split is empty.
    """
    return _percent(predictions(runtime, split, artifact=artifact, batch_size=batch_size) == split.labels)


def agreement(first: Runtime, second: Runtime, split: Split, batch_size: int = 256) -> float:
    """How many images of a split both give the same top-1 answer, in percent.

    Raises:
        DataError: if the split is empty.
    """
    both = (predictions(each, split, batch_size=batch_size) for each in (first, second))
    return _percent(torch.eq(*both))


def predictions(runtime: Runtime, split: Split, *, artifact: Artifact | None = None, batch_size: int = 256) -> Tensor:
    """The top-1 class of each image, int64 [n], on the CPU.

    Raises:
        DataError: if the split is empty.
    """
    return outputs(runtime, split, artifact=artifact, batch_size=batch_size).argmax(1)


def outputs(runtime: Runtime, split: Split, *, artifact: Artifact | None = None, batch_size: int = 256) -> Tensor:
    """What it answers for each image, float32 [n, classes], on the CPU.

    Raises:
        DataError: if the split is empty.
    """
    if not len(split):
        raise DataError("the split holds no images; accuracy needs at least one")
    sizes = (artifact and artifact.batch_sizes) or (1, batch_size)
    batches = split.batches(min(batch_size, sizes[-1]), device=runtime.device)
    return torch.cat([_answers(runtime, x, artifact, sizes[0]) for x, _ in batches])


def score(found: Tensor, labels: Tensor, *, expected: Tensor | None = None, probabilities: bool = False) -> Score:
    """The score of the answers `found` [n, classes] to images with `labels` [n].

    `expected` [n, classes] are the logits of the reference network; `probabilities` says that `found` are no logits.
    """
    right = found.topk(min(TOP, found.shape[1])).indices == labels[:, None]
    measured: dict[str, Any] = {"accuracy": _percent(found.argmax(1) == labels), "finite": bool(found.isfinite().all())}
    if found.shape[1] > TOP:
        measured["top5"] = _percent(right.any(1))
    if expected is None:
        return Score(**measured)
    same = found.argmax(1) == expected.argmax(1)
    error = float((found.double() - expected.double()).abs().max())
    return Score(
        **measured,
        agreement=_percent(same),
        flipped=int((~same).sum()),
        worst_logit_error=error if measured["finite"] and not probabilities else None,
        reference_accuracy=_percent(expected.argmax(1) == labels),
    )


def _answers(runtime: Runtime, images: Tensor, artifact: Artifact | None, smallest: int) -> Tensor:
    """The answers to a batch; where it is too small for the file, images are repeated to fill it up."""
    filled = images if len(images) >= smallest else images[torch.arange(smallest) % len(images)]
    given = artifact.encode(filled) if artifact else filled
    return runtime.run(given)[: len(images)].float().cpu()


def _percent(hits: Tensor) -> float:
    return 100 * int(hits.sum()) / len(hits)
