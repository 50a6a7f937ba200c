"""Which layers stay in fp32: those that the user names, and the fewest others with which a network meets its gate."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, fx, nn

from chase.exporters.job import Progress, silent
from chase.exporters.parity import Gate, compare, reference
from chase.exporters.precision.graph import flat, layers
from chase.exporters.precision.half import halved
from chase.exporters.precision.names import matching
from chase.exporters.precision.search import smallest
from chase.exporters.precision.simulate import Simulation

MARGIN_DB = 1.0
"""By how much a set that was searched for must exceed its gate, where it lies: runtimes round a bit otherwise."""


def in_half(
    model: nn.Module,
    example: Tensor,
    dtype: torch.dtype,
    *,
    samples: Tensor,
    gate: Gate,
    keep_fp32: Sequence[str] = (),
    progress: Progress = silent,
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The model computing in `dtype` inside, and the names of the layers that do not.

    Layers that `keep_fp32` names, by patterns such as "layer4.*", stay in float32. If the answers on `samples` [n, ...]
    then miss the `gate`, the fewest further layers that meet it stay too (see `smallest`). That is decided by
    simulation, at about one float32 forward pass for each candidate.

    Raises:
        RecipeError: if a pattern matches no layer.
        ExportError: if torch.export cannot follow the model.
        ParityError: if not even float32 meets the gate.
    """
    module = flat(model, example)
    simulation = Simulation(module, dtype)
    kept = kept_in_fp32(
        layers(module),
        lambda kept: simulation.answers(samples, kept),
        reference(model, samples),
        chosen=matching(keep_fp32, layers(module)),
        gate=gate,
        progress=progress,
    )
    return halved(module, dtype, kept), tuple(layer for layer in layers(module) if layer in kept)


def kept_in_fp32(
    names: Sequence[str],
    answers: Callable[[Collection[str]], Tensor],
    expected: Tensor,
    *,
    chosen: Collection[str],
    gate: Gate,
    progress: Progress,
) -> frozenset[str]:
    """The `chosen` layers, and the fewest others among `names` whose `answers` meet the gate with them.

    Raises:
        ParityError: if not even all layers in fp32 meet the gate.
    """
    trials = itertools.count(1)

    def passes(kept: Collection[str]) -> bool:
        trial = next(trials)
        progress(trial, trial + 1, f"trying {len(kept) + len(chosen)} layers in fp32")
        parity = compare(expected, answers({*chosen, *kept}), name="the network")
        return (_with_margin(gate) if kept else gate).failure(parity) is None

    return frozenset(chosen) | set(smallest([name for name in names if name not in chosen], passes))


def _with_margin(gate: Gate) -> Gate:
    return gate if gate.snr_db is None else dataclasses.replace(gate, snr_db=gate.snr_db + MARGIN_DB)
