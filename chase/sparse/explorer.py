"""Explorer: drops and grows single weights at the events of a method (paper Eqs. 1 and 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from chase.slimming.surgery import Cuts, trimmed
from chase.sparse.allocation import ALLOCATIONS, Growth
from chase.sparse.masks import Masks, maskable
from chase.sparse.method import Method
from chase.sparse.scores import SCORES
from chase.sparse.update import NewMasks, count_ones, grow, mix, prune

log = logging.getLogger(__name__)
PRUNE, GROW = 1, 2  # streams of random numbers


class Explorer:
    """Changes weight masks in place, by the scores of a method.

    `gradients` are the dense gradients that growth looks at: those of the event's batch, or their running average.
    """

    def __init__(self, model: nn.Module, method: Method, masks: Masks, seed: int) -> None:
        self.method, self.masks, self.seed = method, masks, seed
        self.gradients: dict[str, Tensor] = {}
        self.attach(model)

    def attach(self, model: nn.Module, lost: Cuts | None = None) -> None:
        """Watch a model, whose tensors have `lost` some of their entries."""
        self.weights = maskable(model)
        self.gradients = {name: trimmed(value, (lost or {}).get(name, [])) for name, value in self.gradients.items()}

    @torch.no_grad()
    def observe(self, coming: bool, scale: Tensor | float = 1.0) -> None:
        """Take the dense gradients of this step, which are `scale` times too large, if an event is coming that looks at
        them or there is an average."""
        momentum = self.method.gradient_momentum
        if not momentum:
            self.gradients = {}
        if not (coming or momentum):
            return
        for name, weight in self.weights.items():
            if weight.grad is not None:
                average = self.gradients.setdefault(name, torch.zeros_like(weight.grad))
                # A gradient that overflowed would stay in the average for good.
                average.lerp_((weight.grad / scale).nan_to_num_(0.0, 0.0, 0.0), 1 - momentum)

    def prune(self, keep: int, step: int) -> None:
        """Drop weights until `keep` are left."""
        score_of = self._scorer(self.method.prune, step, PRUNE)
        self._take_over(prune(self.masks.weights, score_of, keep, scope=self.method.scope))

    def grow(self, target: int, step: int, before: Mapping[str, int]) -> None:
        """Grow weights up to `target`; `before` are the weights of each layer before the event."""
        masks, living = self.masks, count_ones(self.masks.weights)
        room = {name: int(masks.free(name).count_nonzero()) for name in living}
        add = target - sum(living.values())
        shares = ALLOCATIONS[self.method.allocation](Growth(add, before, living, room, self._momentum))
        score_of = self._scorer(self.method.grow, step, GROW)
        self._take_over(grow(masks.weights, score_of, add, free=masks.free, shares=shares))
        if sum(room.values()) < add:
            log.warning("step %d: the living channels hold %d of %d weights", step, masks.nonzero, target)

    def _momentum(self) -> dict[str, float]:
        """The mean |ḡ| of each layer's living weights."""
        means = {}
        for name, mask in self.masks.weights.items():
            gradient = self.gradients.get(name)
            living = mask.count_nonzero().clamp(min=1)
            means[name] = 0.0 if gradient is None else float((gradient.abs() * mask).sum() / living)
        return means

    def _take_over(self, masks: NewMasks) -> None:
        """Change the masks in place: they keep their memory and its layout, as compiled steps expect."""
        for name, mask in masks:
            self.masks.weights[name].copy_(mask)

    def _scorer(self, name: str, step: int, stream: int) -> Callable[[str], Tensor]:
        score, order = SCORES[name], {layer: index for index, layer in enumerate(self.weights)}

        def score_of(layer: str) -> Tensor:
            weight = self.weights[layer].detach()
            gradient = self.gradients.get(layer)
            generator = torch.Generator().manual_seed(mix(self.seed, step, stream, order[layer]))
            return score(weight, torch.zeros_like(weight) if gradient is None else gradient, generator)

        return score_of
