"""Shapes: what slimming is worth by the widths alone, with random weights and no training.

    python -m chase.benchmarks.shapes --json shapes.json [--smoke] [--device cuda]

ResNet-50 with the widths of the paper's Table 15, as they are and rounded up to 8, 16 and 32, and with half of every
group gone; VGG-19 for 32x32 images with half of every group gone. Each is timed in turn with its dense network on the
same runtime. What could not be measured is named, with the reason, in the environment under "left_out".
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.benchmarks import Report, Row, bench, table15
from chase.benchmarks.architectures import killed
from chase.benchmarks.cells import CPU, GPU, TF32, Cell, able_runtimes
from chase.benchmarks.environment import environment, environment_after
from chase.benchmarks.zoo import perturb_
from chase.counting import Counts, count
from chase.errors import ChaseError, reason
from chase.exporters import default_name, export
from chase.models import build
from chase.runtimes.base import resolve_device
from chase.slimming.groups import Group, prunable
from chase.slimming.network import cut
from chase.slimming.tracer import channel_groups
from chase.sparse.masks import Masks

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "vgg19": ("vgg19", {"num_classes": 100}, 32),
    "resnet50": ("torchvision:resnet50", {}, 224),
}
"""By name: the model, its settings, and the side of its images in pixels."""

TINY: dict[str, tuple[str, dict[str, Any], int]] = {"vgg8": ("vgg8", {"num_classes": 10, "width": 0.25}, 8)}
"""One that is measured only to see that everything works."""

SHAPES = {
    "vgg8": ("half",),
    "vgg19": ("half",),
    "resnet50": ("table15", "table15-to8", "table15-to16", "table15-to32", "half"),
}
"""What is timed beside each dense network; "to8" means widths rounded up to 8."""

SMOKE_SIDE = 64
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """A network of some shape, under the name of its rows, and its cost beside the dense one's."""

    name: str
    model: nn.Module
    counts: Counts


def shapes(network: str, names: Sequence[str] | None = None, *, side: int | None = None) -> tuple[list[Shape], Tensor]:
    """The dense network and then its other shapes, all with random weights, and an input [1, 3, side, side]."""
    model_name, settings, usual = (NETWORKS | TINY)[network]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(model_name, **settings).eval()
    perturb_(model, 0)
    example = torch.randn(1, 3, side or usual, side or usual, generator=torch.Generator().manual_seed(0))
    groups = channel_groups(model, example)
    dense = count(model, example)
    found = [Shape(f"{network}-dense", model, dense)]
    for name in SHAPES[network] if names is None else names:
        slim = shaped(model, groups, name)
        found.append(Shape(f"{network}-{name}", slim, count(slim, example, dense=dense)))
    return found, example


def shaped(model: nn.Module, groups: Sequence[Group], name: str) -> nn.Module:
    """The network in one of the shapes of SHAPES, cut by Chase's own slimming.

    Widths that are rounded up hold zeros there, as those of a trained network do.
    """
    kind, _, grid = name.partition("-to")
    masks = killed(model, groups, 0.5) if kind == "half" else table15_masks(model, groups)
    return cut(model, masks, round_to=int(grid or 1))[0].eval()


def table15_masks(model: nn.Module, groups: Sequence[Group]) -> Masks:
    """Masks of torchvision's resnet50 under which each convolution inside a block has the width of Table 15."""
    masks = Masks.dense(model, prunable(groups))
    wanted = table15.widths()
    for group in masks.groups:
        for producer in group.producers:
            if producer in wanted:
                masks.alive[group.name][wanted[producer] :] = False
    return masks


class Reduced(nn.Module):
    """A network that computes in another precision, from float32 to float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """The logits [b, classes], float32."""
        logits: Tensor = self.model(x.to(self.dtype))
        return logits.float()


def item(shape: Shape, cell: Cell, example: Tensor, folder: Path, *, max_batch: int) -> tuple[str, Any]:
    """The shape as `bench` takes it: a module, or a file in the folder, made for batches up to `max_batch` images.

    Raises:
        ChaseError: if it cannot be exported.
    """
    label = shape.name + cell.suffix
    if cell.format == "module":
        model = Reduced(shape.model, HALF[cell.precision]) if cell.precision in HALF else shape.model
        return label, copy.deepcopy(model).to(memory_format=torch.channels_last) if cell.channels_last else model
    facts = {
        "kind": "dense" if shape.name.endswith("-dense") else "slim",
        "macs": shape.counts.macs.to_dict(),
        "params": shape.counts.params.to_dict(),
    }
    precision = "fp32" if cell.precision == TF32 else cell.precision
    path = folder / shape.name / default_name(cell.format, precision)
    given: dict[str, Any] = {"format": cell.format, "precision": precision, "isolated": False}
    if cell.format == "tensorrt":
        given |= {"tf32": cell.precision == TF32, "batch_sizes": (1, min(8, max_batch), max_batch)}
    return label, export(shape.model, path, example=example, facts=facts, **given)


def rows(
    found: Sequence[Shape],
    cell: Cell,
    example: Tensor,
    *,
    batch_sizes: Sequence[int],
    device: torch.device,
    left_out: list[str],
    check: Callable[[], object] = bool,
    **given: Any,
) -> Iterator[list[Row]]:
    """The rows of all shapes in one cell, one runtime and batch size after the other; `given` goes to `bench`.

    What fails gives no rows and is named in `left_out`. `check` is called before each batch size, and may raise.
    """
    network = found[0].name.removesuffix("-dense") + cell.suffix
    given |= {"device": device, "example": example, "tf32": cell.precision == TF32}
    with tempfile.TemporaryDirectory() as folder:
        try:
            able = able_runtimes(cell, device, network, left_out)
            items = [item(shape, cell, example, Path(folder), max_batch=max(batch_sizes)) for shape in found if able]
        except ChaseError as error:
            left_out.append(f"{network} as {cell.format}: {reason(error)}")
            able = []
        for runtime in able:
            for size in batch_sizes:  # one at a time: a batch that is too large must not take the others with it
                check()
                try:
                    report = bench(items, runtimes=(runtime,), batch_sizes=(size,), **given)
                except (ChaseError, torch.OutOfMemoryError) as error:
                    left_out.append(f"{network} on {runtime}, batch size {size}: {reason(error)}")
                    yield []
                else:
                    yield [_completed(row, found, cell, example) for row in report.rows]


def _completed(row: Row, found: Sequence[Shape], cell: Cell, example: Tensor) -> Row:
    """The row with what a bare module does not know: the network it was cut from, and its precision."""
    counts = next(shape.counts for shape in found if shape.name + cell.suffix == row.artifact)
    more = {"input_shape": list(example.shape[1:]), "channels_last": cell.channels_last}
    return dataclasses.replace(
        row,
        precision=cell.precision,
        macs=counts.macs.to_dict(),
        params=counts.params.to_dict(),
        settings={**row.settings, **more},
    )


def measured(cells: Sequence[Cell], args: argparse.Namespace, command: Sequence[str]) -> Iterator[Report]:
    """The report after each batch size of each cell of each network, with all rows before it.

    Raises:
        ChaseError: if nothing could be measured.
    """
    device = resolve_device(args.device)
    given = {"device": device, "threads": args.threads, "budget_s": args.seconds}
    given["batch_sizes"] = args.batch_size or batch_sizes(device, smoke=args.smoke)
    before, left_out, done = environment(device) | {"threads": args.threads}, list[str](), list[Row]()
    for network in args.network or NETWORKS:
        names = [name for name in SHAPES[network] if args.shape is None or name in args.shape]
        found, example = shapes(network, names, side=SMOKE_SIDE if args.smoke and network == "resnet50" else None)
        for cell in cells:
            for more in rows(found, cell, example, left_out=left_out, **given):
                done += more
                if done:
                    after = environment_after(before) | {"left_out": list(left_out)}
                    yield Report(environment=after, rows=tuple(done), command=tuple(command))
    if not done:
        raise ChaseError(f"nothing could be measured: {'; '.join(left_out[:3])}")


def batch_sizes(device: torch.device, *, smoke: bool = False) -> tuple[int, ...]:
    """What is measured where no batch size is named."""
    if smoke:
        return (1, 2)
    return (1, 2, 8, 32, 128, 512) if device.type == "cuda" else (1, 2, 32)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write JSON after every batch size."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    args.seconds = args.seconds or (0.2 if args.smoke else 3.0)
    cells = [
        cell
        for cell in (GPU if args.device.startswith("cuda") else CPU)
        if cell.format in (args.format or (("onnx", "module") if args.smoke else (cell.format,)))
    ]
    try:
        for report in measured(cells, args, ["python", "-m", "chase.benchmarks.shapes", *argv]):
            report.save(args.json)
            last = report.rows[-1]
            sys.stderr.write(
                f"{len(report.rows)} rows; last: {last.artifact} on {last.runtime}, batch size {last.batch_size}\n"
            )
    except ChaseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chase.benchmarks.shapes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="for each shape at each batch size; default 3")
    parser.add_argument("--batch-size", type=int, action="append", help="repeatable")
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append", help="repeatable; default all")
    parser.add_argument("--format", choices=sorted({cell.format for cell in (*CPU, *GPU)}), action="append")
    parser.add_argument("--shape", choices=SHAPES["resnet50"], action="append", help="repeatable; default all")
    parser.add_argument("--smoke", action="store_true", help=f"ResNet-50 at {SMOKE_SIDE}x{SMOKE_SIDE}, briefly")
    return parser


if __name__ == "__main__":
    main()
