"""The k largest scores over many tensors, exactly and deterministically, without a sort.

Non-negative floats order like their bit patterns, negative ones the other way round. Two histograms of 16 bits each,
filled layer by layer, give the k-th largest score exactly (paper Appendix F searches for it approximately); equal
scores go to the earlier layer and the lower index. Extra memory is one layer's scores and one bool per weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

BITS = 16
LOW = (1 << BITS) - 1
NO_CANDIDATE = -1

Bits = Callable[[], Tensor]


def score_bits(score: Tensor, candidates: Tensor) -> Tensor:
    """Scores as int32 that order like |score|; a score that is not finite counts as 0, others than candidates as −1."""
    magnitude = torch.nan_to_num(score.detach().float().abs(), nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(candidates, magnitude.view(torch.int32), NO_CANDIDATE)


def signed_bits(score: Tensor) -> Tensor:
    """Scores as int64 ≥ 0 that order like the scores with their signs; one that is not finite counts as the lowest."""
    lowest = torch.finfo(torch.float32).min
    value = torch.nan_to_num(score.detach().float(), nan=lowest, posinf=lowest, neginf=lowest) + 0.0  # no −0
    pattern = value.view(torch.int32)
    ordered = torch.where(pattern < 0, pattern ^ torch.iinfo(torch.int32).max, pattern)
    return ordered.long() - torch.iinfo(torch.int32).min


def keep_highest(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Which entries are among the `k` highest of all tensors, signs counted: bool, one tensor per name."""
    return keep_largest({name: partial(signed_bits, score) for name, score in scores.items()}, k)


def keep_largest(bits: Mapping[str, Bits], k: int) -> dict[str, Tensor]:
    """Which entries are among the `k` largest candidates of all tensors: bool, one tensor per name.

    Each value of `bits` makes the tensor of `score_bits` or `signed_bits` afresh, and must make the same one each
    time. Fewer than `k` candidates are all kept.
    """
    threshold, ties = _threshold(bits, k)
    kept = {}
    for name, make in bits.items():
        values = make()
        chosen = values > threshold
        if ties > 0:
            equal = (values == threshold).nonzero()[:ties]  # by index, whatever the memory format
            chosen[equal.unbind(1)] = True
            ties -= len(equal)
        kept[name] = chosen
    return kept


def _threshold(bits: Mapping[str, Bits], k: int) -> tuple[int, int]:
    """The k-th largest value, and how many entries that equal it belong to the k."""
    high = _histogram(bits, lambda values: values[values >= 0] >> BITS)
    if max(k, 0) >= int(high.sum()):
        return NO_CANDIDATE, 0
    top, left = _bin_of(high, max(k, 1))
    if k <= 0:
        return top << BITS | LOW, 0
    low = _histogram(bits, lambda values: values[values >> BITS == top] & LOW)
    bottom, left = _bin_of(low, left)
    return top << BITS | bottom, left


def _histogram(bits: Mapping[str, Bits], part: Callable[[Tensor], Tensor]) -> Tensor:
    """Counts of 2^16 values over all tensors, on the CPU."""
    total = torch.zeros(1 << BITS, dtype=torch.int64)
    for make in bits.values():
        total += torch.bincount(part(make()), minlength=1 << BITS).cpu()
    return total


def _bin_of(histogram: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest entry, and how many of its own entries are needed."""
    above = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, k))
    before = int(above[place - 1]) if place else 0
    return len(histogram) - 1 - place, k - before
