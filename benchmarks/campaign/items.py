"""The items of a campaign, most valuable first."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chase.benchmarks.campaign.accuracy import METHODS, Training
from chase.benchmarks.campaign.runner import Item, Job, Rows
from chase.benchmarks.campaign.training import Slimming
from chase.benchmarks.cells import GPU, Cell
from chase.benchmarks.overhead import measure
from chase.benchmarks.shapes import NETWORKS, SHAPES, TINY, rows, shapes
from chase.benchmarks.steps import Workload

CIFAR = {"num_classes": 100}
COMPILED = ("compiled",)
RECIPES = ("cifar100-vgg19", "cifar100-resnet50")


@dataclass(frozen=True)
class Scale:
    """How much is measured: networks and the cells that their shapes are run in, seconds for each thing that is timed,
    what is trained (and whether with prune_skip), changes of the recipes; `left_out` names what is less than all."""

    networks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    seconds: float
    overhead: tuple[Workload, ...]
    training: tuple[tuple[Workload, bool], ...]
    sparsities: tuple[float, ...]
    assignments: tuple[str, ...] = ()
    recipes: tuple[str, ...] = RECIPES
    cells: tuple[Cell, ...] = GPU
    left_out: tuple[str, ...] = ()


def full(device: torch.device) -> Scale:
    """What a GPU is asked."""
    given: dict[str, Any] = {"device": str(device), "precision": "bf16", "channels_last": True, "batch_size": 128}
    resnet50 = Workload(model="torchvision:resnet50", side=224, **given)
    vgg19, resnet18 = (Workload(model=name, settings=CIFAR, **given) for name in ("vgg19", "cifar-resnet18"))
    return Scale(
        networks=("resnet50", "vgg19"),
        batch_sizes=(1, 2, 8, 32, 128),
        seconds=0.5,
        overhead=(resnet50, vgg19),
        training=((vgg19, False), (resnet18, False), (resnet50, False), (resnet50, True), (resnet18, True)),
        sparsities=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        assignments=("training.amp=bf16", "training.channels_last=true") if device.type == "cuda" else (),
    )


def smoke(device: torch.device) -> Scale:
    """The same in little, to see that all of it works."""
    given: dict[str, Any] = {"device": str(device), "precision": "bf16", "batch_size": 4, "side": 8}
    tiny = Workload(model="vgg8", settings={"num_classes": 10, "width": 0.25}, channels_last=True, **given)
    return Scale(
        networks=("vgg8",),
        batch_sizes=(1, 2),
        seconds=0.05,
        overhead=(tiny,),
        training=((tiny, False), (Workload(model="cifar-resnet20", settings={"num_classes": 10}, **given), True)),
        sparsities=(0.0, 0.5),
        assignments=(
            "model={name: vgg8, width: 0.25}",
            "data={name: synthetic, shape: [3, 8, 8], train: 64, test: 32, batch_size: 16, validation: 0.0}",
            "training.epochs=2",
        ),
        recipes=RECIPES[:1],
        cells=tuple(cell for cell in GPU if cell.runtimes != COMPILED or cell == Cell("module", COMPILED)),
        left_out=("compiled in other precisions and layouts than fp32, and large networks: this is a smoke run",),
    )


def items(scale: Scale, device: torch.device, *, data: Path | None = None) -> list[Item]:
    """All items, in the order in which they are measured; `data` is where CIFAR-100 is."""
    compiled = [cell for cell in scale.cells if cell.runtimes == COMPILED]
    modules = [cell for cell in scale.cells if cell.format == "module" and cell not in compiled]
    files = [cell for cell in scale.cells if cell.format != "module"]

    def shaped(cells: Sequence[Cell]) -> Iterator[Item]:
        return (_shapes(scale, network, cell, device) for network in scale.networks for cell in cells)

    return [
        *shaped([cell for cell in modules if not cell.channels_last]),
        *(_overhead(scale, work) for work in scale.overhead),
        *(_training(scale, work, prune_skip) for work, prune_skip in scale.training),
        *shaped([cell for cell in modules if cell.channels_last]),
        *shaped(files),
        *(_overhead(scale, Workload(**work.to_dict() | {"compiled": True})) for work in scale.overhead),
        *shaped(compiled),
        *(_accuracy(scale, recipe, name, device, data) for recipe in scale.recipes for name in METHODS),
    ]


_made = functools.lru_cache(maxsize=2)(shapes)
"""The shapes of a network, which many items in a row share."""


def _shapes(scale: Scale, network: str, cell: Cell, device: torch.device) -> Item:
    given: dict[str, Any] = {
        "batch_sizes": scale.batch_sizes,
        "device": device,
        "threads": 1,
        "budget_s": scale.seconds,
    }

    def run(job: Job) -> Iterator[Rows]:
        found, example = _made(network)
        for more in rows(found, cell, example, left_out=job.left_out, check=job.check, **given):
            yield [row.to_dict() for row in more]

    kinds = [cell.format] if cell.format != "module" else []
    words = [network, *kinds, cell.runtimes[0], cell.precision, *(["channels-last"] if cell.channels_last else [])]
    settings = {"network": network, "side": (NETWORKS | TINY)[network][2], "shapes": list(SHAPES[network])}
    settings |= {"format": cell.format, "runtimes": list(cell.runtimes), "precision": cell.precision}
    settings |= {"channels_last": cell.channels_last} | given | {"device": place_of(device)}
    return Item("-".join(["shapes", *dict.fromkeys(words)]), "shapes", settings, run)


def _overhead(scale: Scale, work: Workload) -> Item:
    def run(job: Job) -> Iterator[Rows]:
        yield [measure(work, seconds=10 * scale.seconds)]

    words = ["overhead", _short(work), *(["compiled"] if work.compiled else [])]
    settings = {"work": work.to_dict(), "seconds": 10 * scale.seconds, "device": place_of(torch.device(work.device))}
    return Item("-".join(words), "overhead", settings, run)


def _training(scale: Scale, work: Workload, prune_skip: bool) -> Item:
    slimming = Slimming(work, scale.sparsities, prune_skip, 4 * scale.seconds)
    words = ["training", _short(work), *(["prune-skip"] if prune_skip else [])]
    return Item(
        "-".join(words),
        "training",
        slimming.settings() | {"device": place_of(torch.device(work.device))},
        slimming.run,
    )


def _accuracy(scale: Scale, recipe: str, method: str, device: torch.device, data: Path | None) -> Item:
    training = Training(recipe, method, (*scale.assignments, *_data(data)), str(device))
    settings = training.settings() | {"device": place_of(device)}
    return Item(f"accuracy-{recipe}-{method}", "accuracy", settings, training.run)


def _data(path: Path | None) -> tuple[str, ...]:
    """The recipe's settings for CIFAR-100 in torchvision's folder, in an .npz archive or in a tree of images."""
    if path is None:
        return ()
    if (path / "cifar-100-python").is_dir():
        return (f"data.root={json.dumps(str(path))}",)
    padded = ("data.pad=4",) if path.suffix == ".npz" else ()
    return (f"data.name={json.dumps(str(path))}", *padded)


def _short(work: Workload) -> str:
    return work.model.rpartition(":")[2]


def place_of(device: torch.device) -> str:
    """What the figures are of: the GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
