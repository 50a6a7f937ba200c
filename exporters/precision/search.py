"""A small set of layers that must be kept, found with few trials."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from chase.errors import ParityError

Passes = Callable[[Collection[str]], bool]


TRIALS = 256
"""After so many a search gives what it has. A fault takes about ten; noise from everywhere would take all day."""


def smallest(names: Sequence[str], passes: Passes, *, trials: int = TRIALS) -> tuple[str, ...]:
    """A set of names, in their order, that passes and of which none can be left out.

    The shortest prefix of `names` that passes ends with a name that is needed; that name is put aside for good, and the
    search goes on among the names before it. In the end every name is tried without. With n names and k of them in
    the result that takes about k (log2(n) + 1) trials.

    If keeping more never hurts (`passes` is monotone) every name that is put aside is needed to the end, and where one
    set alone is needed, it is found. If not, the result still passes and none of its names can be left out, but
    another, smaller set may exist. After `trials` trials the smallest set that has passed until then is the result.

    Raises:
        ParityError: if not even all names together pass.
    """
    known: dict[frozenset[str], bool] = {}

    def good(kept: Collection[str]) -> bool:
        key = frozenset(kept)
        if key not in known:
            known[key] = len(known) < trials and passes(tuple(name for name in names if name in key))
        return known[key]

    if not good(()) and not good(names):
        raise ParityError(f"not even all {len(names)} layers kept in fp32 meet the gate")
    found: list[str] = []
    rest = list(names)
    while not good(found):
        rest = rest[: _shortest(rest, lambda prefix: good([*found, *prefix]))]
        found.append(rest.pop())
    while (spare := next((name for name in found if good(set(found) - {name})), None)) is not None:
        found.remove(spare)
    return tuple(name for name in names if name in found)


def _shortest(names: Sequence[str], good: Passes) -> int:
    """The length of a prefix that is good while the one before it is not; the empty one is not, the whole one is."""
    bad, enough = 0, len(names)
    while enough - bad > 1:
        middle = (bad + enough) // 2
        if good(names[:middle]):
            enough = middle
        else:
            bad = middle
    return enough
