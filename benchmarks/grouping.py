"""Do two tools group channels alike? What leaves with a channel, as torch-pruning says and as Chase says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from chase.slimming.groups import Group, prunable
from chase.slimming.tracer import channel_groups

Entry: TypeAlias = tuple[str, int, int]
"""A tensor's name, a dimension, and a position along it."""

Unit: TypeAlias = tuple[str, int]
"""The name of a group, and a unit of it."""


def compare_groups(model: nn.Module, example: Tensor, theirs: Iterable[Any]) -> dict[str, Any]:
    """How many channels leave with the same entries of the same tensors in both tools, and an example where not.

    `theirs` are whole groups of torch-pruning for a copy of `model`. {"agree", "differ", "only_torch_pruning" (Chase
    holds them), "only_chase", "example"}; what grouped convolutions read is left out, which the tools count
    differently.
    """
    grouped = _grouped(model)
    ours = _ours(prunable(channel_groups(model, example), prune_skip=True), grouped)
    unit_of = {entry: unit for unit, entries in ours.items() for entry in entries}
    seen: set[Unit] = set()
    found: dict[str, Any] = {"agree": 0, "differ": 0, "only_torch_pruning": 0, "example": None}
    for group in theirs:
        for channel, entries in _theirs(group, grouped).items():
            units = {unit_of[entry] for entry in entries if entry in unit_of}
            together: set[Entry] = set().union(*(ours[unit] for unit in units))
            if not units:
                found["only_torch_pruning"] += 1
            elif together == entries or together == (entries := _alone(group, channel, grouped)):
                found["agree"] += len(units - seen)
            else:
                found["differ"] += len(units - seen)
                found["example"] = found["example"] or [list(entry) for entry in sorted(entries ^ together)[:3]]
            seen |= units
    return found | {"only_chase": len(ours.keys() - seen)}


def parts(graph: Any, dep: Any, positions: Sequence[int]) -> Iterator[tuple[str, int, bool, Sequence[int]]]:
    """The tensors behind one item of a torch-pruning group: (name, dim, whether it reads the channels, positions)."""
    target = dep.target.module
    if isinstance(target, nn.Parameter):
        yield graph._param_to_name[target], dep.target.pruning_dim, False, positions
        return
    if (module := graph._module2name.get(target)) is None:
        return  # an operator
    reads = not graph.is_out_channel_pruning_fn(dep.handler)
    for name, tensor in [*target.named_parameters(recurse=False), *target.named_buffers(recurse=False)]:
        full = f"{module}.{name}"
        if isinstance(target, nn.MultiheadAttention):  # queries, keys and values lie below each other
            yield full, 0, False, [i * target.embed_dim + each for i in range(3) for each in positions]
        elif tensor.ndim > int(reads):
            yield full, int(reads), reads, positions
    if isinstance(target, nn.MultiheadAttention):
        yield f"{module}.out_proj.weight", 0, False, positions
        yield f"{module}.out_proj.bias", 0, False, positions


def _grouped(model: nn.Module) -> set[str]:
    """The weights of grouped convolutions."""
    convolutions = (
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.modules.conv._ConvNd)
    )
    return {f"{name}.weight" for name, module in convolutions if module.groups > 1}


def _ours(groups: Sequence[Group], grouped: set[str]) -> dict[Unit, set[Entry]]:
    """What leaves with each unit."""
    found: dict[Unit, set[Entry]] = defaultdict(set)
    for group in groups:
        for part in group.slices:
            if not (part.dim and part.tensor in grouped):
                for position, unit in zip(part.positions.tolist(), part.units.tolist(), strict=True):
                    found[group.name, unit].add((part.tensor, part.dim, position))
    return dict(found)


def _theirs(group: Any, grouped: set[str]) -> dict[int, set[Entry]]:
    """What leaves with each channel of the layer that a group starts at; an entry is listed with one channel only."""
    found: dict[int, set[Entry]] = defaultdict(set)
    for item in group:
        for name, dim, _, positions in parts(group._DG, item.dep, item.idxs):
            if not (dim and name in grouped):
                for position, root in zip(positions, item.root_idxs, strict=True):
                    found[root].add((name, dim, position))
    return dict(found)


def _alone(group: Any, channel: int, grouped: set[str]) -> set[Entry]:
    """What leaves with one channel: slow to ask, but complete where channels of one layer leave together."""
    root = group[0].dep
    asked = group._DG.get_pruning_group(root.target.module, root.handler, [channel])
    return set().union(*_theirs(asked, grouped).values())
