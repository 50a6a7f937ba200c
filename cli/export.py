"""chase export: from slim.pt (or a dense network) to files that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console

if TYPE_CHECKING:
    from chase.artifact import Artifact

FACTS = ("macs", "params")


def command(
    ctx: typer.Context,
    network: Annotated[Path | None, typer.Argument(help="Default: the current run's slim.pt.")] = None,
    format: Annotated[
        str, typer.Option("--format", help="onnx, torchscript or tensorrt; several with commas.")
    ] = "onnx",
    precision: Annotated[str, typer.Option("--precision", help="fp32.")] = "fp32",
    opset: Annotated[int | None, typer.Option("--opset", help="Of ONNX; default 20.")] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option("--batch-sizes", metavar="MIN:OPT:MAX", help="For tensorrt; the others take any."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: model.onnx, model.ts … beside the network.")
    ] = None,
) -> None:
    """Export a network, and check that the file answers as the network does."""
    console: Console = ctx.obj
    formats = [name.strip() for name in format.split(",") if name.strip()]
    _check(formats, batch_sizes, out)
    source = network or _slim(console)
    options = {} if opset is None else {"opset": opset}
    artifacts = [stage(console, source, name, out, precision=precision, **options) for name in formats]
    console.result({"artifacts": [str(artifact.path) for artifact in artifacts]})


def _check(formats: list[str], batch_sizes: str | None, out: Path | None) -> None:
    from chase.errors import RecipeError
    from chase.exporters import EXPORTERS

    if not formats:
        raise RecipeError(f"--format names no format; known: {', '.join(EXPORTERS)}")
    for name in formats:
        EXPORTERS[name]
    if out and len(formats) > 1:
        raise RecipeError(f"--out {out} cannot hold {len(formats)} formats; export one at a time")
    if batch_sizes is not None:
        parts = batch_sizes.split(":")
        if (
            len(parts) != 3
            or not all(part.isdigit() for part in parts)
            or sorted(map(int, parts)) != list(map(int, parts))
        ):
            raise RecipeError(f"--batch-sizes {batch_sizes!r} is not MIN:OPT:MAX in rising order, as in 1:8:32")
        if formats != ["tensorrt"]:
            raise RecipeError(f"--batch-sizes is for tensorrt; {formats[0]} takes any batch size")


def _slim(console: Console) -> Path:
    from chase.errors import CheckpointError
    from chase.run import current

    run = current(console.run)
    if not run.slim.is_file():
        raise CheckpointError(f"{run.folder} has no slim.pt yet; run `chase slim` first")
    return run.slim


def stage(
    console: Console,
    source: Path,
    format: str,
    out: Path | None = None,
    *,
    precision: str = "fp32",
    **options: Any,
) -> Artifact:
    """Export one network to one format, and say how closely the file agrees with it."""
    from chase.checkpoint import load_network
    from chase.exporters import export, suffix_of
    from chase.files import sha256
    from chase.run import Run

    network = load_network(source, kinds=("slim", "dense"))
    facts = {name: getattr(network, name) for name in ("kind", "classes", "mean", "std", "macs", "params")}
    artifact = export(
        network.model,
        out or source.with_name(f"model{suffix_of(format)}"),
        example=network.input.example(),
        format=format,
        precision=precision,
        samples=network.content["samples"],
        facts=facts | {"parent_sha256": sha256(source)},
        **options,
    )
    if artifact.path.resolve().parent == source.resolve().parent:
        Run(source.parent).record(artifact.path, artifact.sidecar, parents=[source])
    console.say(
        f"{artifact.path}: {format} {precision}, differs by {artifact.parity['max_rel']:.1e} relative on "
        f"{artifact.parity['samples']} samples (allowed {artifact.parity['tolerance']:.0e})"
    )
    return artifact
