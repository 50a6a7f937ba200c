"""The verdict in words: what was gained, whether it can be trusted, and where it is not worth it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chase.benchmarks.gate import MAX_DROP
from chase.benchmarks.layers import ALIGNMENT
from chase.benchmarks.page.contests import contests
from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.notes import Note, batches, listed
from chase.benchmarks.page.roles import Role, Roles, baseline_of, batch_sizes
from chase.benchmarks.page.widths import widths_of
from chase.benchmarks.report import Report, Row

WASTED = 0.85  # below this efficiency the page asks where the time went


@dataclass(frozen=True)
class Figure:
    """A number large enough to be read across a room, what it is, and what stands behind it."""

    value: str
    what: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The summary of a page. `tone` is "gain", "mixed", "none" or "unknown"."""

    headline: str
    tone: str = "unknown"
    where: str = ""
    figures: tuple[Figure, ...] = ()
    trust: tuple[Note, ...] = ()
    against: tuple[Note, ...] = ()


def judge(facts: Facts) -> Verdict:
    """What the facts of a run add up to."""
    if facts.report is None:
        return Verdict("Nothing has been measured yet.", trust=tuple(_proofs(facts)))
    report = facts.report
    trust = (*_trust(report), *_proofs(facts))
    if not (chosen := deployed(report)):
        headline = "Nothing is said about gains: no dense network was measured beside these."
        return Verdict(headline, trust=trust)
    won = tuple(contests(report))
    lost = (*_against(report), *_off_grid(facts), *(note for note in won if note.kind == "bad"))
    against = lost or (Note("Nothing that was measured here speaks against it."),)
    against += tuple(note for note in won if note.kind != "bad")
    if not any(Roles.of(report)(row) is Role.OTHER for row in report.rows):
        against += (Note("No other small network was measured beside it; see `chase bench --compare`."),)
    headline, tone = _headline(report, chosen)
    figures = tuple(_figures(report, chosen))
    return Verdict(headline, tone=tone, where=_where(report, chosen[0]), figures=figures, trust=trust, against=against)


def deployed(report: Report) -> list[Row]:
    """The rows of the slim artifact that answers soonest at the smallest batch size it was measured at."""
    role = Roles.of(report)
    slim = [row for row in report.rows if role(row) is Role.SLIM and row.speedup_vs_dense]
    if not slim:
        return []
    smallest = batch_sizes(slim)[0]
    best = min((row for row in slim if row.batch_size == smallest), key=lambda row: row.latency_ms["p50"])
    same = (best.artifact, best.runtime, best.precision)
    return sorted((r for r in slim if (r.artifact, r.runtime, r.precision) == same), key=lambda row: row.batch_size)


def _headline(report: Report, rows: Sequence[Row]) -> tuple[str, str]:
    """The first sentence, and its tone."""
    gains = [(row, row.speedup_vs_dense) for row in rows]
    said, words = [], {}
    for word in SAID:
        words[word] = [(row, gain["median"]) for row, gain in gains if gain and gain["verdict"] == word]
        if words[word]:
            said.append(
                SAID[word].format(_span([ratio for _, ratio in words[word]]), batches(r for r, _ in words[word]))
            )
    tone = "none" if not words["faster"] else "gain" if len(said) == 1 else "mixed"
    return f"The slim network {', '.join(said)}{_accuracy_words(report, rows[0])}.", tone


SAID = {
    "faster": "is {0} as fast as the dense one at {1}",
    "no difference": "is no faster at {1}",
    "slower": "is slower ({0}) at {1}",
}


def _span(ratios: Sequence[float]) -> str:
    """As in: 1.41–1.45×."""
    low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return f"{low}×" if low == high else f"{low}–{high}×"


def _where(report: Report, row: Row) -> str:
    """What the first sentence was measured on."""
    gpu, threads = report.environment.get("gpu"), row.settings.get("threads", report.environment.get("threads"))
    machine = gpu["name"] if gpu and row.device != "cpu" else f"{report.environment.get('cpu')}, CPU threads: {threads}"
    slim = {r.artifact for r in report.rows if r.speedup_vs_dense and Roles.of(report)(r) is Role.SLIM}
    which = f", which answers soonest of {len(slim)} slim artifacts" if len(slim) > 1 else ""
    return f"{row.artifact}{which}. {row.runtime} ({row.provider}) in {row.precision}, {machine}."


def _accuracy_words(report: Report, row: Row) -> str:
    points = drop(row, report)
    if points is None:
        return "; what that costs in accuracy is not known"
    if abs(points) < 0.005:
        return ", at the same accuracy"
    return f", and {abs(points):.2f} points {'less' if points > 0 else 'more'} accurate"


def drop(row: Row, report: Report) -> float | None:
    """How many points of top-1 accuracy a row lost against its baseline; None where one of them has none."""
    base = baseline_of(row, report)
    if base is None or row.accuracy is None or base.accuracy is None:
        return None
    return base.accuracy - row.accuracy


def _figures(report: Report, rows: Sequence[Row]) -> Iterable[Figure]:
    row, base = rows[0], baseline_of(rows[0], report)
    gains = [gain for gain in (each.speedup_vs_dense for each in rows) if gain]
    low, high = min(gain["ci95"][0] for gain in gains), max(gain["ci95"][1] for gain in gains)
    detail = f"95 %: {low:.2f}–{high:.2f} at {batches(rows)}"
    yield Figure(_span([gain["median"] for gain in gains]), "the speed of dense", detail)
    if row.accuracy is not None:
        points = drop(row, report)
        beside = "dense was not measured" if points is None else f"{-points:+.2f} points to dense".replace("-", "−")
        yield Figure(f"{row.accuracy:.2f} %", "top-1 accuracy", beside)
    if row.macs and row.macs["dense"]:
        share = row.macs["gpu_supported"] / row.macs["dense"]
        yield Figure(
            f"{share:.0%}".replace("%", " %"),
            "of the MACs remain",
            f"{row.macs['gpu_supported'] / 1e6:,.1f} M per image",
        )
    if base is not None and base.size_bytes:
        share = row.size_bytes / base.size_bytes
        yield Figure(f"{row.size_bytes / 1e6:.2f} MB", "file size", f"{share:.0%}".replace("%", " %") + " of dense")


def _trust(report: Report) -> Iterable[Note]:
    fewest = min(len(row.samples_ms) for row in report.rows)
    yield Note(f"Every latency is the median of {fewest} or more timings; bench.json holds all of them.", "good")
    if any(row.speedup_vs_dense for row in report.rows):
        yield Note("Dense and slim took turns, so a busy moment hit both; speed-ups are paired ratios.", "good")
    yield from _answers(report)
    yield from _warnings(report)


def _warnings(report: Report) -> Iterable[Note]:
    """The warnings of all rows, those once that differ by numbers alone."""
    alike: dict[str, list[str]] = {}
    for row in report.rows:
        for text in row.warnings:
            alike.setdefault(NUMBER.sub("", text), []).append(text)
    for texts in alike.values():
        where = f" ({len(texts)} of {len(report.rows)} measurements)" if len(texts) > 1 else ""
        yield Note(f"{texts[0][:1].upper()}{texts[0][1:]}{where}.", "bad")


NUMBER = re.compile(r"\d[\d.,]*")


def _answers(report: Report) -> Iterable[Note]:
    """Whether what was timed also answers rightly."""
    unknown = [row for row in report.rows if row.accuracy is None]
    for reason in dict.fromkeys(row.accuracy_reason for row in unknown):
        rows = [row for row in unknown if row.accuracy_reason == reason]
        yield Note(f"The accuracy of {listed(report, rows)} is not known: {reason or 'it was not measured'}.", "bad")
    if len(unknown) < len(report.rows):
        yield Note("Accuracy was measured through the same file and runtime that was timed.", "good")
    if smaller := [row for row in report.rows if row.settings.get("resized_from") and row.accuracy is not None]:
        size = " x ".join(str(pixels) for pixels in smaller[0].settings["resized_from"])
        yield Note(f"The accuracy of {listed(report, smaller)} is on test images resized from {size}.")
    flipped = [row for row in report.rows if row.flipped]
    if flipped:
        most = max(row.flipped or 0 for row in flipped)
        least = min(row.agreement or 0 for row in flipped)
        words = f"Up to {most} images get another answer than from the fp32 network (agreement {least:.2f} % or more)"
        yield Note(f"{words}: {listed(report, flipped)}.")


def _proofs(facts: Facts) -> Iterable[Note]:
    if certificate := facts.network.get("certificate"):
        error, bound = certificate["max_rel"], certificate["tolerance"]
        words = f"differs from the masked one by {error:.1e} at most, in {certificate['dtype']} (allowed: {bound:.0e})"
        yield Note(f"The slim network {words}.", "good" if error <= bound else "bad")
    if facts.changed:
        yield Note(f"Changed since it was made or measured: {', '.join(facts.changed)}.", "bad")


def _against(report: Report) -> Iterable[Note]:
    role = Roles.of(report)
    slim = [row for row in report.rows if role(row) is Role.SLIM]
    for word, text in (("slower", "Slower than dense"), ("no difference", "No faster than dense")):
        yield from _at_sizes(
            report, [r for r in slim if r.speedup_vs_dense and r.speedup_vs_dense["verdict"] == word], text
        )
    yield from _at_sizes(
        report, [row for row in slim if _worse_tail(row, report)], "The slowest calls (p99) are no faster"
    )
    lost: dict[str, list[Row]] = {}
    for row in slim:
        if (points := drop(row, report)) is not None and points > MAX_DROP:
            lost.setdefault(f"{points:.2f}", []).append(row)
    for words in sorted(lost, key=float, reverse=True):
        yield Note(f"{words} points of top-1 accuracy are lost: {listed(report, lost[words])}.", "bad")
    wasteful = [row for row in slim if row.efficiency is not None and row.efficiency < WASTED]
    if wasteful:
        worst = min(wasteful, key=lambda row: row.efficiency or 1)
        yield from _at_sizes(
            report,
            wasteful,
            f"Less than {WASTED} of the speed-up that the MACs promise ({worst.efficiency:.2f} at worst)",
        )


def _off_grid(facts: Facts) -> Iterable[Note]:
    widths = widths_of(facts.network)
    if off := sum(not width.aligned for width in widths):
        words = "several runtimes leave their fast kernels there; see `chase slim --round-to`"
        yield Note(f"{off} of {len(widths)} widths are no multiple of {ALIGNMENT}: {words}.", "bad")


def _at_sizes(report: Report, rows: Sequence[Row], text: str) -> Iterable[Note]:
    """A note for each batch size, or one for all of them where it is the same artifacts."""
    named: dict[str, list[Row]] = {}
    for size in batch_sizes(rows):
        mine = [row for row in rows if row.batch_size == size]
        named.setdefault(listed(report, mine), []).append(mine[0])
    for names, examples in named.items():
        yield Note(f"{text} at {batches(examples)}: {names}.", "bad")


def _worse_tail(row: Row, report: Report) -> bool:
    base, gain = baseline_of(row, report), row.speedup_vs_dense
    ours, theirs = row.latency_ms["p99"], base and base.latency_ms["p99"]
    faster = gain is not None and gain["verdict"] == "faster"
    return faster and ours is not None and theirs is not None and ours >= theirs
