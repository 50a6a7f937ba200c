"""Trials: does the forward pass follow the shapes of its tensors? A cut copy is run, or traced again, to see."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from chase.errors import TraceError, reason
from chase.slimming.groups import Group
from chase.slimming.propagation import Propagation
from chase.slimming.surgery import cuts, sides_without, slim_copy
from chase.slimming.units import Labels
from chase.slimming.widths import filled, spread
from chase.tracing import Example, arguments, evaluating, operator, quiet, shape, trace

REAL = contextlib.nullcontext()


class Trial:
    """Forward passes without arithmetic of a model that lost half of the channels of some groups.

    They run on the meta device; for a model that does not run there even when whole, on fake tensors, which are slower.
    The training mode is tried as well, where the whole model runs in it.
    """

    def __init__(self, model: nn.Module, example: Example, *, training: bool = True) -> None:
        self.model, self.modes = model, (False, True) if training else (False,)
        self.inputs = arguments(example, batch=2)
        self.mode: AbstractContextManager[Any] = REAL
        self.device = "meta"
        self.reasons: dict[str, str] = {}

    def accepted(self, candidates: Sequence[Group]) -> list[Group]:
        """As many of the candidates as leave the forward pass able to run."""
        if not candidates or self.failure(candidates) is None:
            return list(candidates)
        if self.failure([]) is not None:
            self.mode, self.device = FakeTensorMode(allow_non_fake_inputs=True), "cpu"
        return self._admit([], candidates)

    def _admit(self, accepted: list[Group], candidates: Sequence[Group]) -> list[Group]:
        """`accepted` and what can be added to it, found by halving."""
        error = self.failure([*accepted, *candidates])
        if error is None:
            return [*accepted, *candidates]
        if len(candidates) == 1:
            self.reasons[candidates[0].name] = error
            return accepted
        middle = len(candidates) // 2
        return self._admit(self._admit(accepted, candidates[:middle]), candidates[middle:])

    def failure(self, groups: Sequence[Group]) -> str | None:
        """What the forward pass complains about, or None."""
        error, training = self._failed(groups)
        if training and self._failed([])[1]:  # not even the whole model runs in training mode here
            self.modes = (False,)
            return None
        return error

    def _failed(self, groups: Sequence[Group]) -> tuple[str | None, bool]:
        """What the forward pass complains about, and whether it did so in training mode only."""
        training = False
        try:
            small = trial_copy(self.model, groups, self.device, self.mode)
            with quiet(), self.mode, torch.no_grad(), evaluating(small):
                for training in self.modes:
                    for module in small.modules():
                        # torch's own norms and dropouts fix no number, and are slow to try in training
                        module.training = training and not type(module).__module__.startswith("torch.nn.")
                    small(*pytree.tree_map_only(Tensor, self._like, self.inputs))
        except Exception as error:  # whatever the user's forward raises
            return reason(error), training
        return None, False

    def _like(self, x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=x.dtype, device=self.device)


def halved(groups: Sequence[Group]) -> dict[str, Tensor]:
    """The units [n] that each group keeps in a trial: every second one, and what its widths ask for."""
    return {group.name: filled(group, spread(group, group.size // 2)).nonzero().flatten() for group in groups}


def trial_copy(
    model: nn.Module, groups: Sequence[Group], device: str, mode: AbstractContextManager[Any] = REAL
) -> nn.Module:
    """A copy of `model` with these groups halved, and with tensors of a mode that are never filled."""
    lost = cuts(tuple(groups), halved(groups))

    def change(name: str, tensor: Tensor) -> Tensor:
        return torch.empty(sides_without(tensor.shape, lost.get(name, [])), dtype=tensor.dtype, device=device)

    with mode:  # what is cut has to be known, so not in computing `lost`
        return slim_copy(model, change)[0]


def follows(walk: Propagation, small: nn.Module, example: Example, stays: Tensor) -> bool:
    """Whether every value in the graph of the trial copy `small` has the shape that the units which stay predict."""
    try:
        traced = trace(small, example)
    except TraceError:
        return False
    before = [node for node in walk.trace.nodes if node.op == "call_function"]
    after = [node for node in traced.nodes if node.op == "call_function"]
    return len(before) == len(after) and all(
        operator(one) == operator(other) and predicted(walk.values.get(one), one, stays) == shape(other)
        for one, other in zip(before, after, strict=True)
    )


def predicted(value: object, node: fx.Node, stays: Tensor) -> tuple[int, ...]:
    """The shape of a node's result once only these units stay."""
    sides = list(shape(node))
    axes: Mapping[int, Any] = value.axes if isinstance(value, Labels) else {}
    for axis, (ids, _) in axes.items():
        sides[axis] = int((stays[ids.clamp(min=0)] | (ids < 0)).sum())
    return tuple(sides)
