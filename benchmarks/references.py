"""References: the fp32 network that an artifact came from, and what it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks.accuracy import Score, outputs, score
from chase.benchmarks.candidates import RIVAL, Candidate, Source
from chase.benchmarks.resized import Resized
from chase.checkpoint import Network
from chase.data.split import Split
from chase.files import sha256
from chase.runtimes import Runtime, open_runtime

Reference = nn.Module | Network


class References:
    """Networks that artifacts came from, whose answers to a test set are computed once each, in fp32.

    A network is its own reference. That of an artifact is the file with the hash of its parent; a bare module stands
    for the parent of every artifact that is not dense and whose parent is not among the files.
    """

    def __init__(self, given: Sequence[Reference], split: Split | None, device: torch.device) -> None:
        self._files = {sha256(each.path): each for each in given if isinstance(each, Network)}
        self._modules = [each for each in given if not isinstance(each, Network)]
        self._split = split
        self._device = device
        self._logits: dict[int, Tensor] = {}

    def of(self, source: Source) -> Reference | None:
        """The reference of a candidate's source, if it is known."""
        if not isinstance(source, Artifact):
            return source
        if found := self._files.get(source.parent_sha256 or ""):
            return found
        return self._modules[0] if self._modules and source.kind != "dense" else None

    def score(self, candidate: Candidate, runtime: Runtime) -> Score:
        """What a pass over the test set through the candidate's open runtime says.

        Images are normalised as the candidate's file says that they must be, and resized for a rival that takes
        another size. Without a test set, what the export measured on its samples.
        """
        if self._split is None:
            return _of_export(candidate, "no data was given")
        rival = candidate.kind == RIVAL
        split = fitted(self._split, candidate.source) if rival else as_stated(self._split, candidate.source)
        if (given := _shape(split)) != candidate.input_shape:
            why = f"the data are {list(given)}, the network takes {list(candidate.input_shape)}"
            return _of_export(candidate, why)
        reference = self.of(candidate.source)
        expected: Tensor | None
        if reference is candidate.source and candidate.runtime == "eager":
            found = expected = self._answers(reference, runtime)  # one pass serves for both
        else:
            found = outputs(runtime, split, artifact=candidate.artifact)
            expected = None if reference is None else self._answers(reference)
        if expected is not None and expected.shape != found.shape:
            expected = None
        probabilities = candidate.artifact is not None and candidate.artifact.preprocessing
        scored = score(found, split.labels, expected=expected, probabilities=probabilities)
        return replace(scored, resized_from=_shape(self._split)[1:] if isinstance(split, Resized) else None)

    def _answers(self, reference: Reference, runtime: Runtime | None = None) -> Tensor:
        """What a reference answers in eager PyTorch, through `runtime` if that is open already."""
        assert self._split is not None
        if id(reference) not in self._logits:
            with contextlib.ExitStack() as stack:
                runtime = runtime or stack.enter_context(open_runtime(reference, runtime="eager", device=self._device))
                self._logits[id(reference)] = outputs(runtime, fitted(self._split, reference))
        return self._logits[id(reference)]


def as_stated(split: Split, source: Source) -> Split:
    """The split, normalised as a file says that its input must be."""
    if isinstance(source, nn.Module) or not source.mean:
        return split
    return split.normalised_with(source.mean, source.std)


def fitted(split: Split, source: Source) -> Split:
    """The split as a file says, with its images resized where the file takes another height or width."""
    stated = as_stated(split, source)
    if (
        isinstance(source, nn.Module)
        or source.input_shape[1:] == (given := _shape(split))[1:]
        or not len(given) == len(source.input_shape) == 3
    ):
        return stated
    return Resized(stated, (source.input_shape[1], source.input_shape[2]))


def _shape(split: Split) -> tuple[int, ...]:
    return tuple(next(iter(split.batches(1)))[0].shape[1:])


def _of_export(candidate: Candidate, reason: str) -> Score:
    parity, artifact = candidate.parity, candidate.artifact
    probabilities = artifact is not None and artifact.preprocessing
    return Score(
        reason=reason,
        agreement=parity.get("agreement"),
        flipped=parity.get("flipped"),
        worst_logit_error=None if probabilities else parity.get("max_abs"),
    )
