"""Tables on ImageNet and of speed: 4 (accuracy and FLOPs), 5 and 12 (throughput and latency), 15 (learnt widths)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chase.benchmarks import table15 as printed
from chase.benchmarks.paper import measures, published
from chase.benchmarks.paper.blocks import SPARSITY, cifar, imagenet, trained_by
from chase.benchmarks.paper.published import Published
from chase.benchmarks.paper.table import Cell, Measure, Table, Training
from chase.recipe import Recipe


def _training(recipe: Recipe, label: str, sparsity: float) -> Training:
    """The recipe by a method as Tables 4, 5 and 12 call it: `Chase prune skip (S_c = 0.5)`, `RigL`, `Dense`."""
    if label == "Dense":
        return trained_by(recipe, "dense")
    if not label.startswith("Chase"):
        return trained_by(recipe, label.lower(), sparsity=sparsity)
    channels = float(label.partition("S_c = ")[2].rstrip(")"))
    return trained_by(recipe, "chase", sparsity=sparsity, channel_sparsity=channels, prune_skip="prune skip" in label)


def table4() -> Table:
    """Every method on ImageNet, in 100 and in 150 epochs."""
    return Table(
        title="Table 4: ResNet-50 on ImageNet, top-1 (%) and FLOPs relative to the dense network",
        cells=tuple(_table4()),
        notes=(
            "FLOPs (train) are theoretical MACs of all passes, with dense gradients where growth needs them; 150 "
            "epochs count 1.5 times.",
            "GPU FLOPs are the MACs that the slim network executes.",
        ),
    )


def _table4() -> Iterator[Cell]:
    for label, values in published.TABLE4.items():
        longer = "1.5×" in label
        for column, paper in values.items():
            sparsity, measure = column[:4], column[5:]
            made = _training(imagenet(longer), label.replace(" 1.5×", ""), SPARSITY[sparsity])
            of = {
                "accuracy": measures.ACCURACY,
                "train FLOPs": measures.train_macs(1.5 if longer else 1.0),
                "test FLOPs": measures.TEST_MACS,
                "GPU FLOPs": measures.EXECUTED_MACS,
            }[measure]
            yield Cell(row=label, column=column, training=made, measure=of, paper=paper)


def _fast(row: str, made: Training, batch_size: int, numbers: Mapping[str, Published | None]) -> Iterator[Cell]:
    """Accuracy, throughput and latency as printed; and, paired, how many times as fast as dense."""
    columns: dict[str, Measure] = {
        "accuracy": measures.ACCURACY,
        "throughput": measures.throughput(batch_size),
        "latency": measures.latency(batch_size),
        "times as fast as dense": measures.speedup(batch_size),
        "executed MACs": measures.EXECUTED_MACS,
    }
    for column, measure in columns.items():
        yield Cell(row=row, column=column, training=made, measure=measure, paper=numbers.get(column))


TIMING = (
    "Throughput in images/s, latency in ms a batch (of 128 on CIFAR, of 2 on ImageNet), eager PyTorch in float32.",
    "The paper's are from an RTX 2080 Ti; only ratios can be compared. The last two columns it does not print.",
)


def table5() -> Table:
    """The speed of Chase beside RigL."""
    cells: list[Cell] = []
    for row, numbers in published.TABLE5.items():
        where, _, label = row.partition(": ")
        data, _, model = where.partition(", ")
        recipe = imagenet() if data == "ImageNet" else cifar(model, data)
        cells += _fast(row, _training(recipe, label, 0.9), 2 if data == "ImageNet" else 128, numbers)
    return Table(title="Table 5: throughput and latency at 90 % sparsity", cells=tuple(cells), notes=TIMING)


def table12() -> Table:
    """The speed of ResNet-50 at more channel sparsities."""
    cells: list[Cell] = []
    for row, numbers in published.TABLE12.items():
        sparsity, _, label = row.partition(", ")
        cells += _fast(row, _training(imagenet(), label, SPARSITY[sparsity]), 2, numbers)
    title = "Table 12: ResNet-50 on ImageNet, throughput and latency by channel sparsity"
    return Table(title=title, cells=tuple(cells), notes=TIMING)


def table15() -> Table:
    """The widths and the sparsity of each layer that Chase learns, and what they leave of the MACs."""
    made = _training(imagenet(), "Chase (S_c = 0.4)", 0.8)
    widths = {name.removesuffix(".weight"): width for name, width in printed.widths().items()}
    cells = [*_as_printed(), *_learnt(made)]
    for layer, zeros in printed.sparsities().items():
        wide = Published(widths[layer]) if layer in widths else None
        cells += (
            Cell(row=layer, column="width", training=made, measure=measures.width(layer), paper=wide),
            Cell(row=layer, column="zeros (%)", training=made, measure=measures.zeros(layer), paper=Published(zeros)),
        )
    return Table(
        title="Table 15: widths and sparsity of ResNet-50 learnt on ImageNet at 80 % sparsity, S_c = 0.4",
        cells=tuple(cells),
        notes=(
            "Theoretical and executed MACs are relative to the dense network; the paper's are those of its Table 4.",
            "The printed zeros, read as shares of the slim shapes, leave 0.23 of the MACs in theory, not 0.37, and "
            "11 % of the dense network's weights, not 20 %; read as shares of the dense shapes they do not fit in.",
        ),
    )


def _as_printed() -> Iterator[Cell]:
    """What is counted of a network with exactly the printed widths and zeros."""
    counted = {
        "theoretical MACs": (lambda _: measures.table15_macs()["theoretical"], 4, 0.37),
        "executed MACs": (lambda _: measures.table15_macs()["executed"], 4, 0.68),
        "dense MACs (M)": (lambda _: measures.table15_macs()["dense"], 0, 4100),
        "channel sparsity": (lambda _: printed.channel_sparsity(), 4, 0.4),
    }
    for column, (of, digits, paper) in counted.items():
        measure = Measure(f"{column}, counted", of, digits)
        yield Cell(row="as printed", column=column, training=None, measure=measure, paper=Published(paper))


def _learnt(made: Training) -> Iterator[Cell]:
    """The same of the network that is trained here."""
    measured = {
        "theoretical MACs": measures.TEST_MACS,
        "executed MACs": measures.EXECUTED_MACS,
        "dense MACs (M)": measures.DENSE_MACS,
        "channel sparsity": measures.CHANNEL_SPARSITY,
    }
    for column, measure in measured.items():
        yield Cell(row="all layers", column=column, training=made, measure=measure)
