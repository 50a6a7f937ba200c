"""The k largest scores over many tensors, exactly and deterministically, without a sort.

Non-negative floats order like their bit patterns, negative ones the other way round. Two histograms of 16 bits each,
filled layer by layer, give the k-th largest score exactly (paper Appendix F searches for it approximately); equal
scores go to the earlier layer and the lower index. Extra memory is one layer's scores: they are made three times and
never held. What is no candidate counts as 0, below all candidates, since to pick the candidates out costs more than to
count every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

BITS = 16
LOW = (1 << BITS) - 1

Bits = Callable[[], Tensor]


def score_bits(score: Tensor, candidates: Tensor) -> Tensor:
    """Scores of candidates (bool) as int32 > 0 that order like |score|; one that is not finite counts as a score of 0.

    Others than candidates are 0.
    """
    magnitude = score.detach().float().abs().nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    return magnitude.view(torch.int32).add_(1).mul_(candidates)


def signed_bits(score: Tensor) -> Tensor:
    """Scores as int64 > 0 that order like the scores with their signs; one that is not finite counts as the lowest."""
    lowest = torch.finfo(torch.float32).min
    value = torch.nan_to_num(score.detach().float(), nan=lowest, posinf=lowest, neginf=lowest) + 0.0  # no −0
    pattern = value.view(torch.int32)
    ordered = torch.where(pattern < 0, pattern ^ torch.iinfo(torch.int32).max, pattern)
    return ordered.long() - torch.iinfo(torch.int32).min


def keep_highest(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Which entries are among the `k` highest of all tensors, signs counted: bool, one tensor per name."""
    return dict(keep_largest({name: partial(signed_bits, score) for name, score in scores.items()}, k))


def keep_largest(bits: Mapping[str, Bits], k: int) -> Iterator[tuple[str, Tensor]]:
    """Which entries are among the `k` largest candidates of all tensors: (name, bool), one tensor at a time.

    Each value of `bits` makes the tensor of `score_bits` or `signed_bits` afresh, and must make the same one each
    time, until its name has come. Fewer than `k` candidates are all kept.
    """
    threshold, ties = _threshold(bits, k)
    for name, make in bits.items():
        chosen, ties = _chosen(make(), threshold, ties)
        yield name, chosen


def _chosen(values: Tensor, threshold: int, ties: int) -> tuple[Tensor, int]:
    """Which values are above the threshold or among the first `ties` that equal it, and how many ties are left."""
    chosen = values > threshold
    if ties > 0:
        equal = (values == threshold).nonzero()[:ties]  # by index, whatever the memory format
        chosen[equal.unbind(1)] = True
        ties -= len(equal)
    return chosen, ties


def _threshold(bits: Mapping[str, Bits], k: int) -> tuple[int, int]:
    """The k-th largest value, and how many entries that equal it belong to the k."""
    high = _histogram(bits, lambda values: values >> BITS)
    if max(k, 0) >= int(high.sum()):
        return 0, 0
    top, left = _bin_of(high, max(k, 1))
    if k <= 0:
        return top << BITS | LOW, 0
    low = _histogram(bits, lambda values: values[values >> BITS == top] & LOW)
    bottom, left = _bin_of(low, left)
    threshold = top << BITS | bottom
    return threshold, left if threshold else 0  # 0: there are fewer than k candidates


def _histogram(bits: Mapping[str, Bits], part: Callable[[Tensor], Tensor]) -> Tensor:
    """Counts of 2^16 values over all tensors, on the CPU."""
    total = torch.zeros(1 << BITS, dtype=torch.int64)
    for make in bits.values():
        total += torch.bincount(part(make()).flatten(), minlength=1 << BITS).cpu()
    return total


def _bin_of(histogram: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest entry, and how many of its own entries are needed."""
    above = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, k))
    before = int(above[place - 1]) if place else 0
    return len(histogram) - 1 - place, k - before
