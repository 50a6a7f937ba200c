"""Prune and grow: from masks and scores to masks, with exact counts (paper Eqs. 1 and 2).

New masks are bool and come one layer at a time, so that who copies each over the old one at once never holds two sets
of masks. Nothing that is given is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from chase.sparse.distributions import apportion
from chase.sparse.select import keep_largest, score_bits

Tensors = Mapping[str, Tensor]
OfLayer = Callable[[str], Tensor]
NewMasks = Iterator[tuple[str, Tensor]]


def random_masks(counts: Mapping[str, int], like: Tensors, seed: int) -> dict[str, Tensor]:
    """Masks with exactly `counts[name]` ones each at random positions, a function of `seed` alone."""
    masks = {}
    for index, (name, count) in enumerate(counts.items()):
        generator = torch.Generator().manual_seed(mix(seed, 0, index))
        flat = torch.zeros(like[name].numel())
        flat[torch.randperm(flat.numel(), generator=generator)[:count]] = 1
        masks[name] = torch.empty_like(like[name], requires_grad=False).copy_(flat.view(like[name].shape))
    return masks


def mix(*numbers: int) -> int:
    """One seed from several numbers, spread over 63 bits."""
    seed = 0x9E3779B97F4A7C15
    for number in numbers:
        seed = ((seed ^ number) * 0xBF58476D1CE4E5B9) & ((1 << 63) - 1)
        seed ^= seed >> 29
    return seed


def prune(masks: Tensors, score_of: OfLayer, keep: int, *, scope: str = "global") -> NewMasks:
    """(layer, mask) of which the `keep` highest-scored living weights stay (all, where fewer live).

    `scope="layer"` prunes the same share of every layer.
    """
    parts = None
    if scope == "layer":
        counts = count_ones(masks)
        parts = apportion(keep, counts, counts)
    return _largest(masks, score_of, lambda name: masks[name].bool(), keep, parts)


def grow(
    masks: Tensors, score_of: OfLayer, add: int, *, free: OfLayer, shares: Mapping[str, float] | None = None
) -> NewMasks:
    """(layer, mask) with the `add` highest-scored weights that are `free` switched on (all, where fewer are).

    `free` gives the bool mask of a layer's weights that may grow. With `shares` each layer gets its part of the growth,
    as far as it has room; without, all layers compete.
    """
    parts = apportion(add, shares, {name: _ones(free(name)) for name in masks}) if shares is not None else None
    chosen = _largest(masks, score_of, free, add, parts)
    return ((name, grown | masks[name].bool()) for name, grown in chosen)


def count_ones(masks: Tensors) -> dict[str, int]:
    """Entries other than zero, per layer."""
    return {name: _ones(mask) for name, mask in masks.items()}


def _ones(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask.bool()))  # on CPUs several times faster than to count floats


def _largest(
    names: Iterable[str], score_of: OfLayer, candidates: OfLayer, k: int, parts: Mapping[str, int] | None
) -> NewMasks:
    def make(name: str) -> Tensor:
        return score_bits(score_of(name), candidates(name))

    bits = {name: partial(make, name) for name in names}
    if parts is None:
        return keep_largest(bits, k)
    return chain.from_iterable(keep_largest({name: bits[name]}, parts[name]) for name in bits)
