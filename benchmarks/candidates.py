"""Candidates: what is to be measured, each with the facts that its row will state."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.checkpoint import Network
from chase.counting import count
from chase.errors import RecipeError, TraceError
from chase.runtimes import RUNTIMES, Runtime, format_of, load_source, open_runtime, runtimes_for

Source = nn.Module | Artifact | Network
Item = Source | str | Path | tuple[str, Source | str | Path]


GRAPH = "+cuda-graph"
"""Behind the name of a runtime: its calls are captured in a CUDA graph and replayed."""


RIVAL = "rival"
"""The kind of another network that is measured beside a run's own, and is never a baseline for these."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One item on one runtime; a bare module is of kind "module" and as large as its tensors in memory."""

    label: str
    source: Source
    runtime: str
    kind: str
    input_shape: tuple[int, ...]
    macs: Mapping[str, int]
    params: Mapping[str, int]
    size_bytes: int
    compressed_bytes: int | None = None
    precision: str = "fp32"
    parity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.label} on {self.runtime}"

    @property
    def artifact(self) -> Artifact | None:
        """The source, where it is an exported file."""
        return self.source if isinstance(self.source, Artifact) else None

    def takes(self, batch_size: int) -> bool:
        """Whether the file was made for batches of this size."""
        sizes = self.artifact.batch_sizes if self.artifact else None
        return sizes is None or sizes[0] <= batch_size <= sizes[-1]

    def open(self, device: torch.device) -> Runtime:
        """Its runtime on a device; "+cuda-graph" behind the name of one asks for a CUDA graph.

        Raises:
            RecipeError, CheckpointError, MissingDependency: as `chase.runtimes.open_runtime` does.
        """
        name = self.runtime.removesuffix(GRAPH)
        return open_runtime(self.source, runtime=name, device=device, cuda_graph=name != self.runtime)


def find_candidates(
    items: Sequence[Item], *, runtimes: Sequence[str] | None = None, example: Tensor | None = None
) -> list[Candidate]:
    """Each item on its default runtime, or on all of `runtimes` that can run it.

    `example` [b, c, h, w] says what goes into bare modules; without it the first other item does.

    Raises:
        RecipeError: if there are no items, none of the runtimes can run any of them, or nothing says what
            goes into a bare module; UnknownName if there is no such runtime.
        CheckpointError: if a file is missing or not one of Chase's.
    """
    if not len(items):
        raise RecipeError("there is nothing to measure; name at least one network or artifact")
    for name in runtimes or ():
        RUNTIMES[name.removesuffix(GRAPH)]
    labels, sources = zip(*(_load(item) for item in items), strict=True)
    shapes = [source.input_shape for source in sources if not isinstance(source, nn.Module)]
    if example is None and shapes:
        example = torch.zeros(1, *shapes[0])
    found = []
    for label, source in zip(_unique(labels), sources, strict=True):
        facts = describe(source, example)
        for runtime in _runtimes(source, runtimes):
            found.append(Candidate(label=label, source=source, runtime=runtime, **facts))
    if not found:
        raise RecipeError(f"{' and '.join(runtimes or ())} can run none of these; leave the runtime out")
    return found


def baselines(candidates: Sequence[Candidate]) -> list[int | None]:
    """For each candidate the position of the one it is compared with.

    That is the first dense one with the same runtime and precision; if none is dense, the first of all.
    """
    if not any(candidate.kind == "dense" for candidate in candidates):
        return [None] + [0] * (len(candidates) - 1)
    first: dict[tuple[str, str], int] = {}
    for position, candidate in enumerate(candidates):
        if candidate.kind == "dense":
            first.setdefault((candidate.runtime, candidate.precision), position)
    found = [first.get((candidate.runtime, candidate.precision)) for candidate in candidates]
    return [None if baseline == position else baseline for position, baseline in enumerate(found)]


def describe(source: Source, example: Tensor | None) -> dict[str, Any]:
    """The fields of a Candidate that follow from its source.

    Raises:
        RecipeError: if a bare module has no `example`.
    """
    if isinstance(source, nn.Module):
        return _describe_module(source, example)
    facts = {
        "kind": source.kind,
        "input_shape": source.input_shape,
        "macs": source.macs,
        "params": source.params,
        "size_bytes": source.size_bytes if isinstance(source, Artifact) else source.path.stat().st_size,
        "compressed_bytes": _compressed_bytes(source),
    }
    if isinstance(source, Artifact):
        facts |= {"precision": source.precision, "parity": source.parity}
    return facts


def _compressed_bytes(source: Artifact | Network) -> int:
    """What a download of the source takes, with the files beside it that belong to it."""
    from chase.exporters.compression import transfer_bytes  # brings all exporters along

    beside = source.files if isinstance(source, Artifact) else ()
    return sum(map(transfer_bytes, (source.path, *(source.path.with_name(name) for name in beside))))


def _describe_module(model: nn.Module, example: Tensor | None) -> dict[str, Any]:
    name = type(model).__name__
    if example is None:
        raise RecipeError(f"{name} does not say the shape of its input; pass example=x[:1]")
    macs, params = {}, {}
    try:
        counts = count(copy.deepcopy(model).cpu().eval(), example[:1].cpu())
        macs, params = dataclasses.asdict(counts.macs), dataclasses.asdict(counts.params)
    except TraceError:  # it can be timed all the same; nothing is claimed about its cost
        pass
    size_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    shape = tuple(example.shape[1:])
    return {"kind": "module", "input_shape": shape, "macs": macs, "params": params, "size_bytes": size_bytes}


def _load(item: Item) -> tuple[str, Source]:
    """The label and the source of an item."""
    if isinstance(item, tuple):
        return item[0], _load(item[1])[1]
    if isinstance(item, (str, Path)):
        item = load_source(item)
    return type(item).__name__ if isinstance(item, nn.Module) else item.path.name, item


def _unique(labels: Sequence[str]) -> list[str]:
    """The labels, where the second of the same name has " (2)" behind it."""
    seen: Counter[str] = Counter()
    found = []
    for label in labels:
        seen[label] += 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found


def _runtimes(source: Source, wanted: Sequence[str] | None) -> list[str]:
    able = runtimes_for(format_of(source))
    return able[:1] if wanted is None else [name for name in wanted if name.removesuffix(GRAPH) in able]
