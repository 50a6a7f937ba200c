"""chase inspect: layers, MACs and channel groups of a model or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions

if TYPE_CHECKING:
    from torch import Tensor, nn


def command(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(help="A model's name, a .pt file or an exported artifact.")],
    input: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Of a model; default by its family.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="Of a model; default its own.")] = None,
    prune_skip: Annotated[bool, typer.Option("--prune-skip", help="Count channels on skip connections.")] = False,
) -> None:
    """Show what a network is made of, what it costs, and which channels may leave."""
    console: Console = ctx.obj
    if Path(what).suffix in (".onnx", ".ts", ".engine"):
        artifact(console, Path(what))
        return
    model, example, header = _file(what) if Path(what).suffix == ".pt" else _named(what, input, num_classes)
    network(console, model, example, header, prune_skip=prune_skip)


def _file(what: str) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    from chase.checkpoint import load_network

    loaded = load_network(what)
    header = {"file": what, "kind": loaded.kind, **loaded.facts}
    if certificate := loaded.content.get("certificate"):
        header["certificate"] = certificate
    return loaded.model, loaded.input.example(), header


def _named(name: str, input: str | None, num_classes: int | None) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    import torch

    from chase.errors import RecipeError
    from chase.models import MODELS, build_for

    text = input or ({"vgg8": "1,8,8"}.get(name, "3,32,32") if name in MODELS else "3,224,224")
    sides = [int(side) if side.strip().isdigit() else 0 for side in text.split(",")]
    if len(sides) != 3 or min(sides) < 1:
        raise RecipeError(f"--input {text!r} is not C,H,W, as in 3,224,224")
    classes = num_classes or (10 if name in MODELS else 1000)
    model, _ = build_for(name, (sides[0], sides[1], sides[2]), classes, {})
    return model, torch.zeros(1, *sides), {"model": name, "input_shape": sides, "num_classes": classes}


def network(console: Console, model: nn.Module, example: Tensor, header: dict[str, Any], *, prune_skip: bool) -> None:
    """The layer table, the group table and the totals."""

    from chase.counting import count
    from chase.slimming import channel_groups, prunable
    from chase.sparse.masks import maskable

    counts, groups, weights = count(model, example), channel_groups(model, example), maskable(model)
    layers: list[dict[str, Any]] = [
        {
            "weight": layer.weight,
            "shape": list(layer.shape),
            "density": _density(weights, layer.weight),
            "macs": layer.macs,
        }
        for layer in counts.cost.layers
    ]
    listed = [{"name": g.name, "width": g.size, "stays_because": g.why_not(prune_skip=prune_skip)} for g in groups]
    result = {
        "parameters": counts.params.stored,
        "macs": counts.macs.to_dict(),
        "params": counts.params.to_dict(),
        **header,
        "maskable": sum(weight.numel() for weight in weights.values()),
        "maskable_layers": len(weights),
        "prunable_channels": sum(group.size for group in prunable(groups, prune_skip=prune_skip)),
        "layers": layers,
        "groups": listed,
        "unknown_operators": list(counts.unknown),
    }
    console.result(result)
    rows = [(e["weight"], "×".join(map(str, e["shape"])), f"{e['density']:.4f}", millions(e["macs"])) for e in layers]
    console.table("layers", ("weight", "shape", "density", "MACs"), rows)
    console.table(
        "channel groups",
        ("group", "width", "channels"),
        [(e["name"], e["width"], e["stays_because"] or "may leave") for e in listed],
    )
    names = (
        "parameters",
        "macs",
        "maskable",
        "prunable_channels",
        "sparsity",
        "channel_sparsity",
        "certificate",
    )
    console.table("totals", ("", ""), [(n.replace("_", " "), _words(result[n])) for n in names if n in result])
    if counts.unknown:
        console.say(f"not counted: {', '.join(counts.unknown)}")


def _density(weights: dict[str, Any], name: str) -> float:
    if name not in weights:
        return 1.0
    return float((weights[name] != 0).float().mean())


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {inner:,}" if isinstance(inner, int) else f"{key} {inner}" for key, inner in value.items()
        )
    return f"{value:,}" if isinstance(value, int) else str(value)


def artifact(console: Console, path: Path) -> None:
    """What the description beside an exported file says."""
    import dataclasses

    from chase.artifact import Artifact

    facts = dataclasses.asdict(Artifact.load(path)) | {"path": str(path)}
    console.result(facts)
    console.table(str(path), ("", ""), [(key, _words(value)) for key, value in facts.items() if key != "path"])
