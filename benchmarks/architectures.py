"""Any architecture: trace, group, kill channels at random, slim, prove, train and reload whole zoos of networks.

    python -m chase.benchmarks.architectures --zoo torchvision --json architectures.json --markdown

For every network, with random weights that look trained, and for each share of dead units: the certificate, an
equal reload from a slim file, a forward pass at another batch size, and a training step of the slim network.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from chase.benchmarks.children import Row, Sweep, at, cost, main, recorded
from chase.benchmarks.zoo import Subject, subject
from chase.checkpoint import InputSpec, load_network, save
from chase.errors import GateError
from chase.slimming.groups import Group, prunable
from chase.slimming.network import Slimmed, cut, slimmed
from chase.slimming.tracer import channel_groups
from chase.sparse.masks import Masks

SHARES = (0.3, 0.8)
"""Shares of the units of every group that die."""

OUTPUT = "is an output of the model"
BATCH = 5
ALIKE = 1e-3  # float32 on another batch size; a wrong cut is 0.1 away and more


def examine(name: str, *, sides: Sequence[int] = (), shares: Sequence[float] = SHARES) -> Row:
    """What became of one model: {"case", "ok", "stage" and "error" where it failed, "input", "units", …}."""
    row: Row = {"case": name}
    with recorded(row):
        at(row, "build")
        tried = subject(name, sides=sides)
        row["input"] = list(tried.example.shape[1:])
        at(row, "groups")
        _warm_up()
        row["group"] = {}
        with cost(row["group"]):
            groups = channel_groups(tried.model, tried.example)
        row |= census(groups)
        row["params"] = params(tried.model)
        row["slim"] = {}
        for share in shares:
            found: Row = {}
            row["slim"][f"{share:g}"] = found
            _slim(row, found, tried, killed(tried.model, groups, share))
    return row


def census(groups: Sequence[Group]) -> Row:
    """How many units there are besides the model's outputs, how many may leave, how many stay for which reason."""
    held: Counter[str] = Counter()
    for group in groups:
        held.update(group.held)
        if reason := group.why_not(prune_skip=True):
            held[reason] += group.size
    fixed = held.pop(OUTPUT, 0)
    removable = sum(group.size for group in prunable(groups, prune_skip=True))
    units = removable + held.total()
    share = removable / units if units else 1.0
    found = {"units": units, "removable": removable, "share": share, "outputs": fixed}
    return found | {"held": dict(held.most_common())}


def _slim(row: Row, found: Row, tried: Subject, masks: Masks) -> None:
    """All stages at one share of dead units."""
    at(row, "cut")
    with cost(found):
        cut(tried.model, masks)
    at(row, "certificate")
    result = slimmed(tried.model, masks, example=tried.example, round_to=1)
    found["max_rel"] = result.certificate["max_rel"]
    found["dtype"] = result.certificate["dtype"]
    found["params"] = params(result.model)
    at(row, "reload")
    _reloads(tried, result)
    at(row, "batch")
    _answers_batches(result.model, tried.example)
    at(row, "train")
    _trains(result.model, torch.randn(2, *tried.example.shape[1:], generator=torch.Generator().manual_seed(0)))


def killed(model: nn.Module, groups: Sequence[Group], share: float) -> Masks:
    """Masks under which a share of the units of every group is dead, at random."""
    generator = torch.Generator().manual_seed(0)
    masks = Masks.dense(model, prunable(groups, prune_skip=True))
    for alive in masks.alive.values():
        dead = torch.randperm(len(alive), generator=generator)[: int(share * len(alive))]
        alive[dead] = False
    return masks


def _warm_up() -> None:
    """Trace something small, so that what torch imports and compiles on the first trace is no network's cost."""
    channel_groups(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), torch.zeros(1, 3, 8, 8))


def params(model: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(parameter.numel() for parameter in model.parameters())


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """All tensors that a forward pass answers with."""
    return [leaf for leaf in pytree.tree_leaves(model(x)) if isinstance(leaf, Tensor)]


def _reloads(tried: Subject, result: Slimmed) -> None:
    """Save the slim network, build it again from the file, and compare bit by bit."""
    shape = tuple(tried.example.shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.pt"
        save(
            path,
            kind="slim",
            model={"name": tried.name, "settings": tried.settings},
            network=result.model,
            input=InputSpec(shape=shape),
            widths=result.plan.to_dict(),
            facts={},
        )
        loaded = load_network(path).model
    with torch.no_grad():
        pairs = zip(outputs(result.model.eval(), tried.example), outputs(loaded, tried.example), strict=True)
        if not all(torch.equal(ours, theirs) for ours, theirs in pairs):
            raise GateError("the network that was loaded from the slim file answers differently")


@torch.no_grad()
def _answers_batches(model: nn.Module, x: Tensor) -> None:
    """A batch of equal images must get equal answers, those that one image gets."""
    model.eval()
    for one, many in zip(outputs(model, x), outputs(model, torch.cat([x] * BATCH)), strict=True):
        if many.shape != (BATCH, *one.shape[1:]):
            raise GateError(f"a batch of {BATCH} gets an output of shape {list(many.shape)}")
        error = float((many - one).abs().max() / one.abs().max())
        if not error < ALIKE:  # one that is not a number fails as well
            raise GateError(f"in a batch of {BATCH} an image gets an answer that is {error:.1e} away")


def _trains(model: nn.Module, x: Tensor) -> None:
    """One step of SGD in training mode, with the sum of all outputs as the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    loss = torch.stack([output.sum() for output in outputs(model.train(), x)]).sum()
    loss.backward()
    optimizer.step()
    if not math.isfinite(loss.item()):
        raise GateError(f"the loss of the slim network in training mode is {loss.item()}")


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown, with a line of totals above it."""
    passed = sum(row["ok"] for row in rows)
    head = "| model | | units | removable | params | max rel | trace + group | cut | extra memory | units that stay |"
    lines = [f"{passed} of {len(rows)} networks pass.", "", head, "|---|---|---|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_line, rows)]) + "\n"


def _line(row: Row) -> str:
    if not row["ok"]:
        return f"| {row['case']} | fails at {row['stage']} | " + " | " * 7 + f"{row['error'].replace('|', '/')} |"
    slims = row["slim"].values()
    memory = [part["extra_mb"] for part in (row["group"], *slims)]
    cells = (
        row["case"],
        "ok",
        str(row["units"]),
        f"{row['share']:.1%}",
        " → ".join(f"{params / 1e6:.2f} M" for params in (row["params"], *(found["params"] for found in slims))),
        f"{max((found['max_rel'] for found in slims), default=0):.0e} {'/'.join({found['dtype'] for found in slims})}",
        f"{row['group']['cpu_s']:.2f} s",
        f"{max((found['cpu_s'] for found in slims), default=0):.2f} s",
        "–" if None in memory else f"{max(memory):.0f} MB",
        "; ".join(f"{count} {reason}" for reason, count in list(row["held"].items())[:3]),
    )
    return f"| {' | '.join(cells)} |"


SWEEP = Sweep("chase.benchmarks.architectures", "Slim whole zoos of networks, and prove each.", examine, table)

if __name__ == "__main__":
    main(SWEEP)
