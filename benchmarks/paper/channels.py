"""What the paper says of channels: Table 2 (one-shot pruning by criterion), Table 14 and Figure 2 (amenable ones)."""

from __future__ import annotations

from collections.abc import Iterator

from chase.benchmarks.paper import published
from chase.benchmarks.paper.blocks import cifar, imagenet, trained_by, vit
from chase.benchmarks.paper.measures import ACCURACY, amenable, prunability
from chase.benchmarks.paper.table import Cell, Table, Training
from chase.sparse.criteria import CHANNEL_SCORES

SHARES = {"10 %": 0.1, "20 %": 0.2, "30 %": 0.3}
UNPRUNED = "Standard RigL"


def table2() -> Table:
    """Every criterion there is; the paper has the first eight."""
    return Table(
        title="Table 2: test accuracy (%) after one-shot channel pruning, ResNet-50 on CIFAR-100 after RigL",
        cells=tuple(_table2()),
        notes=("The paper does not state the sparsity; 90 % here.", "Criteria without a printed number are ours."),
    )


def _table2() -> Iterator[Cell]:
    made = trained_by(cifar("ResNet-50", "CIFAR-100"), "rigl", sparsity=0.9)
    for row in dict.fromkeys([*published.TABLE2, *CHANNEL_SCORES]):
        for column, share in SHARES.items():
            measure = ACCURACY if row == UNPRUNED else prunability(row, share)
            paper = published.TABLE2.get(row, {}).get(column)
            yield Cell(row=row, column=column, training=made, measure=measure, paper=paper)


def _settings() -> dict[str, tuple[Training, int]]:
    """The trainings of Table 14 by the paper's names, with their lengths in epochs."""
    recipes = {
        "ResNet-32/CIFAR-100": (cifar("ResNet-32", "CIFAR-100"), 160),
        "VGG-16/CIFAR-100": (cifar("VGG-16", "CIFAR-100"), 160),
        "ResNet-50/ImageNet": (imagenet(), 100),
        "ViT-Small/ImageNet": (vit(), 100),
        "MLP/CIFAR-10": (cifar("MLP", "CIFAR-10"), 160),
    }
    return {name: (trained_by(recipe, "rigl", sparsity=0.9), epochs) for name, (recipe, epochs) in recipes.items()}


LAYERS = {
    "blocks.3.conv1": "layer1.3.conv1",
    "blocks.6.conv1": "layer2.1.conv1",
    "fc1": "1",
    "fc2": "3",
}
"""The paper's names of layers and ours, where they differ."""


def table14() -> Table:
    """Amenable shares of ten layers in five settings."""
    return Table(
        title="Table 14: share of sparse amenable channels (UMM, v = 20 %)",
        cells=tuple(_table14()),
        notes=(
            "The paper states neither the method nor the sparsity; RigL at 90 % here.",
            "Shorter trainings are looked at after the same fraction of their epochs.",
        ),
    )


def _table14() -> Iterator[Cell]:
    settings = _settings()
    numbers = [(row, int(epoch), paper) for row, cells in published.TABLE14.items() for epoch, paper in cells.items()]
    for row, epoch, paper in sorted(numbers, key=lambda number: number[1]):
        setting, _, layer = row.partition(" ")
        made, length = settings[setting]
        measure = amenable("umm", "0.2", LAYERS.get(layer, layer), epoch=epoch, epochs=length)
        yield Cell(row=row, column=f"{epoch} epochs", training=made, measure=measure, paper=paper)


def figure2() -> Table:
    """Amenable shares under RigL and SET, by both metrics and four thresholds."""
    return Table(
        title="Figure 2: share of sparse amenable channels, mean over layers, ResNet-50 on CIFAR-100",
        cells=tuple(_figure2()),
        notes=("The figure has no printed numbers.", "The paper does not state the sparsity; 90 % here."),
    )


def _figure2() -> Iterator[Cell]:
    columns = {f"{epoch} epochs": (epoch, (0.0, 1.0)) for epoch in (10, 20, 40, 100, 160)}
    columns |= {"first half of layers": (160, (0.0, 0.5)), "second half": (160, (0.5, 1.0))}
    for label, name in (("RigL", "rigl"), ("SET", "set")):
        made = trained_by(cifar("ResNet-50", "CIFAR-100"), name, sparsity=0.9)
        for metric in ("umm", "ws"):
            for v in ("0", "0.2", "0.3", "0.4"):
                for column, (epoch, part) in columns.items():
                    measure = amenable(metric, v, None, epoch=epoch, epochs=160, part=part)
                    row = f"{label}, {metric.upper()}, v = {float(v):.0%}"
                    yield Cell(row=row, column=column, training=made, measure=measure)
