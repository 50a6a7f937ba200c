"""Pruner: removes channels at the events of a method, and lets some of them return (paper §3, Eq. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chase.sparse.channels import (
    AGGREGATES,
    NORMALISERS,
    Blocks,
    Scored,
    first_channels,
    first_enough,
    group_scores,
    ranked_blocks,
)
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.gates import Gates
from chase.sparse.masks import Masks
from chase.sparse.method import Method
from chase.sparse.plan import Event
from chase.sparse.regrowth import Graveyard
from chase.sparse.start import floors
from chase.sparse.update import mix

if TYPE_CHECKING:
    from chase.counting import Cost

CHANNEL = 5  # a stream of random numbers


class Pruner:
    """Decides which channels of a model live.

    `cost` is what a forward pass of the dense model costs; needed where the method counts MACs.
    """

    def __init__(self, model: nn.Module, method: Method, masks: Masks, *, cost: Cost | None, seed: int) -> None:
        self.model, self.method, self.masks, self.cost, self.seed = model, method, masks, cost, seed
        self.floors = floors(masks.groups, method)
        self.sizes = {group.name: group.size for group in masks.groups}
        self.criterion = CHANNEL_SCORES[method.criterion]
        self.gates = Gates(masks.groups, model) if self.criterion.gradients else None
        self.graveyard = Graveyard(model, masks) if method.channel_regrowth else None

    @torch.no_grad()
    def check(self) -> None:
        """Refuse now what the first event would refuse, unless that takes gradients of training steps to find out.

        Raises:
            RecipeError: if the criterion needs something that the network has not, or does not go with `normalise`.
        """
        if self.gates is None:
            self.scores(0)

    @torch.no_grad()
    def observe(self, scale: Tensor | float = 1.0) -> None:
        """Gather this step's gradients, which are `scale` times too large, if the criterion looks at them."""
        if self.gates is not None:
            self.gates.add(scale)

    def run(self, event: Event, progress: float) -> None:
        """Remove channels until the event's target is met; `progress` is the step over τ_stop."""
        returning = self._returning(event, progress)
        for name, units in self._leaving(event, sum(len(units) for _, units in returning)):
            self.masks.alive[name][units] = False
        if self.graveyard is not None:
            self.graveyard.exchange(self.model, returning)
            if progress >= 1:  # this was τ_stop: none may return any more
                self.graveyard = None
        self.masks.bury()
        if self.gates is not None:
            self.gates.reset()

    def _returning(self, event: Event, progress: float) -> Blocks:
        if self.graveyard is None:
            return []
        generator = torch.Generator().manual_seed(mix(self.seed, event.step, CHANNEL))
        return self.graveyard.choose(self.method, progress, generator)

    def _leaving(self, event: Event, more: int) -> Blocks:
        """The blocks of units that leave, `more` units than the target asks for."""
        masks, method = self.masks, self.method
        blocks = ranked_blocks(
            masks.groups,
            self.scores(event.step),
            masks.alive,
            floors=self.floors,
            grid=method.round_to,
            scope=method.channel_scope,
            sizes=self.sizes,
        )
        if event.channel_sparsity is not None:
            return first_channels(blocks, round(event.channel_sparsity * masks.channels) - masks.removed + more)
        limit = (event.executed_macs or 1.0) * self._cost().macs
        fewest = first_enough(blocks, lambda taken: self._macs_without(taken) <= limit)
        return blocks[: len(fewest) + more]

    def scores(self, step: int) -> dict[str, Tensor]:
        """The score of each unit, float32 [size] by group, as the method compares them."""
        method, masks = self.method, self.masks
        scored = Scored(
            dict(self.model.named_parameters()),
            masks.weights,
            masks.alive,
            masks.dense_shapes,
            self.gates.means if self.gates else lambda group: (None, None),
        )
        normalise, aggregate = NORMALISERS[method.normalise], AGGREGATES[method.aggregate]
        macs = self._channel_macs()
        return {
            group.name: normalise(
                group_scores(
                    group, self.criterion, scored, aggregate=aggregate, seed=mix(self.seed, step, CHANNEL, order)
                ),
                masks.alive[group.name],
                macs[group.name],
            )
            for order, group in enumerate(masks.groups)
        }

    def _channel_macs(self) -> dict[str, float]:
        """The MACs that one channel of each group executes; 1 where scores are not compared by them."""
        from chase.counting import channel_macs

        groups = self.masks.groups
        if self.method.normalise != "macs":
            return {group.name: 1.0 for group in groups}
        cost, shapes = self._cost(), self.masks.shapes()
        return {group.name: channel_macs(cost, shapes, group) for group in groups}

    def _macs_without(self, blocks: Blocks) -> int:
        """MACs that are executed once these units have left as well."""
        from chase.counting import macs_at_widths

        return macs_at_widths(self._cost(), self.masks.shapes_without(blocks))

    def _cost(self) -> Cost:
        assert self.cost is not None, "start.py asks for it where the method counts MACs"
        return self.cost

    def narrow(self, kept: Mapping[str, Tensor]) -> None:
        """Follow a model that was cut to the units [n] of each group."""
        if self.gates is not None:
            self.gates.narrow(kept)
            self.gates.attach(self.masks.groups, self.model)

    def state_dict(self) -> dict[str, Any]:
        """What was gathered and buried."""
        gates = self.gates.state_dict() if self.gates else None
        return {"gates": gates, "graveyard": self.graveyard.state_dict() if self.graveyard else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        if self.gates is not None:
            self.gates.load_state_dict(state["gates"])
        self.graveyard = None if state["graveyard"] is None else Graveyard(self.model, self.masks)
        if self.graveyard is not None:
            self.graveyard.load_state_dict(state["graveyard"], self.model)
