"""chase export: from slim.pt (or a dense network) to files that other programs run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console

if TYPE_CHECKING:
    from torch import Tensor

    from chase.artifact import Artifact

QUANTISED = ("int8", "int8-fp16", "fp8")


@dataclass(frozen=True)
class Making:
    """How a file is made: its precision and what stays in fp32, what is inside, which images, and the format's own
    settings."""

    precision: str = "fp32"
    keep_fp32: tuple[str, ...] = ()
    preprocessing: bool = False
    data: str | None = None
    images: int = 256
    settings: dict[str, Any] = field(default_factory=dict)


def command(
    ctx: typer.Context,
    network: Annotated[Path | None, typer.Argument(help="Default: the current run's slim.pt.")] = None,
    format: Annotated[str, typer.Option("--format", help="One of --list, or several with commas.")] = "onnx",
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16, bf16, int8, int8-fp16 or fp8.")] = "fp32",
    keep_fp32: Annotated[
        list[str] | None, typer.Option("--keep-fp32", metavar="LAYER", help="Stays in fp32; a pattern; repeatable.")
    ] = None,
    preprocessing: Annotated[
        bool, typer.Option("--preprocessing", help="Take uint8 images [b, h, w, c]; answer with probabilities.")
    ] = False,
    batch_sizes: Annotated[
        str | None, typer.Option("--batch-sizes", metavar="MIN:OPT:MAX", help="For formats that fix a range.")
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="Of ONNX; default 20.")] = None,
    compress: Annotated[bool, typer.Option("--compress", help="Store zeros for free, where the format can.")] = False,
    assign: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="KEY=VALUE", help="A format's own setting; repeatable; see --list."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Images to calibrate and verify on; default: the recipe's.")
    ] = None,
    images: Annotated[int, typer.Option("--images", help="How many of them for each.")] = 256,
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: model.onnx, model.fp16.ts … beside the network.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Show the formats and what works on this machine.")] = False,
) -> None:
    """Export a network, and check that the file answers as the network does."""
    from chase.cli import formats as listing

    console: Console = ctx.obj
    if show:
        listing.show(console)
        return
    formats = [name.strip() for name in format.split(",") if name.strip()]
    settings = given_settings(assign, batch_sizes=batch_sizes, opset=opset, compress=compress or None)
    shares = share(formats, settings)
    check(formats, shares, precision, out)
    source = network or _slim(console)
    making = Making(precision, tuple(keep_fp32 or ()), preprocessing, data, images)
    makings = {name: replace(making, settings=shares[name]) for name in formats}
    artifacts = [stage(console, source, name, out, making) for name, making in makings.items()]
    console.result({"artifacts": [str(artifact.path) for artifact in artifacts]})


def given_settings(assign: list[str] | None, **named: Any) -> dict[str, Any]:
    """The settings of `-o key=value` and of options with names of their own.

    Raises:
        RecipeError: if one has no value or is not MIN:OPT:MAX where it must be.
    """
    import yaml

    from chase.errors import RecipeError

    settings = {key: value for key, value in named.items() if value is not None}
    for text in assign or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(f"-o {text!r} is not KEY=VALUE, as in -o opset=21")
        try:
            read = yaml.safe_load(value) if key != "batch_sizes" else value
        except yaml.YAMLError as error:
            raise RecipeError(f"-o {text!r}: the value cannot be read as YAML") from error
        settings[key] = tuple(read) if isinstance(read, list) else read
    if "batch_sizes" in settings:
        settings["batch_sizes"] = _batch_sizes(settings["batch_sizes"])
    return settings


def _batch_sizes(text: str) -> tuple[int, ...]:
    from chase.errors import RecipeError
    from chase.exporters.job import checked_batch_sizes

    parts = text.split(":")
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(f"--batch-sizes {text!r} is not MIN:OPT:MAX, as in 1:8:32")
    return checked_batch_sizes([int(part) for part in parts])


def share(formats: list[str], settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each format takes of the settings; each must be for one of them at least.

    Raises:
        RecipeError: if no format has a setting; UnknownName if there is no such format.
    """
    from chase.errors import RecipeError
    from chase.exporters import EXPORTERS
    from chase.registry import did_you_mean

    if not formats:
        raise RecipeError(f"--format names no format; known: {', '.join(EXPORTERS)}")
    known = {name: EXPORTERS[name].settings() for name in formats}
    for key in settings:
        if not any(key in each for each in known.values()):
            every = sorted({name for each in known.values() for name in each})
            hint = did_you_mean(key, every) if every else "they have none"
            raise RecipeError(f"{' and '.join(formats)} takes no {key}; {hint}")
    return {name: {key: value for key, value in settings.items() if key in known[name]} for name in formats}


def check(formats: list[str], shares: dict[str, dict[str, Any]], precision: str, out: Path | None) -> None:
    """Refuse what cannot be, before any file is written."""
    from chase.errors import RecipeError
    from chase.exporters.formats import check

    if out and len(formats) > 1:
        raise RecipeError(f"--out {out} cannot hold {len(formats)} formats; export one at a time")
    for name in formats:
        check(name, precision, shares[name])


def _slim(console: Console) -> Path:
    from chase.errors import CheckpointError
    from chase.run import current

    run = current(console.run)
    if not run.slim.is_file():
        raise CheckpointError(
            f"{run.folder} has no slim.pt yet; run `chase slim` first, or name a file, such as {run.checkpoint}"
        )
    return run.slim


def stage(
    console: Console, source: Path, format: str, out: Path | None = None, making: Making | None = None
) -> Artifact:
    """Export one network to one format, and say how closely the file agrees with it."""
    from chase.artifact import facts_of
    from chase.checkpoint import load_network
    from chase.exporters import default_name, export
    from chase.run import Run

    making = making or Making()
    network = load_network(source, kinds=("slim", "dense"))
    calibration, samples = _images(source, making)
    with console.progress(f"exporting to {format}") as advance:
        artifact = export(
            network.model,
            out or source.with_name(default_name(format, making.precision)),
            example=network.input.example(),
            format=format,
            precision=making.precision,
            keep_fp32=making.keep_fp32,
            preprocessing=making.preprocessing,
            samples=network.content["samples"] if samples is None else samples,
            calibration=calibration,
            facts=facts_of(network),
            on_progress=lambda done, total, what: advance(done, total),
            **making.settings,
        )
    if artifact.path.resolve().parent == source.resolve().parent:
        files = [artifact.path.with_name(name) for name in artifact.files]
        Run(source.parent).record(artifact.path, artifact.sidecar, *files, parents=[source])
    console.say(_told(artifact))
    return artifact


def like(artifact: Artifact, data: str | None = None) -> Making:
    """How to make another file as `artifact` was made."""
    from chase.exporters import EXPORTERS

    known = EXPORTERS[artifact.format].settings()
    settings = {name: value for name, value in artifact.settings.items() if name in known}
    return Making(artifact.precision, artifact.keep_fp32, artifact.preprocessing, data, settings=settings)


def _images(source: Path, making: Making) -> tuple[Tensor | None, Tensor | None]:
    """The images to calibrate on, which 8-bit precisions need, and those to verify on (None: those in the file)."""
    from chase.cli.images import splits, spread

    if making.precision not in QUANTISED and making.data is None:
        return None, None
    train, test = splits(source, making.data)
    calibration = spread(train, making.images) if making.precision in QUANTISED else None
    return calibration, spread(test, making.images)


def _told(artifact: Artifact) -> str:
    """One line about an export: what, how close, how large, and what is not as asked."""
    from chase.cli.verify import described_parity

    parity = artifact.parity
    text = f"{artifact.path}: {artifact.format} {artifact.precision}, {described_parity(parity)}"
    if artifact.keep_fp32:
        text += f"; in fp32 stay {', '.join(artifact.keep_fp32)}"
    if parity["of"] != "file":
        text += f"; this is the parity of its {parity['of']}, the file was not run: {parity['because']}"
    return text
