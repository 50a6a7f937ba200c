"""What the cells of the tables hold."""

from __future__ import annotations

import math
import statistics
from functools import cache

import torch

from chase.benchmarks.paper.table import Inapplicable, Measure
from chase.benchmarks.paper.trained import Trained

ACCURACY = Measure("test accuracy in percent", lambda trained: float(trained.masked["test_accuracy"]))
"""Top-1 of the masked network, and so of the slim one, which is proved to be the same function."""

TEST_MACS = Measure(
    "theoretical MACs relative to the dense network",
    lambda trained: trained.facts["macs"]["theoretical"] / trained.facts["macs"]["dense"],
)
EXECUTED_MACS = Measure(
    "executed MACs relative to the dense network",
    lambda trained: trained.facts["macs"]["gpu_supported"] / trained.facts["macs"]["dense"],
)
EXECUTED_TRAINING = Measure(
    "executed MACs of the training relative to a dense one",
    lambda trained: trained.facts["training_macs"]["gpu_supported"] / trained.facts["training_macs"]["dense"],
)
DENSE_MACS = Measure("MACs of the dense network in millions", lambda trained: trained.facts["macs"]["dense"] / 1e6)
CHANNEL_SPARSITY = Measure("channel sparsity", lambda trained: float(trained.facts["channel_sparsity"]), 3)
PARAMETERS = Measure(
    "nonzero parameters relative to the dense network",
    lambda trained: trained.facts["params"]["nonzero"] / trained.facts["params"]["dense"],
)


def train_macs(length: float = 1.0) -> Measure:
    """Theoretical MACs of a training of some length (1.5 for 1.5×), relative to a dense training of length 1."""

    def of(trained: Trained) -> float:
        spent = trained.facts["training_macs"]
        return length * float(spent["theoretical"] / spent["dense"])

    return Measure("theoretical MACs of the training relative to a dense one", of)


def latency(batch_size: int) -> Measure:
    """The median time of a batch."""
    return Measure(f"ms a batch of {batch_size}", lambda trained: trained.speed(batch_size).latency_ms["p50"])


def throughput(batch_size: int) -> Measure:
    """Images per second."""
    return Measure(f"images/s in batches of {batch_size}", lambda trained: trained.speed(batch_size).throughput)


def speedup(batch_size: int) -> Measure:
    """How many times as fast as the dense network, timed in turn with it."""

    def of(trained: Trained) -> float:
        found = trained.speed(batch_size).speedup_vs_dense
        if found is None:
            raise Inapplicable("no channel has left, so it runs as the dense network does")
        return float(found["median"])

    return Measure(f"times as fast as dense, batches of {batch_size}", of)


def width(layer: str) -> Measure:
    """The output channels of a layer."""
    return Measure(f"output channels of {layer}", lambda trained: len(trained.weight(layer)), 0)


def zeros(layer: str) -> Measure:
    """The zeros of a layer in percent of its slim shape."""

    def of(trained: Trained) -> float:
        weight = trained.weight(layer)
        return 100 * (1 - int(torch.count_nonzero(weight)) / weight.numel())

    return Measure(f"zeros in {layer} in percent", of)


def prunability(criterion: str, share: float) -> Measure:
    """Accuracy in percent after a share of the channels has left at once by a criterion, without fine-tuning."""

    def of(trained: Trained) -> float:
        found = trained.prunability
        if criterion in found["left_out"]:
            raise Inapplicable(found["left_out"][criterion])
        matches = (row for row in found["rows"] if (row["criterion"], row["share"]) == (criterion, share))
        return float(next(matches)["accuracy"])

    return Measure(f"test accuracy in percent after pruning {share:.0%} by {criterion}", of)


def amenable(
    metric: str, v: str, layer: str | None, *, epoch: int, epochs: int, part: tuple[float, float] = (0, 1)
) -> Measure:
    """The share of sparse amenable channels of a layer after an epoch, or its mean over a part of all layers.

    `epochs` is the paper's length of the training; a shorter one is looked at after the same fraction of it.
    """

    def of(trained: Trained) -> float:
        here = trained.recipe.training.epochs
        record = trained.epochs[math.ceil(epoch / epochs * here) - 1]["amenable"][metric][v]
        if layer is None:
            shares = list(record.values())
            return statistics.fmean(shares[math.floor(part[0] * len(shares)) : math.ceil(part[1] * len(shares))])
        if layer not in record:
            raise Inapplicable(f"{trained.recipe.model.name} has no such layer")
        return float(record[layer])

    return Measure(f"share of sparse amenable channels ({metric}, v = {v})", of)


@cache
def table15_macs() -> dict[str, float]:
    """MACs of a ResNet-50 with the widths and the zeros of Table 15: dense in millions, the others relative to that."""
    from chase.benchmarks import table15
    from chase.benchmarks.shapes import table15_masks
    from chase.counting import cost_of, macs_at_widths
    from chase.models import build
    from chase.slimming.tracer import groups_of
    from chase.tracing import trace

    model, example = build("torchvision:resnet50"), torch.zeros(1, 3, 224, 224)
    traced = trace(model, example)
    spent = cost_of(traced)
    shapes = table15_masks(model, groups_of(model, traced, example)).shapes()
    left = {f"{layer}.weight": 1 - zeros / 100 for layer, zeros in table15.sparsities().items()}
    nonzero = {name: round(math.prod(shape) * left[name]) for name, shape in shapes.items()}
    return {
        "theoretical": spent.macs_of(nonzero) / spent.macs,
        "executed": macs_at_widths(spent, shapes) / spent.macs,
        "dense": spent.macs / 1e6,
    }
