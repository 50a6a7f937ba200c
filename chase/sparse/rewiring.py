"""Deep-R (Bellec et al. 2018): weights walk with a fixed sign; those that cross zero are replaced at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chase.sparse.masks import Masks, maskable
from chase.sparse.update import mix

WALK, DRAW = 3, 4  # streams of random numbers


class Rewiring:
    """Keeps the number of living weights at every step, by replacing each one that crosses zero.

    After each optimizer step a living weight w of sign s moves by −η α s + √(2 η T) ν, with the learning rate η, ν
    normal, and T = η α² / 18 as in the authors' code. A weight that has then crossed zero goes dormant, and a random
    dormant one of a living channel comes to life, with a random sign and next to nothing as its value.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, masks: Masks, l1: float, seed: int) -> None:
        self.optimizer, self.masks, self.l1, self.seed = optimizer, masks, l1, seed
        self._signs: dict[str, Tensor] = {}
        self.attach(model)

    def attach(self, model: nn.Module) -> None:
        """Watch a model whose shapes changed."""
        self.weights = maskable(model)

    @torch.no_grad()
    def before_step(self) -> None:
        """Remember the signs: a weight that lives is never zero."""
        self._signs = {name: weight.sign() for name, weight in self.weights.items()}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Walk, retire the weights that crossed zero, and bring as many to life."""
        rates = {id(each): group["lr"] for group in self.optimizer.param_groups for each in group["params"]}
        retired = 0
        for index, (name, weight) in enumerate(self.weights.items()):
            generator = torch.Generator().manual_seed(mix(self.seed, step, WALK, index))
            mask, sign = self.masks.weights[name], self._signs[name]
            weight.add_(self._walk(sign, float(rates[id(weight)]), generator) * mask)
            crossed = (mask != 0) & (weight * sign <= 0)
            mask.masked_fill_(crossed, 0)
            retired += int(crossed.sum())
        self._revive(retired, torch.Generator().manual_seed(mix(self.seed, step, DRAW)))

    def _walk(self, sign: Tensor, rate: float, generator: torch.Generator) -> Tensor:
        noise = torch.randn(sign.shape, generator=generator).to(sign)
        return noise.mul_(rate * self.l1 / 3) - rate * self.l1 * sign  # √(2 η T) = η α / 3

    def _revive(self, count: int, generator: torch.Generator) -> None:
        """Switch on `count` random dormant weights, all where fewer are left."""
        allowed = {name: self.masks.allowed(name) for name in self.weights}
        count = min(count, sum(int(each.sum()) for each in allowed.values()) - self.masks.nonzero)
        while count > 0:
            for name, index in self._draw(count, allowed, generator):
                self.masks.weights[name][index] = 1
                sign = 2.0 * torch.randint(2, (), generator=generator).item() - 1
                weight = self.weights[name]
                weight[index] = sign * 1024 * torch.finfo(weight.dtype).tiny
                count -= 1

    def _draw(
        self, count: int, allowed: dict[str, Tensor], generator: torch.Generator
    ) -> list[tuple[str, tuple[int, ...]]]:
        """At most `count` different dormant places, from uniform draws over all weights."""
        names, sizes = list(self.weights), [weight.numel() for weight in self.weights.values()]
        ends = torch.tensor(sizes).cumsum(0)
        found: dict[tuple[str, tuple[int, ...]], None] = {}
        for place in torch.randint(int(ends[-1]), (2 * count + 64,), generator=generator).tolist():
            layer = int(torch.searchsorted(ends, place, right=True))
            name = names[layer]
            flat = place - (int(ends[layer - 1]) if layer else 0)
            index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), self.weights[name].shape))
            if self.masks.weights[name][index] == 0 and allowed[name][index]:
                found[name, index] = None
        return list(found)[:count]
