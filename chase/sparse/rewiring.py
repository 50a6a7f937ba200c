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
    def retire(self, step: int) -> int:
        """Walk, and mask the weights that crossed zero; how many did."""
        rates = {id(each): group["lr"] for group in self.optimizer.param_groups for each in group["params"]}
        retired = 0
        for index, (name, weight) in enumerate(self.weights.items()):
            generator = torch.Generator().manual_seed(mix(self.seed, step, WALK, index))
            mask, sign = self.masks.weights[name], self._signs[name]
            weight.add_(self._walk(sign, float(rates[id(weight)]), generator) * mask)
            crossed = (mask != 0) & (weight * sign <= 0)
            mask.masked_fill_(crossed, 0)
            retired += int(crossed.sum())
        return retired

    @torch.no_grad()
    def revive(self, count: int, step: int) -> None:
        """Switch on `count` random dormant weights, all where fewer are left."""
        masks, generator = self.masks.weights, torch.Generator().manual_seed(mix(self.seed, step, DRAW))
        dormant = {name: self.masks.free(name) for name in self.weights}
        ends = torch.tensor([int(each.count_nonzero()) for each in dormant.values()]).cumsum(0)
        drawn = _distinct(count, int(ends[-1]), generator).sort().values
        signs = 2.0 * torch.randint(2, (len(drawn),), generator=generator) - 1
        layers, starts = torch.searchsorted(ends, drawn, right=True), [0, *ends.tolist()]
        for layer, (name, weight) in enumerate(self.weights.items()):
            mine = layers == layer
            if mine.any():
                places = dormant[name].nonzero()[(drawn[mine] - starts[layer]).to(weight.device)].unbind(1)
                masks[name][places] = 1
                weight[places] = signs[mine].to(weight) * 1024 * torch.finfo(weight.dtype).tiny

    def _walk(self, sign: Tensor, rate: float, generator: torch.Generator) -> Tensor:
        noise = torch.randn(sign.shape, generator=generator).to(sign)
        return noise.mul_(rate * self.l1 / 3) - rate * self.l1 * sign  # √(2 η T) = η α / 3


def _distinct(count: int, total: int, generator: torch.Generator) -> Tensor:
    """`count` different random numbers below `total`, all of them where there are fewer: int64."""
    if 2 * count >= total:
        return torch.randperm(total, generator=generator)[:count]
    found: dict[int, None] = {}
    while len(found) < count:
        found.update(dict.fromkeys(torch.randint(total, (2 * count + 64,), generator=generator).tolist()))
    return torch.tensor([*found][:count], dtype=torch.int64)
