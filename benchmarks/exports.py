"""Every format: slimmed networks of a zoo through all exporters, with the parity that each file had.

    python -m chase.benchmarks.exports --json exports.json --markdown

Each network has random weights that look trained and loses random channels of every group, so that its widths are
odd. A file is written, run in a fresh process at two batch sizes and held to the gate of its precision. TensorRT-RTX
engines are built ahead of time for several GPUs; without one of them their ONNX graph is what is run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.benchmarks.architectures import killed, params
from chase.benchmarks.children import Row, Sweep, at, main, recorded
from chase.benchmarks.zoo import subject
from chase.exporters import default_name, export
from chase.slimming.network import slimmed
from chase.slimming.tracer import channel_groups

NETWORKS = tuple(
    f"torchvision:{name}"
    for name in (
        "vgg19_bn",
        "resnet50",
        "mobilenet_v3_large",
        "efficientnet_b0",
        "convnext_tiny",
        "densenet121",
        "vit_b_16",
        "swin_t",
    )
)
FILES = (
    ("torchscript", "fp32"),
    ("onnx", "fp32"),
    ("onnx", "fp16"),
    ("onnx", "int8"),
    ("torch-export", "fp32"),
    ("openvino", "fp32"),
)
GPUS = ("sm86", "sm89", "sm120")
ENGINES = tuple(("tensorrt-rtx", precision, gpu) for precision in ("fp32", "fp16") for gpu in GPUS)
DEAD = 0.3
"""The share of the channels of every group that is cut; widths become odd."""
CALIBRATION = 32
SAMPLES = 8


def examine(name: str, *, sides: Sequence[int] = (), files: Sequence[tuple[str, ...]] = FILES + ENGINES) -> Row:
    """What became of one network in every format: {"case", "ok", "files": {"onnx fp16": {"ok", "size_bytes", …}}}."""
    row: Row = {"case": name, "files": {}}
    with recorded(row):
        at(row, "slim")
        model, example = slim_network(name, sides=sides)
        row |= {"input": list(example.shape[1:]), "params": params(model)}
        for file in files:
            at(row, " ".join(file))
            one: Row = {}
            row["files"][" ".join(file)] = one
            with recorded(one):
                one |= measured(model, example, *file)
        if failed := [file for file, one in row["files"].items() if not one["ok"]]:
            raise RuntimeError(f"{len(failed)} of {len(files)} files failed: {', '.join(failed)}")
    return row


def slim_network(name: str, *, sides: Sequence[int] = ()) -> tuple[nn.Module, Tensor]:
    """A network with a share of its channels cut at random, off any grid, and an example of its input."""
    tried = subject(name, sides=sides)
    masks = killed(tried.model, channel_groups(tried.model, tried.example), DEAD)
    return slimmed(tried.model, masks, example=tried.example, round_to=1).model.eval(), tried.example


def measured(model: nn.Module, example: Tensor, format: str, precision: str, gpu: str | None = None) -> Row:
    """Export once: size, time, parity, and what the file's own builder says."""
    images = torch.randn(CALIBRATION + SAMPLES, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    given: dict[str, Any] = {} if gpu is None else {"compute_capabilities": (gpu,)}
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(
            model,
            Path(folder) / default_name(format, precision),
            example=example,
            format=format,
            precision=precision,
            samples=images[:SAMPLES],
            calibration=images[SAMPLES:] if precision == "int8" else None,
            **given,
        )
        return {
            "size_bytes": artifact.size_bytes,
            "wall_s": round(time.perf_counter() - started, 2),
            "cpu_s": round(time.process_time() - cpu, 2),
            "keep_fp32": list(artifact.keep_fp32),
            "built_for": artifact.built_for,
            "parity": artifact.parity,
        }


def table(rows: Sequence[Row]) -> str:
    """The rows as tables in Markdown: parity and size of every file, then the engines."""
    files = _table("slimmed network", FILES, rows, _file)
    return "\n".join([*files, "", *_table("TensorRT-RTX engine", ENGINES, rows, _engine)]) + "\n"


def _table(
    title: str, files: Sequence[tuple[str, ...]], rows: Sequence[Row], cell: Callable[[str, Row], str]
) -> list[str]:
    names = [" ".join(file) for file in files]
    lines = [[title, *names], *([row["case"], *(_cell(row, name, cell) for name in names)] for row in rows)]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return [head, "|---" * (len(names) + 1) + "|", *body]


def _cell(row: Row, name: str, cell: Callable[[str, Row], str]) -> str:
    one = row["files"].get(name, {"ok": False, "stage": "not reached", "error": ""})
    return cell(name, one) if one["ok"] else f"fails: {one['error'] or one['stage']}".replace("|", "/")


def _file(name: str, one: Row) -> str:
    parity, snr = one["parity"], one["parity"]["snr_db"]
    close = f"{parity['max_rel']:.0e}" if "fp32" in name else "exact" if snr is None else f"{snr:.0f} dB"
    kept = f", {len(one['keep_fp32'])} in fp32" if one["keep_fp32"] else ""
    return f"{close}, {one['size_bytes'] / 1e6:.1f} MB{kept}"


def _engine(name: str, one: Row) -> str:
    engine = one["built_for"]["engine"]
    return f"{engine['layers']} layers, {one['size_bytes'] / 1e6:.1f} MB, {engine['build_s']:.1f} s"


SWEEP = Sweep("chase.benchmarks.exports", "Slimmed networks in every format, each file checked.", examine, table)

if __name__ == "__main__":
    argv = sys.argv[1:]
    named = any(each in ("--model", "--zoo") for each in argv)
    main(SWEEP, argv if named else [*argv, *(part for name in NETWORKS for part in ("--model", name))])
