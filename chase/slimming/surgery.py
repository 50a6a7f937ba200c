"""Surgery: cut tensors by (name, dim, kept positions), and the plan that rebuilds the shapes from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chase.errors import CheckpointError
from chase.slimming.groups import Group

Kept = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """What sets a slim network apart from the one its constructor builds, as plain data.

    `shapes` maps a parameter or buffer to its shape; `attributes` maps a module to the integers that follow.
    """

    shapes: dict[str, list[int]]
    attributes: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """Only dicts, lists, strings and ints."""
        return {"shapes": self.shapes, "attributes": self.attributes}


def cut_positions(groups: tuple[Group, ...], kept: Kept) -> dict[tuple[str, int], Tensor]:
    """The positions that go, for each (tensor, dim), given the units [n] that each named group keeps."""
    gone: dict[tuple[str, int], list[Tensor]] = {}
    for group in groups:
        leaves = torch.ones(group.size, dtype=torch.bool)
        leaves[kept[group.name]] = False
        for part in group.slices:
            gone.setdefault((part.tensor, part.dim), []).append(part.positions[leaves[part.units]])
    return {key: torch.cat(parts) for key, parts in gone.items()}


def without(tensor: Tensor, dim: int, positions: Tensor) -> Tensor:
    """`tensor` less some positions along `dim`, contiguous."""
    stays = torch.ones(tensor.shape[dim], dtype=torch.bool)
    stays[positions] = False
    return tensor.index_select(dim, stays.nonzero().flatten().to(tensor.device))


def cut_(model: nn.Module, gone: Mapping[tuple[str, int], Tensor]) -> Plan:
    """Cut the positions out of `model`'s tensors, in place, and say what changed."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    smaller: dict[str, Tensor] = {}
    for (name, dim), positions in gone.items():
        if len(positions):
            smaller[name] = without(smaller.get(name, tensors[name]).detach(), dim, positions)
    _replace(model, smaller)
    return Plan({name: list(tensor.shape) for name, tensor in smaller.items()}, _follow(model, smaller))


def rebuild_(model: nn.Module, plan: Mapping[str, Any]) -> None:
    """Give a freshly built `model` the shapes of a plan, in place; values come from a state dict afterwards.

    Raises:
        CheckpointError: if the plan names a tensor that the model does not have.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in plan["shapes"]:
        if name not in tensors:
            raise CheckpointError(f"the width plan names {name}, which {type(model).__name__} does not have")
    _replace(model, {name: tensors[name].new_zeros(shape) for name, shape in plan["shapes"].items()})
    for name, values in plan["attributes"].items():
        module = model.get_submodule(name)
        for key, value in values.items():
            setattr(module, key, value)


def _replace(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put new tensors in place of old ones, also where one tensor is reachable under several names."""
    old = dict(model.named_parameters()) | dict(model.named_buffers())
    by_id = {id(old[name]): tensor for name, tensor in tensors.items()}
    parameters = {key: nn.Parameter(tensor) for key, tensor in by_id.items()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in by_id:
                parameters[id(parameter)].requires_grad_(parameter.requires_grad)
                module._parameters[name] = parameters[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and id(buffer) in by_id:
                module._buffers[name] = by_id[id(buffer)]


def _convolution(module: Any, weight: Tensor) -> dict[str, int]:
    return {"out_channels": weight.shape[0], "in_channels": weight.shape[1] * module.groups}


def _linear(module: Any, weight: Tensor) -> dict[str, int]:
    return {"out_features": weight.shape[0], "in_features": weight.shape[1]}


def _norm(module: Any, weight: Tensor) -> dict[str, int]:
    return {"num_features": weight.shape[0]}


FOLLOWERS: list[tuple[tuple[type[nn.Module], ...], str, Callable[[Any, Tensor], dict[str, int]]]] = [
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), "weight", _convolution),
    ((nn.Linear,), "weight", _linear),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), "weight", _norm),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), "running_mean", _norm),
]
"""Which integers of a module follow the shape of which of its tensors."""


def _follow(model: nn.Module, changed: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    new = {id(tensors[name]) for name in changed}
    attributes = {}
    for name, module in model.named_modules():
        for types, tensor, rule in FOLLOWERS:
            if isinstance(module, types) and id(getattr(module, tensor)) in new:
                attributes[name] = rule(module, getattr(module, tensor))
                for key, value in attributes[name].items():
                    setattr(module, key, value)
    return attributes
