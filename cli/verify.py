"""chase verify: does a file still answer as the network that it was made from?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from chase.cli.console import Console
from chase.cli.options import DeviceOption, RuntimeOption


def command(
    ctx: typer.Context,
    artifact: Annotated[Path, typer.Argument(help="An exported file of Chase, with its description beside it.")],
    against: Annotated[Path | None, typer.Option("--against", help="Default: the slim.pt beside it.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Verify on its test images; default: those in --against.")
    ] = None,
    images: Annotated[int, typer.Option("--images", help="How many of --data.")] = 256,
    runtime: RuntimeOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Check that a file is whole, of this very network, and answers as it does; exit 3 if not."""
    from chase.artifact import Artifact
    from chase.checkpoint import load_network
    from chase.cli.images import splits, spread
    from chase.errors import CheckpointError
    from chase.exporters import verify
    from chase.training import resolve_device

    console: Console = ctx.obj
    described = Artifact.load(artifact)
    parent = against or artifact.with_name("slim.pt" if described.kind == "slim" else "dense.pt")
    if not parent.is_file():
        raise CheckpointError(f"no such file: {parent}; name the network it was made from with --against")
    network = load_network(parent, kinds=("slim", "dense"))
    samples = spread(splits(parent, data)[1], images) if data else None
    where = str(resolve_device(device))
    parity = asdict(verify(described, network, samples=samples, runtime=runtime, device=where))
    console.say(f"{artifact} answers as {parent}: {described_parity(parity)}")
    console.result({"artifact": str(artifact), "against": str(parent), "device": where, "parity": parity})


def described_parity(parity: dict[str, object]) -> str:
    """A parity in words."""
    snr = parity["snr_db"]
    noise = "" if snr is None else f", signal-to-noise {snr:.0f} dB"
    return (
        f"differs by {parity['max_rel']:.1e} relative{noise}, same class on "
        f"{parity['agreement']:.1f} % of {parity['samples']} samples"
    )
