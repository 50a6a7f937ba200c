"""Contests: who wins between the slim network and others that were measured beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chase.benchmarks.page.notes import Note, batches, listed
from chase.benchmarks.page.roles import Role, Roles, batch_sizes, key
from chase.benchmarks.report import Report, Row


def contests(report: Report) -> Iterable[Note]:
    """Who wins between the slim network and others on the same runtime: the reason to use these instead, or not."""
    role = Roles.of(report)
    others = [row for row in report.rows if role(row) is Role.OTHER]
    slim = [row for row in report.rows if role(row) is Role.SLIM]
    pairs = [(o, s) for o in others for s in slim if (o.runtime, o.batch_size) == (s.runtime, s.batch_size)]
    won = [(o, s) for o, s in pairs if _beats(o, s)], [(s, o) for o, s in pairs if _beats(s, o)]
    unknown = [(o, s) for o, s in pairs if o.accuracy is None and _faster(o, s)]
    yield from _winners(report, won[0], "{} is faster and no less accurate than {} at {}.", "bad")
    yield from _winners(report, unknown, "{} is faster than {} at {}, with an accuracy that is not known.", "plain")
    yield from _winners(report, won[1], "{} is faster and no less accurate than {} at {}.", "good")


def _winners(report: Report, won: Sequence[tuple[Row, Row]], text: str, kind: str) -> Iterable[Note]:
    """A note for each winner and those it beats, with all the batch sizes at which it beats them."""
    names: dict[tuple[str, str], list[Row]] = {}
    for winner in dict.fromkeys(key(row) for row, _ in won):
        mine = [(row, loser) for row, loser in won if key(row) == winner]
        for size in batch_sizes(row for row, _ in mine):
            there = [(row, loser) for row, loser in mine if row.batch_size == size]
            losers = listed(report, [loser for _, loser in there])
            names.setdefault((listed(report, [there[0][0]]), losers), []).append(there[0][0])
    for (name, losers), rows in names.items():
        yield Note(text.format(name, losers, batches(rows)), kind)


def _beats(one: Row, other: Row) -> bool:
    if one.accuracy is None or other.accuracy is None or one.accuracy < other.accuracy:
        return False
    return _faster(one, other)


def _faster(one: Row, other: Row) -> bool:
    return bool(one.latency_ms["p50"] < other.latency_ms["p50"])
