"""chase inspect: layers, MACs and channel groups of a model or a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions
from chase.cli.explain import warn_if_changed
from chase.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from chase.slimming.groups import Group


def command(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(help="A model's name, a .pt file or an exported artifact.")],
    input: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Of a model; default by its family.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="Of a model; default its own.")] = None,
    prune_skip: Annotated[bool, typer.Option("--prune-skip", help="Count channels on skip connections.")] = False,
    graph: Annotated[Path | None, typer.Option("--graph", metavar="FILE.svg", help="Draw the groups there.")] = None,
) -> None:
    """Show what a network is made of, what it costs, and which channels may leave."""
    from chase.exporters.formats import is_exported

    console: Console = ctx.obj
    of_models = {"--input": input, "--num-classes": num_classes}
    if graph is not None and graph.suffix != ".svg":
        raise RecipeError(f"--graph {graph}: the drawing is an SVG file; give it a name that ends in .svg")
    path = Path(what)
    exported = is_exported(what) or (path.exists() and Path(f"{what}.json").is_file())
    if exported or path.suffix == ".pt":
        for option in (option for option, value in of_models.items() if value is not None):
            raise RecipeError(f"{option} is for a model by name; {what} says it itself, so leave the option out")
    if exported:
        if graph is not None:
            raise RecipeError(
                f"--graph: {what} holds no channel groups; inspect the .pt file that it was exported from"
            )
        artifact(console, path)
        return
    model, example, header = _file(what) if path.suffix == ".pt" else _named(what, input, num_classes)
    groups = network(console, model, example, header, prune_skip=prune_skip)
    if graph is not None:
        _draw(graph, groups, prune_skip=prune_skip, title=what)
        console.say(f"drawn in {graph}")


def _draw(path: Path, groups: Sequence[Group], *, prune_skip: bool, title: str) -> None:
    from chase.files import atomic
    from chase.slimming.picture import svg

    with atomic(path) as temporary:
        temporary.write_text(svg(groups, prune_skip=prune_skip, title=title), encoding="utf-8")


def _file(what: str) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    from chase.checkpoint import load_network

    loaded = load_network(what)
    header = {"file": what, "kind": loaded.kind, **loaded.facts}
    if certificate := loaded.content.get("certificate"):
        header["certificate"] = certificate
    return loaded.model, loaded.input.example(), header


def _named(name: str, input: str | None, num_classes: int | None) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    import torch

    from chase.models import MODELS, build_for

    text = input or ({"vgg8": "1,8,8"}.get(name, "3,32,32") if name in MODELS else "3,224,224")
    sides = [int(side) if side.strip().isdigit() else 0 for side in text.split(",")]
    if len(sides) != 3 or min(sides) < 1:
        raise RecipeError(f"--input {text!r} is not C,H,W, as in 3,224,224")
    classes = (10 if name in MODELS else 1000) if num_classes is None else num_classes
    if classes < 1:
        raise RecipeError(f"--num-classes must be at least 1, not {classes}")
    model, _ = build_for(name, (sides[0], sides[1], sides[2]), classes, {})
    if input is None and name.startswith("timm:"):
        sides = list(model.default_cfg["input_size"])  # type: ignore[index]
    return model, torch.zeros(1, *sides), {"model": name, "input_shape": sides, "num_classes": classes}


def network(
    console: Console, model: nn.Module, example: Tensor, header: dict[str, Any], *, prune_skip: bool
) -> tuple[Group, ...]:
    """Shows the layers, the groups and the totals; the channel groups."""
    from chase.counting import count
    from chase.slimming import channel_groups
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
    units = _units(groups, prune_skip=prune_skip)
    result = {
        "parameters": counts.params.stored,
        "macs": counts.macs.to_dict(),
        "params": counts.params.to_dict(),
        **header,
        "maskable": sum(weight.numel() for weight in weights.values()),
        "maskable_layers": len(weights),
        "prunable_channels": units["may_leave"],
        "units": units,
        "layers": layers,
        "groups": [_described(group, prune_skip=prune_skip) for group in groups],
        "unknown_operators": list(counts.unknown),
    }
    console.result(result)
    rows = [(e["weight"], "×".join(map(str, e["shape"])), f"{e['density']:.4f}", millions(e["macs"])) for e in layers]
    console.table("layers", ("weight", "shape", "density", "MACs"), rows)
    _table(console, groups, prune_skip=prune_skip)
    names = ("parameters", "macs", "maskable", "sparsity", "channel_sparsity", "certificate")
    totals = [(n.replace("_", " "), _words(result[n])) for n in names if n in result]
    console.table("totals", ("", ""), [*totals, ("channels that may leave", _summary(units))])
    if counts.unknown:
        console.say(f"not counted: {', '.join(counts.unknown)}")
    return groups


def _units(groups: Sequence[Group], *, prune_skip: bool) -> dict[str, Any]:
    """How many channels may leave, of how many."""
    from chase.slimming import prunable

    every = sum(group.size + sum(group.held.values()) for group in groups)
    now, most = (sum(g.size for g in prunable(groups, prune_skip=setting)) for setting in (prune_skip, True))
    none = {"share": None, "share_with_prune_skip": None}
    shares = {"share": now / every, "share_with_prune_skip": most / every} if every else none
    return {"all": every, "may_leave": now, "may_leave_with_prune_skip": most, **shares}


def _summary(units: dict[str, Any]) -> str:
    """As in: 336 of 434 (77.42 %); with --prune-skip 448 (…)."""
    if not units["all"]:
        return "none: no channel was found"
    with_skip = (
        f"; with --prune-skip {units['may_leave_with_prune_skip']:,} ({100 * units['share_with_prune_skip']:.2f} %)"
    )
    ours = f"{units['may_leave']:,} of {units['all']:,} ({100 * units['share']:.2f} %)"
    return ours + (with_skip if units["may_leave"] != units["may_leave_with_prune_skip"] else "")


def _described(group: Group, *, prune_skip: bool) -> dict[str, Any]:
    from chase.slimming.picture import state

    parts: dict[tuple[str, int, bool], int] = {}
    for part in group.slices:
        key = (part.tensor, part.dim, part.reads)
        parts[key] = parts.get(key, 0) + len(part.positions)
    return {
        "name": group.name,
        "width": group.size,
        "held": dict(group.held),
        "skip": group.skip,
        "state": state(group, prune_skip=prune_skip),
        "stays_because": group.why_not(prune_skip=prune_skip),
        "producers": list(group.producers),
        "tensors": [{"tensor": t, "dim": d, "reads": r, "positions": n} for (t, d, r), n in parts.items()],
    }


def _table(console: Console, groups: Sequence[Group], *, prune_skip: bool) -> None:
    """A row a group: what a channel takes along, whether it may leave, and what holds it."""
    from chase.slimming.groups import layer_name
    from chase.slimming.picture import state

    words = {"leaves": "may leave", "skip": "skip", "partly": "partly held", "pinned": "pinned"}
    rows = []
    for group in groups:
        tensors = {part.tensor for part in group.slices}
        along = f"{len(tensors)} of {len({layer_name(name) for name in tensors})}"
        held = [f"{count} held: {reason}" for reason, count in group.held.items()]
        reasons = [*filter(None, [group.why_not(prune_skip=prune_skip)]), *held]
        rows.append((group.name, group.size, along, words[state(group, prune_skip=prune_skip)], "; ".join(reasons)))
    console.table("channel groups", ("group", "width", "tensors of layers", "channels", "why"), rows)


def _density(weights: dict[str, Any], name: str) -> float:
    if name not in weights:
        return 1.0
    return float((weights[name] != 0).float().mean())


def _words(value: Any) -> str:
    """A fact for people: counts with commas, other numbers to four digits, what is not there as a dash."""
    if value is None or value in ((), [], {}):
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def artifact(console: Console, path: Path) -> None:
    """What the description beside an exported file says."""
    import dataclasses

    from chase.artifact import Artifact

    found = Artifact.load(path)
    facts = dataclasses.asdict(found) | {"path": str(path)}
    console.result(facts)
    console.table(str(path), ("", ""), [(key, _words(value)) for key, value in facts.items() if key != "path"])
    warn_if_changed(console, found)
