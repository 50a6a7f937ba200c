"""Channel regrowth: removed channels return for another try, with the weights they had (after CHEX, Hou et al. 2022).

CHEX samples them by how little they resemble the living ones; here the draw is uniform, and the method's criterion
decides at the next event whether they stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chase import schedules
from chase.slimming.widths import grid_of
from chase.sparse.channels import Blocks
from chase.sparse.masks import Masks
from chase.sparse.method import Method


class Graveyard:
    """The parameters and masks that channels had when they were removed: one more copy of the model, until τ_stop."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self.masks = masks
        self.values = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.weights = {name: mask.clone() for name, mask in masks.weights.items()}
        self._living = self._lives(model)

    def choose(self, method: Method, progress: float, generator: torch.Generator) -> Blocks:
        """Dead units that return now, whole blocks of the width grid; `progress` is the step over τ_stop."""
        count = round(method.channel_regrowth * schedules.cosine(progress) * self.masks.removed)
        blocks: Blocks = []
        for group in self.masks.groups:
            dead = (~self.masks.alive[group.name]).nonzero().flatten()
            grid = grid_of(method.round_to, group)
            if not group.even:  # the groups of a grouped convolution have to stay equally wide
                order = dead[torch.randperm(len(dead), generator=generator)]
                blocks += [(group.name, units) for units in order.split(grid) if len(units) == grid]
        returning: Blocks = []
        for index in torch.randperm(len(blocks), generator=generator).tolist():
            name, units = blocks[index]
            if len(units) <= count:
                returning.append((name, units))
                count -= len(units)
        return returning

    @torch.no_grad()
    def exchange(self, model: nn.Module, returning: Blocks) -> None:
        """Bury the channels that died since the last exchange, and restore those that return."""
        parameters = dict(model.named_parameters())
        for name, lived in self._living.items():
            self.values[name] = torch.where(lived, parameters[name], self.values[name])
            if name in self.weights:
                self.weights[name] = torch.where(lived, self.masks.weights[name], self.weights[name])
        for group, units in returning:
            self.masks.alive[group][units] = True
        before, self._living = self._living, self._lives(model)
        for name, lives in self._living.items():
            back = lives & ~before[name]
            parameters[name].copy_(torch.where(back, self.values[name], parameters[name]))
            if name in self.weights:
                mask = self.masks.weights[name]
                mask.copy_(torch.where(back, self.weights[name], mask))

    def _lives(self, model: nn.Module) -> dict[str, Tensor]:
        """Which entries belong to living channels, bool, for each parameter that channels run through."""
        lives = {name: self.masks.allowed(name) for name in self.masks.weights}
        vectors = {name: mask != 0 for name, mask in self.masks.vectors(model).items()}
        whole = {
            name: torch.ones_like(value, dtype=torch.bool)
            for name, value in model.named_parameters()
            if name not in lives and name not in vectors
        }
        return lives | vectors | whole

    def state_dict(self) -> dict[str, Any]:
        """What is buried."""
        return {"values": self.values, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Continue where `state_dict` was taken; the masks have been loaded before."""
        for mine, key in ((self.values, "values"), (self.weights, "weights")):
            mine.update({name: tensor.to(mine[name].device) for name, tensor in state[key].items()})
        self._living = self._lives(model)
