"""Gates: the gradient of the loss for a gate on each channel, gathered over training steps.

A gate g multiplies a channel; at g = 1 its gradient is Σ p · ∂L/∂p over parameters p that the channel is linear in:
γ and β of the norm behind it, or filter and bias where there is none. (A filter before a norm would not do: the norm
undoes its scale.) Coupled rows share one gate, so their sums add up before they are squared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chase.slimming.groups import Group, Slice, layer_name


def norm_slices(group: Group, parameters: Mapping[str, Tensor]) -> tuple[Slice, ...]:
    """The slices of a group that are γ of norms (vectors called weight)."""
    return tuple(part for part in _own(group, parameters) if _is_scale(part, parameters))


def _own(group: Group, parameters: Mapping[str, Tensor]) -> Iterable[Slice]:
    return (part for part in group.slices if not part.reads and part.tensor in parameters)


def _is_scale(part: Slice, parameters: Mapping[str, Tensor]) -> bool:
    return parameters[part.tensor].ndim == 1 and part.tensor.endswith(".weight")


def gate_slices(group: Group, parameters: Mapping[str, Tensor]) -> tuple[Slice, ...]:
    """The slices whose p · ∂L/∂p make a gate's gradient."""
    norms = {layer_name(part.tensor) for part in norm_slices(group, parameters)}
    own = [*_own(group, parameters)]
    return tuple(part for part in own if layer_name(part.tensor) in norms) or tuple(own)


def scales(group: Group, parameters: Mapping[str, Tensor]) -> Tensor | None:
    """The mean |γ| over the norms that each unit runs through, float32 [size] on the CPU; None without a norm."""
    parts = norm_slices(group, parameters)
    if not parts:
        return None
    total, count = torch.zeros(group.size), torch.zeros(group.size)
    for part in parts:
        gamma = parameters[part.tensor].detach().abs().float().cpu()[part.positions]
        total.index_add_(0, part.units, gamma)
        count.index_add_(0, part.units, torch.ones_like(gamma))
    return total / count.clamp(min=1)


class Gates:
    """Means of |G| and G² per unit of each group, over the steps since the last `reset`."""

    def __init__(self, groups: Iterable[Group], model: nn.Module) -> None:
        self.steps = 0
        self.attach(groups, model)
        self.reset()

    def attach(self, groups: Iterable[Group], model: nn.Module) -> None:
        """Watch a model whose shapes changed."""
        self._parameters = dict(model.named_parameters())
        self._groups = {group.name: group for group in groups}
        self._parts = {name: gate_slices(group, self._parameters) for name, group in self._groups.items()}

    def reset(self) -> None:
        """Forget what was gathered."""
        self.steps = 0
        self.first = {name: torch.zeros(group.size) for name, group in self._groups.items()}
        self.second = {name: torch.zeros(group.size) for name, group in self._groups.items()}

    @torch.no_grad()
    def add(self, scale: Tensor | float = 1.0) -> None:
        """Gather the gradients that parameters hold now, `scale` times too large; those that overflowed count as 0."""
        self.steps += 1
        for name, group in self._groups.items():
            gate = torch.nan_to_num(self._gradient(group, self._parts[name], scale), 0.0, 0.0, 0.0)
            self.first[name] += gate.abs()
            self.second[name] += gate.square()

    def _gradient(self, group: Group, parts: Iterable[Slice], scale: Tensor | float) -> Tensor:
        total = torch.zeros(group.size)
        for part in parts:
            parameter = self._parameters[part.tensor]
            if parameter.grad is not None:
                product = (parameter * parameter.grad / scale).transpose(0, part.dim)
                rows = product.reshape(len(product), -1).sum(1)
                total.index_add_(0, part.units, rows.float().cpu()[part.positions])
        return total

    def means(self, group: str) -> tuple[Tensor | None, Tensor | None]:
        """(mean |G|, mean G²), float32 [size]; None before the first step."""
        if not self.steps:
            return None, None
        return self.first[group] / self.steps, self.second[group] / self.steps

    def narrow(self, kept: Mapping[str, Tensor]) -> None:
        """Follow a model that was cut to the units [n] of each group."""
        self.first = {name: values[kept[name]] for name, values in self.first.items()}
        self.second = {name: values[kept[name]] for name, values in self.second.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was gathered."""
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.steps, self.first, self.second = state["steps"], dict(state["first"]), dict(state["second"])
