"""The same test for torch-pruning, the library that is nearest to what Chase does (nothing else here needs it).

    python -m chase.benchmarks.torch_pruning --zoo torchvision --json torch_pruning.json --markdown --seconds 900

Every network is pruned in three ways: `raw` takes a random share out of every group; `pruner` is the library's
BasePruner with the attention heads declared; `safe` is `raw`, but only in groups made of layers that keep a dead
channel dead, and alike in all groups of a convolution. Layers as wide as the output are left alone.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chase.benchmarks.architectures import outputs, params
from chase.benchmarks.children import Row, Sweep, at, cost, main, recorded
from chase.benchmarks.grouping import compare_groups, parts
from chase.benchmarks.zoo import subject
from chase.errors import GateError
from chase.packages import require
from chase.slimming.surgery import tensors_of

SHARE = 0.3
"""Share of the channels that leave."""

EQUIVALENT = 1e-4
"""Largest relative error of an exact result in float32; those with a wrong channel are 0.05 away and more."""

MODES = ("raw", "pruner", "safe")
COVERAGE = ("graph", "prune", "forward", "equivalent")

SAFE = ("CONV", "DEPTHWISE_CONV", "LINEAR", "BN", "CONCAT", "SPLIT", "ELEMENTWISE", "RESHAPE")
"""The kinds of nodes that a group may consist of in the mode `safe`."""


def library() -> Any:
    """The package torch_pruning.

    Raises:
        MissingDependency: if it is not installed.
    """
    return require("torch_pruning", purpose="the comparison", install="torch-pruning==1.6.1")


def examine(case: str, *, sides: Sequence[int] = ()) -> Row:
    """What became of one model in one mode ("torchvision:resnet18 raw"): how far it came, and what it cost."""
    library()
    name, _, mode = case.partition(" ")
    row: Row = {"case": case, **dict.fromkeys(COVERAGE, False)}
    with recorded(row), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at(row, "build")
        tried = subject(name, sides=sides)
        trial = Trial(copy.deepcopy(tried.model), tried.example, mode)
        row["params"] = [params(tried.model)]
        for stage, act in (("graph", trial.trace), ("prune", trial.prune), ("forward", trial.answer)):
            at(row, stage)
            row[f"{stage}_cost"] = {}
            with cost(row[f"{stage}_cost"]):
                act()
            row[stage] = True
        row["params"].append(params(trial.model))
        at(row, "equivalent")
        row["max_rel"] = trial.error()
        row["equivalent"] = True
        if mode == "safe":
            at(row, "agreement")
            groups = list(Trial(copy.deepcopy(tried.model), tried.example, mode).groups())
            row["agreement"] = compare_groups(tried.model, tried.example, groups)
    return row


class Trial:
    """The library at work on `model`, which it changes, beside a full-size copy in which the same channels are zero."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, example: Tensor, mode: str) -> None:
        self.model = model
        self.masked = copy.deepcopy(model)
        self.example = example
        self.mode = mode
        self.heads = heads(model)
        self.graph: Any = None
        self.pruner: Any = None
        self.left: list[tuple[str, int, Sequence[int]]] = []
        self.answers: list[Tensor] = []
        width = outputs(model, example)[0].shape[1]
        self.ignored = [m for m in model.modules() if width in (getattr(m, "out_features", 0), _channels(m))]

    def trace(self) -> None:
        """Build the library's dependency graph."""
        library_ = library()
        if self.mode == "pruner":
            self.pruner = library_.pruner.BasePruner(
                self.model,
                self.example,
                importance=library_.importance.RandomImportance(),
                pruning_ratio=SHARE,
                ignored_layers=self.ignored,
                num_heads=self.heads,
                in_channel_groups={},  # the defaults are shared by all pruners of a process
                out_channel_groups={},
            )
            self.graph = self.pruner.DG
        else:
            self.graph = library_.DependencyGraph().build_dependency(self.model, self.example, verbose=False)

    def prune(self) -> None:
        """Cut, and note what leaves."""
        torch.manual_seed(0)
        for group in self._chosen():
            for dep, positions in group:
                found = parts(self.graph, dep, positions)
                self.left += [(name, dim, moved) for name, dim, reads, moved in found if not reads]
            group.prune()
        if self.mode == "pruner":
            mend_(self.model, self.heads)

    def groups(self) -> Iterator[Any]:
        """The library's groups, whole; in the mode `safe` only those."""
        if self.graph is None:
            self.trace()
        for group in self.graph.get_all_groups(ignored_layers=self.ignored):
            if self.mode != "safe" or all(dep.target.type.name in SAFE for dep, _ in group):
                yield group

    @torch.no_grad()
    def answer(self) -> None:
        """Run the pruned network."""
        self.answers = outputs(self.model.eval(), self.example)

    @torch.no_grad()
    def error(self) -> float:
        """The largest relative error max|Δ| / max|y| of the pruned network against the masked one.

        Raises:
            GateError: if it is more than rounding.
        """
        self._bury()
        pairs = zip(self.answers, outputs(self.masked.eval(), self.example), strict=True)
        worst = max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
        if not worst <= EQUIVALENT:
            raise GateError(f"the pruned network differs from the masked one by {worst:.2g} relative")
        return worst

    def _chosen(self) -> Iterator[Any]:
        """What leaves, group by group."""
        if self.mode == "pruner":
            yield from self.pruner.step(interactive=True)
            return
        for group in self.groups():
            dep, everything = group[0]
            blocks = math.lcm(1, *(_convolution_groups(dep) for dep, _ in group)) if self.mode == "safe" else 1
            width = len(everything) // blocks
            some = torch.randperm(width)[: int(SHARE * width)].sort().values
            leaves = [block * width + position for block in range(blocks) for position in some.tolist()]
            if leaves:
                yield self.graph.get_pruning_group(dep.target.module, dep.handler, leaves)

    def _bury(self) -> None:
        """Set to zero in the full-size copy what left; positions count from what earlier groups had left over."""
        tensors = tensors_of(self.masked)
        stays: dict[tuple[str, int], list[int]] = {}
        for name, dim, positions in self.left:
            before = stays.setdefault((name, dim), list(range(tensors[name].shape[dim])))
            gone = [before[position] for position in positions if position < len(before)]
            tensors[name].index_fill_(dim, torch.tensor(gone, dtype=torch.int64), 0)
            stays[name, dim] = sorted(set(before) - set(gone))


def heads(model: nn.Module) -> dict[nn.Module, int]:
    """The attention layers that the library must be told of, and how many heads they have."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        count = getattr(module, "num_heads", None)
        if isinstance(module, nn.MultiheadAttention):
            found[module] = module.num_heads
        elif isinstance(count, int) and isinstance(joint := getattr(module, "qkv", None), nn.Linear):
            found[joint] = count
    return found


def mend_(model: nn.Module, heads: dict[nn.Module, int]) -> None:
    """Set the integers that the library's own examples set by hand after pruning."""
    for module in model.modules():
        values: dict[str, int] = {}
        if isinstance(projection := getattr(module, "conv_proj", None), nn.Conv2d):
            values["hidden_dim"] = projection.out_channels
        if (joint := getattr(module, "qkv", None)) in heads:
            values["num_heads"] = heads[joint]
            values["attn_dim"] = joint.out_features // 3
            values["head_dim"] = values["attn_dim"] // heads[joint]
        for key, value in values.items():
            if hasattr(module, key):
                setattr(module, key, value)


def _channels(module: nn.Module) -> int:
    return module.out_channels if isinstance(module, nn.modules.conv._ConvNd) else 0


def _convolution_groups(dep: Any) -> int:
    module = dep.target.module
    grouped = isinstance(module, nn.modules.conv._ConvNd) and module.groups < module.out_channels
    return module.groups if grouped else 1


def table(rows: Sequence[Row]) -> str:
    """Coverage by mode, then a table of the rows, in Markdown."""
    lines = ["| mode | networks | graph | prune | forward | equivalent |", "|---|---|---|---|---|---|"]
    for mode in MODES:
        mine = [row for row in rows if row["case"].endswith(f" {mode}")]
        counts = [sum(row.get(stage, False) for row in mine) for stage in COVERAGE]
        lines.append(f"| {' | '.join([mode, str(len(mine)), *map(str, counts)])} |")
    lines += ["", "| case | | params | graph | prune | extra memory | channels grouped as by Chase |", "|---" * 7 + "|"]
    return "\n".join([*lines, *map(_line, rows)]) + "\n"


def _line(row: Row) -> str:
    found = row.get("agreement")
    spent = [row.get(f"{stage}_cost", {}) for stage in ("graph", "prune")]
    memory = [part["extra_mb"] for part in spent if part.get("extra_mb") is not None]
    cells = (
        row["case"],
        "ok" if row["ok"] else f"fails at {row['stage']}: {row['error']}".replace("|", "/"),
        " → ".join(f"{params / 1e6:.2f} M" for params in row.get("params", ())),
        *(f"{part['cpu_s']:.2f} s" if part.get("cpu_s") is not None else "" for part in spent),
        f"{max(memory):.0f} MB" if memory else "",
        f"{found['agree']} of {found['agree'] + found['differ']}" if found else "",
    )
    return f"| {' | '.join(cells)} |"


SWEEP = Sweep(
    "chase.benchmarks.torch_pruning", "Prune whole zoos with torch-pruning.", examine, table, MODES, check=library
)

if __name__ == "__main__":
    main(SWEEP)
