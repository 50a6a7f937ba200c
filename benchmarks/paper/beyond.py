"""Tables that the paper does not have: every method, every criterion, the usual baselines, what improves Chase, and
whether a training that is compacted on its way learns the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from chase.benchmarks.paper.blocks import chase, cifar, trained_by
from chase.benchmarks.paper.measures import ACCURACY, EXECUTED_MACS, EXECUTED_TRAINING, PARAMETERS, TEST_MACS
from chase.benchmarks.paper.table import Cell, Measure, Table, Training
from chase.recipe import Recipe
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.methods import METHODS

COLUMNS = {
    "accuracy": ACCURACY,
    "executed MACs": EXECUTED_MACS,
    "theoretical MACs": TEST_MACS,
    "parameters": PARAMETERS,
}
RELATIVE = "MACs and parameters other than zero are relative to the dense network."
HALF = 0.5
"""The share of the dense network's MACs that is executed in the end, in tables at equal executed MACs."""
EQUAL = {"channel_sparsity": 0.0, "executed_macs": HALF}
"""Settings of a method that ends there."""
AT_ONCE, STEP_BY_STEP = (0.5, 0.5), (0.25, 0.75)
"""From which part of a training to which channels leave a dense network, which is fine-tuned in the rest."""


def _recipes() -> dict[str, Recipe]:
    return {model: cifar(model, "CIFAR-100") for model in ("VGG-19", "ResNet-50")}


def _cells(rows: Mapping[str, Training], columns: Mapping[str, Measure] = COLUMNS) -> Iterator[Cell]:
    for row, made in rows.items():
        for column, measure in columns.items():
            yield Cell(row=row, column=column, training=made, measure=measure)


def methods() -> Table:
    """Every entry of METHODS as it comes, at 90 % sparsity unless it is dense by its nature."""
    recipe = cifar("VGG-19", "CIFAR-100")
    rows = {name: trained_by(recipe, name) for name in METHODS}
    for distribution in ("er", "uniform"):
        rows[f"static, {distribution}"] = trained_by(recipe, "static", distribution=distribution)
    title = "Every method in one harness, VGG-19 on CIFAR-100, test accuracy (%)"
    return Table(title=title, cells=tuple(_cells(rows)), notes=(RELATIVE,))


def criteria() -> Table:
    """Chase with every channel criterion in place of UMM, at equal executed MACs."""
    recipe = cifar("VGG-19", "CIFAR-100")
    rows = {name: chase(recipe, **EQUAL, criterion=name) for name in CHANNEL_SCORES}
    title = "Every channel criterion, gradually, VGG-19 on CIFAR-100, 90 % sparsity, test accuracy (%)"
    return Table(title=title, cells=tuple(_cells(rows)), notes=(RELATIVE,))


def baselines() -> Table:
    """Chase beside what one would otherwise do: train dense, prune channels, fine-tune; equal epochs and MACs."""
    rows = {f"{model}: {label}": made for model, recipe in _recipes().items() for label, made in _baselines(recipe)}
    return Table(
        title="Baselines at equal total epochs and equal executed MACs, CIFAR-100, test accuracy (%)",
        cells=tuple(_cells(rows)),
        notes=(
            RELATIVE,
            "One-shot: all channels leave half-way. Iterative: from a quarter to three quarters of the training.",
        ),
    )


def _baselines(recipe: Recipe) -> Iterator[tuple[str, Training]]:
    yield "Dense", trained_by(recipe, "dense")
    yield "Chase (S_c = 0.5)", chase(recipe, channel_sparsity=0.5)
    yield "Chase", chase(recipe, **EQUAL)
    yield "Chase prune skip", chase(recipe, prune_skip=True, **EQUAL)
    yield "RigL+GACP", trained_by(recipe, "rigl-gacp", **EQUAL)
    for criterion in ("fpgm", "l1", "network-slimming", "group-fisher"):
        for label, when in (("one-shot", AT_ONCE), ("iterative", STEP_BY_STEP)):
            yield f"{criterion}, {label}, fine-tuned", _fine_tuned(recipe, criterion, when)


def _fine_tuned(recipe: Recipe, criterion: str, when: tuple[float, float]) -> Training:
    """A dense network that loses channels by a criterion, all in that part of its training."""
    start, stop = when
    return trained_by(recipe, "prune-finetune", **EQUAL, criterion=criterion, channel_start=start, stop=stop)


def improvements() -> Table:
    """Settings beyond the paper that may help Chase, at equal executed MACs."""
    rows = {f"{model}: {label}": made for model, recipe in _recipes().items() for label, made in _improvements(recipe)}
    return Table(
        title="Settings beyond the paper at equal executed MACs, CIFAR-100, test accuracy (%)",
        cells=tuple(_cells(rows)),
        notes=(
            RELATIVE,
            "Sparsity of Chase is 90 % unless a row says otherwise.",
            "The teacher of a distillation is the dense network, trained as long.",
        ),
    )


def _improvements(recipe: Recipe) -> Iterator[tuple[str, Training]]:
    base, teacher = chase(recipe, **EQUAL), trained_by(recipe, "dense")
    yield "Dense, pruned by l1, fine-tuned", _fine_tuned(recipe, "l1", STEP_BY_STEP)
    yield "Chase", base
    for label, settings in (
        ("normalise = layer", {"normalise": "layer"}),
        ("normalise = macs", {"normalise": "macs"}),
        ("channel_scope = layer", {"channel_scope": "layer"}),
        ("channel_regrowth = 0.2", {"channel_regrowth": 0.2}),
        ("sparsity = 0.5", {"sparsity": HALF}),
        ("sparsity = 0.5, normalise = layer", {"sparsity": HALF, "normalise": "layer"}),
    ):
        yield f"Chase, {label}", chase(base.recipe, **settings)
    yield "Chase, distillation", _distilled(base.recipe, teacher)


def _distilled(recipe: Recipe, teacher: Training) -> Training:
    """The recipe with half of its loss from the answers of a teacher."""
    return Training(
        recipe=replace(recipe, training=replace(recipe.training, distillation=0.5)), before={"teacher": teacher}
    )


def compaction() -> Table:
    """Chase with dead channels cut out of the training itself, beside the same with masks to its end."""
    rows = {
        f"{model}: {label}": _compacted(chase(recipe, normalise="layer"), marks)
        for model, recipe in _recipes().items()
        for label, marks in (("masked", "off"), ("compacted", "auto"))
    }
    return Table(
        title="In-training slimming, CIFAR-100, 90 % sparsity, S_c = 0.5, test accuracy (%)",
        cells=tuple(_cells(rows, {"accuracy": ACCURACY, "executed training MACs": EXECUTED_TRAINING, **COLUMNS})),
        notes=(RELATIVE, "Channels are ranked relative to their layer (normalise = layer)."),
    )


def _compacted(training: Training, marks: str) -> Training:
    """The same, with another setting of `training.compact`."""
    recipe = training.recipe
    return replace(training, recipe=replace(recipe, training=replace(recipe.training, compact=marks)))
