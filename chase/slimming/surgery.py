"""Surgery: cut tensors by (name, dim, positions), and the plan that rebuilds the shapes from a file."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from chase.errors import CheckpointError, TraceError, reason
from chase.slimming.followers import followed, settle
from chase.slimming.groups import Group, Lane, Slice
from chase.slimming.units import Block

Kept = Mapping[str, Tensor]
"""The units [n] that each named group keeps."""


class Cut(NamedTuple):
    """Positions (int64 [n]) that a tensor loses along `dim`, or that a block of its rows loses."""

    dim: int
    positions: Tensor
    block: Block | None = None


Cuts = Mapping[str, list[Cut]]
"""What each tensor loses."""
LARGE = 1 << 22
"""Entries from which on a tensor is cut in portions."""


@dataclass(frozen=True)
class Plan:
    """What sets a slim network apart from the one its constructor builds, as plain data.

    `shapes` maps a parameter or buffer to its shape; `attributes` maps a module to the settings that follow;
    `constants` holds the buffers that a state dict leaves out.
    """

    shapes: dict[str, list[int]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Only dicts, lists, strings, numbers and tensors."""
        return {"shapes": self.shapes, "attributes": self.attributes, "constants": self.constants}


def cuts(groups: tuple[Group, ...], kept: Kept) -> dict[str, list[Cut]]:
    """What leaves with the units that are not kept."""
    found: dict[str, list[Cut]] = {}
    for group in groups:
        leaves = np.ones(group.size, dtype=bool)
        leaves[kept[group.name].numpy()] = False
        for part in group.slices if leaves.any() else ():
            gone = part.positions.numpy()[leaves[part.units.numpy()]]  # far quicker than torch on small vectors
            if len(gone):
                found.setdefault(part.tensor, []).append(Cut(part.dim, torch.from_numpy(gone), part.block))
    return found


def without(tensor: Tensor, lost: list[Cut]) -> Tensor:
    """`tensor` less what it loses; the blocks of a dimension must be left equally long."""
    blocks = {cut.block.count: cut.dim for cut in lost if cut.block}
    for count, dim in blocks.items():
        rows = [
            _less(part, dim, [cut.positions for cut in lost if cut.block == Block(index, count)])
            for index, part in enumerate(tensor.chunk(count))
        ]
        tensor = torch.cat(rows)
    whole = [cut for cut in lost if not cut.block]
    large = tensor.numel() > LARGE and len({cut.dim for cut in whole}) > 1
    return _in_portions(tensor, whole) if large else _cut_along(tensor, whole)


def trimmed(tensor: Tensor, lost: list[Cut]) -> Tensor:
    """`without`, in the memory layout of `tensor`."""
    last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return without(tensor, lost).contiguous(memory_format=layout)


def _cut_along(tensor: Tensor, lost: list[Cut]) -> Tensor:
    for dim in sorted({cut.dim for cut in lost}):
        tensor = _less(tensor, dim, [cut.positions for cut in lost if cut.dim == dim])
    return tensor


def _in_portions(tensor: Tensor, lost: list[Cut]) -> Tensor:
    """A large tensor, some rows at a time, so that none of its copies is larger than the result."""
    columns = [cut for cut in lost if cut.dim != 0]
    rows = _less(torch.arange(len(tensor)), 0, [cut.positions for cut in lost if cut.dim == 0])
    result = tensor.new_empty(sides_without(tensor.shape, lost))
    size = max(1, LARGE * len(tensor) // tensor.numel())
    for part, into in zip(rows.split(size), result.split(size), strict=True):
        into.copy_(_cut_along(tensor.index_select(0, part.to(tensor.device)), columns))
    return result


def sides_without(sides: Sequence[int], lost: list[Cut]) -> list[int]:
    """The shape that `without` leaves."""
    left = list(sides)
    for cut in lost:
        if cut.block is None or cut.block.index == 0:
            left[cut.dim] -= len(cut.positions)
    return left


def _less(tensor: Tensor, dim: int, positions: list[Tensor]) -> Tensor:
    stays = torch.ones(tensor.shape[dim], dtype=torch.bool)
    for part in positions:
        stays[part] = False
    return tensor.index_select(dim, stays.nonzero().flatten().to(tensor.device))


def narrowed(groups: tuple[Group, ...], kept: Kept, lost: Cuts) -> tuple[Group, ...]:
    """The groups of a network that was cut: units and positions numbered anew."""
    gone: dict[tuple[str, int, Block | None], Tensor] = {}
    for tensor, pieces in lost.items():
        for dim, block in {(cut.dim, cut.block) for cut in pieces}:
            positions = [cut.positions for cut in pieces if (cut.dim, cut.block) == (dim, block)]
            gone[tensor, dim, block] = torch.cat(positions).unique()
    return tuple(_narrowed(group, kept[group.name], gone) for group in groups)


def _narrowed(group: Group, kept: Tensor, gone: Mapping[tuple[str, int, Block | None], Tensor]) -> Group:
    number = torch.full((group.size,), -1)
    number[kept] = torch.arange(len(kept))

    def lane(old: Lane) -> Lane:
        units = number[old.units]
        return Lane(units[units >= 0], old.fixed)

    def part(old: Slice) -> Slice:
        stays = number[old.units] >= 0
        positions, before = old.positions[stays], gone.get((old.tensor, old.dim, old.block))
        if before is not None:
            positions = positions - torch.searchsorted(before, positions)
        return dataclasses.replace(old, positions=positions, units=number[old.units[stays]])

    return dataclasses.replace(
        group,
        size=len(kept),
        slices=tuple(map(part, group.slices)),
        lanes=tuple(map(lane, group.lanes)),
        even=tuple(tuple(map(lane, lanes)) for lanes in group.even),
    )


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def replaced(model: nn.Module, change: Callable[[str, Tensor], Tensor | None]) -> nn.Module:
    """A copy of `model` with other tensors: `change(name, tensor)` returns the new one, or None for a plain copy.

    Only new tensors and what is copied plainly take memory.
    """
    memo: dict[int, Any] = {}
    for name, tensor in tensors_of(model).items():
        if (new := change(name, tensor.detach())) is not None:
            memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    try:
        return copy.deepcopy(model, memo)
    except RuntimeError as error:  # torch.nn.utils.weight_norm keeps a computed tensor as an attribute
        raise TraceError(f"{type(model).__name__} cannot be copied: {reason(error)}") from error


def slim_copy(model: nn.Module, change: Callable[[str, Tensor], Tensor | None]) -> tuple[nn.Module, Plan]:
    """As `replaced`, with every module's settings brought in line, and the plan that says which shapes changed."""
    shapes: dict[str, list[int]] = {}

    def recorded(name: str, tensor: Tensor) -> Tensor | None:
        new = change(name, tensor)
        if new is not None and new.shape != tensor.shape:
            shapes[name] = list(new.shape)
        return new

    small = replaced(model, recorded)
    stored = small.state_dict(keep_vars=True).keys()
    constants = {name: tensor for name, tensor in small.named_buffers() if name in shapes and name not in stored}
    return small, Plan(shapes, followed(small), constants)


def rebuild_(model: nn.Module, plan: Mapping[str, Any]) -> None:
    """Give a freshly built `model` the shapes of a plan, in place; values come from a state dict afterwards.

    Raises:
        CheckpointError: if the plan names a tensor that the model does not have.
    """
    tensors = tensors_of(model)
    for name in plan["shapes"]:
        if name not in tensors:
            raise CheckpointError(f"the width plan names {name}, which {type(model).__name__} does not have")
    for name, shape in plan["shapes"].items():
        tensors[name].data = tensors[name].data.new_zeros(shape)
    for name, tensor in plan.get("constants", {}).items():
        tensors[name].data.copy_(tensor)
    for name, values in plan["attributes"].items():
        settle(model.get_submodule(name), values)
