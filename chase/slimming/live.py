"""Shrinking a training while it runs: dead channels leave the model, the optimizer and its copies in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from chase.errors import RecipeError
from chase.slimming.followers import followed
from chase.slimming.network import folds, kept_units
from chase.slimming.surgery import Cut, Cuts, cuts, tensors_of, trimmed
from chase.slimming.widths import Grid, check_grid

if TYPE_CHECKING:
    from chase.sparse.masks import Masks


@torch.no_grad()
def compact(
    model: nn.Module,
    masks: Masks,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    copies: Iterable[nn.Module] = (),
    round_to: Grid = 1,
) -> dict[str, Tensor]:
    """Remove the dead channels of a training in place, without changing what the next step computes.

    A parameter that shrinks is a new object with its gradient and optimizer state; the optimizer and its schedulers go
    on with it. A compiled model compiles again; DistributedDataParallel has to be taken off before and put on after.
    The masks shrink along; what they count (sparsity, channel_sparsity) stays relative to the dense model.

    Args:
        model: the network itself, not a wrapper of it.
        masks: its masks, such as `sparsifier.masks`.
        optimizer: whose state is cut: any that keeps one number for each entry of a parameter.
        copies: modules with tensors of the same names and shapes, such as `AveragedModel(...).module`.
        round_to: the width grid; dead channels that it asks for stay.

    Returns:
        The units [n] that each group kept.

    Raises:
        RecipeError: if the optimizer's state or a copy cannot be cut along, or round_to is not a width grid or has a
            pattern that fits no layer; nothing is changed.
    """
    check_grid(round_to)
    kept = kept_units(model, masks, round_to)
    lost, modules = cuts(masks.groups, kept), [model, *copies]
    for module in modules:
        _check_copy(module, model, lost)
    if optimizer is not None:
        _check_state(optimizer, lost)
    masks.apply_(model)
    of_tensor = {tensor: lost[name] for name, tensor in tensors_of(model).items() if name in lost}
    for module in modules:
        new = _shrink(module, lost, folds(module, masks, kept))
        if module is model and optimizer is not None:
            _follow_(optimizer, new, of_tensor)
    masks.narrow(kept, lost)
    return kept


def _shrink(module: nn.Module, lost: Cuts, constants: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    """Cut a module in place; from each tensor that was replaced to the new one."""
    new: dict[Tensor, Tensor] = {}
    for name, tensor in tensors_of(module).items():
        if name in constants:
            tensor.data.add_(constants[name])
        if name in lost:
            new[tensor] = _smaller(tensor, lost[name])
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for key, old in tensors.items():
                if old is not None and old in new:
                    tensors[key] = new[old]  # type: ignore[assignment]
    followed(module)
    return new


def _smaller(tensor: Tensor, lost: list[Cut]) -> Tensor:
    """The tensor that takes the place of one, with its gradient."""
    if not isinstance(tensor, nn.Parameter):
        return trimmed(tensor, lost)
    smaller = nn.Parameter(trimmed(tensor.detach(), lost), tensor.requires_grad)
    if tensor.grad is not None:
        smaller.grad = trimmed(tensor.grad, lost)
    return smaller


def _follow_(optimizer: torch.optim.Optimizer, new: Mapping[Tensor, Tensor], lost: Mapping[Tensor, list[Cut]]) -> None:
    """Hand an optimizer the new parameters, with their state."""
    for group in optimizer.param_groups:
        group["params"] = [new.get(parameter, parameter) for parameter in group["params"]]
    for old, parameter in new.items():
        if old in optimizer.state:
            state = optimizer.state.pop(old)
            optimizer.state[parameter] = {
                key: trimmed(entry, lost[old]) if isinstance(entry, Tensor) and entry.shape == old.shape else entry
                for key, entry in state.items()
            }


def _check_copy(module: nn.Module, model: nn.Module, lost: Cuts) -> None:
    ours, theirs = tensors_of(model), tensors_of(module)
    for name in lost:
        if name not in theirs or theirs[name].shape != ours[name].shape:
            raise RecipeError(
                f"{type(module).__name__} cannot be compacted: its {name} is missing or has another shape; "
                "hand in the network itself, without a wrapper"
            )


def _check_state(optimizer: torch.optim.Optimizer, lost: Cuts) -> None:
    for parameter, state in optimizer.state.items() if lost else ():
        for key, entry in state.items():
            own = not isinstance(entry, Tensor) or entry.numel() == 1 or entry.shape == parameter.shape
            if not own or isinstance(entry, list | tuple):
                shown = list(entry.shape) if isinstance(entry, Tensor) else type(entry).__name__
                raise RecipeError(
                    f"{type(optimizer).__name__} keeps {key} ({shown}) for a parameter of shape "
                    f"{list(parameter.shape)}, which cannot be cut; use SGD, Adam or AdamW"
                )
