"""Prune and grow: pure functions from masks and scores to masks, with exact counts (paper Eqs. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from chase.sparse.distributions import apportion
from chase.sparse.select import keep_largest, score_bits

Tensors = Mapping[str, Tensor]
ScoreOf = Callable[[str], Tensor]


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


def prune(masks: Tensors, score_of: ScoreOf, keep: int, *, scope: str = "global") -> dict[str, Tensor]:
    """Masks of which the `keep` highest-scored living weights stay (all, where fewer live).

    `scope="layer"` prunes the same share of every layer.
    """
    living = {name: mask != 0 for name, mask in masks.items()}
    counts = count_ones(living)
    parts = apportion(keep, counts, counts) if scope == "layer" else None
    chosen = _largest(score_of, living, keep, parts)
    return {name: chosen[name].to(mask.dtype) for name, mask in masks.items()}


def grow(
    masks: Tensors, score_of: ScoreOf, add: int, *, free: Tensors, shares: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Masks with the `add` highest-scored weights that are `free` switched on (all, where fewer are).

    `free` are bool masks of the weights that may grow. With `shares` each layer gets its part of the growth, as far as
    it has room; without, all layers compete.
    """
    parts = apportion(add, shares, count_ones(free)) if shares is not None else None
    chosen = _largest(score_of, free, add, parts)
    return {name: mask + chosen[name].to(mask.dtype) for name, mask in masks.items()}


def count_ones(masks: Tensors) -> dict[str, int]:
    """Entries other than zero, per layer."""
    return {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}


def _largest(score_of: ScoreOf, candidates: Tensors, k: int, parts: Mapping[str, int] | None) -> dict[str, Tensor]:
    bits = {name: _lazy(score_of, name, candidates[name]) for name in candidates}
    if parts is None:
        return keep_largest(bits, k)
    return {name: keep_largest({name: make}, parts[name])[name] for name, make in bits.items()}


def _lazy(score_of: ScoreOf, name: str, candidates: Tensor) -> Callable[[], Tensor]:
    return lambda: score_bits(score_of(name), candidates)
