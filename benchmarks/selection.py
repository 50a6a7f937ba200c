"""Four ways to find the weights that stay: `python -m chase.benchmarks.selection --out FILE`.

The exact selection of `chase.sparse`, layer by layer; a threshold that is bisected, also layer by layer, until the
count is right within a tolerance (paper Appendix F, Algorithm 2, whose fixed increments need more passes); and
`torch.topk` over all layers at once. Each prunes the same masks and takes its result over into the same memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chase.benchmarks.children import cost
from chase.benchmarks.environment import environment
from chase.benchmarks.statistics import summary
from chase.benchmarks.timing import interleave, watch_for
from chase.files import write_json
from chase.models import build
from chase.sparse.masks import maskable
from chase.sparse.update import prune, random_masks

PASSES = 64
"""More than a bisection of floats can use."""


@dataclass(frozen=True)
class Selection:
    """Masks to prune: |w| of the living weights are the scores, `keep` of all stay, `result` takes the new masks."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    result: dict[str, Tensor]
    keep: int

    @classmethod
    def of(cls, model: str, *, density: float, keep: float) -> Selection:
        """Random weights of a network of which `density` live at random, and `keep` are to stay, both of all."""
        torch.manual_seed(0)
        weights = {name: weight.detach() for name, weight in maskable(build(model, num_classes=100)).items()}
        counts = {name: round(density * weight.numel()) for name, weight in weights.items()}
        masks = random_masks(counts, weights, seed=0)
        total = sum(weight.numel() for weight in weights.values())
        return cls(weights, masks, {name: mask.clone() for name, mask in masks.items()}, round(keep * total))

    @property
    def sizes(self) -> list[int]:
        """The weights of each layer."""
        return [weight.numel() for weight in self.weights.values()]

    @property
    def kept(self) -> int:
        """How many weights stay by the last result."""
        return sum(int(mask.count_nonzero()) for mask in self.result.values())

    def exact(self) -> None:
        """By two histograms of the scores' bits."""
        for name, mask in prune(self.masks, self.weights.__getitem__, self.keep):
            self.result[name].copy_(mask)

    def bisected(self, tolerance: float) -> None:
        """By a threshold, halving the interval it lies in until the count is right within `tolerance` · keep."""
        low, high = 0.0, max(float(self._scores(name).max()) for name in self.weights)
        for _ in range(PASSES):
            threshold = (low + high) / 2
            found = sum(int((self._scores(name) > threshold).count_nonzero()) for name in self.weights)
            if abs(found - self.keep) <= tolerance * self.keep:
                break
            low, high = (threshold, high) if found > self.keep else (low, threshold)
        for name, mask in self.result.items():
            mask.copy_(self._scores(name) > threshold)

    def topk(self) -> None:
        """By torch, among all scores in one tensor."""
        scores = torch.cat([self._scores(name).flatten() for name in self.weights])
        chosen = torch.zeros_like(scores)
        chosen[scores.topk(self.keep, sorted=False).indices] = 1
        for mask, part in zip(self.result.values(), chosen.split(self.sizes), strict=True):
            mask.copy_(part.view_as(mask))

    def _scores(self, name: str) -> Tensor:
        return self.weights[name].abs().mul_(self.masks[name])


def ways(selection: Selection) -> dict[str, Callable[[], None]]:
    """All of them, by name."""
    return {
        "exact": selection.exact,
        "bisected to 1e-3": partial(selection.bisected, 1e-3),
        "bisected to 1e-4": partial(selection.bisected, 1e-4),
        "topk": selection.topk,
    }


def measure(selection: Selection, *, seconds: float) -> list[dict[str, Any]]:
    """A row for each way: its processor time, the memory beside weights and masks, and how far its count is off."""
    rows = []
    timed = interleave(
        ways(selection), watch=watch_for(torch.device("cpu")), budget_s=seconds, warmup_calls=2, min_rounds=5
    )
    for name, way in ways(selection).items():
        spent: dict[str, Any] = {}
        with cost(spent):
            way()
        samples = timed[name].cpu_ms
        rows.append(
            {
                "way": name,
                "cpu_ms": summary(samples)["p50"],
                "extra_mb": spent["extra_mb"],
                "off_by": selection.kept - selection.keep,
                "samples_ms": samples,
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="cifar-resnet50")
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    selection = Selection.of(args.model, density=0.15, keep=0.1)
    rows = measure(selection, seconds=args.seconds)
    command = ["python", "-m", "chase.benchmarks.selection", *(sys.argv[1:] if argv is None else argv)]
    case = {"model": args.model, "weights": sum(selection.sizes), "keep": selection.keep}
    write_json(args.out, {"environment": environment(), "command": command, **case, "rows": rows})


if __name__ == "__main__":
    main()
