"""The runner: one item after the other, each on record, until all are done or the time is up."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chase.benchmarks.campaign.records import Record, load, plain
from chase.benchmarks.clocks import Trace, gpu_of
from chase.benchmarks.environment import environment, environment_after
from chase.errors import explained, reason
from chase.files import write_json

Rows = list[Mapping[str, Any]]


class OutOfTime(Exception):  # noqa: N818 - it is no error
    """The next piece would not end in time."""


class Broken(Exception):
    """The GPU's context does not recover within this process."""


class Deadline:
    """The end of a campaign: `seconds` from now, by default never."""

    def __init__(self, seconds: float = math.inf, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._start = now, now()
        self._end = self._start + seconds
        self._longest: dict[str, float] = {}
        self.begin("")

    @property
    def passed(self) -> float:
        """Seconds since the campaign began."""
        return self._now() - self._start

    def begin(self, kind: str) -> None:
        """Say that an item of some kind is next."""
        self._kind, self._piece = kind, self._now()

    def check(self) -> None:
        """Say that the next piece of the item is to begin, and the one before it, if any, is finished.

        Raises:
            OutOfTime: if it would not end in time, should it take as long as the longest of its kind so far.
        """
        now = self._now()
        longest = max(self._longest.get(self._kind, 0.0), now - self._piece)
        self._longest[self._kind], self._piece = longest, now
        if now + longest >= self._end:
            raise OutOfTime


@dataclass
class Job:
    """What an item is told while it is measured: the folder of the campaign, `check` to be called before each of its
    pieces, which ends it when the time is up, and where to name what it leaves out."""

    folder: Path
    check: Callable[[], None]
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Item:
    """One thing to measure.

    `settings` decide the result, so that a record with the same ones need not be made again; `run` checks the time
    before each piece and yields the rows of it, which are of one of the kinds of `records.ROWS`.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    run: Callable[[Job], Iterator[Rows]]


@dataclass(frozen=True)
class Campaign:
    """Items in the order of their value, and where their records go."""

    items: Sequence[Item]
    folder: Path
    device: torch.device
    command: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def run(self, deadline: Deadline, *, retry: bool = True) -> None:
        """Measure what is not done yet; with `retry` also, and last, what failed or was left out before.

        Raises:
            Broken: if the GPU has to be left by this process; the item is on record as failed.
            OutputError: if a record cannot be written.
        """
        before = environment(self.device)
        for item in self.pending(retry=retry):
            try:
                deadline.begin(item.kind)
                deadline.check()
            except OutOfTime:
                break
            self._summarise(before, deadline)
            self._measure(item, deadline)
        self._summarise(before, deadline)

    def pending(self, *, retry: bool) -> list[Item]:
        """The items that are not done, in order; with `retry` those that could not be measured before come last."""
        outcomes = [(item, self._outcome(item)) for item in self.items]
        fresh = [item for item, outcome in outcomes if outcome in ("waiting", "partial")]
        return fresh + [item for item, outcome in outcomes if outcome in ("failed", "left out") and retry]

    def _outcome(self, item: Item) -> str:
        found = load(self.folder, item.name, item.settings)
        return found.outcome if found else "waiting"

    def _measure(self, item: Item, deadline: Deadline) -> None:
        """Measure one item; whatever goes wrong is on record and ends only this item."""
        before, start = environment(self.device), deadline.passed
        job = Job(self.folder, deadline.check)
        record = Record(
            item=item.name, kind=item.kind, settings=item.settings, command=self.command, environment=before
        )
        record.save(self.folder)
        with Trace(gpu_of(self.device)[0]) as trace:
            try:
                for rows in item.run(job):
                    record.rows += rows
                    record.left_out, record.seconds = job.left_out, deadline.passed - start
                    record.save(self.folder)
                record.complete, record.error = True, None
            except OutOfTime:
                record.error = None
            except Exception as error:  # libraries fail in ways of their own, and that is the finding
                record.error = explained(error)
        record.left_out, record.seconds = job.left_out, deadline.passed - start
        record.clocks, record.environment = list(trace.samples), environment_after(before)
        record.save(self.folder)
        sys.stderr.write(f"{item.name}: {record.outcome}, {len(record.rows)} rows, {record.seconds:.0f} s\n")
        _clean(self.device)

    def _summarise(self, before: Mapping[str, Any], deadline: Deadline) -> None:
        """Write campaign.json: how far each item is, and all that was left out."""
        records = {item.name: load(self.folder, item.name, item.settings) for item in self.items}
        left_out = list(self.left_out)
        for name, record in records.items():
            if record:
                left_out += [f"{name}: {text}" for text in (*record.left_out, *filter(None, [record.error]))]
        items = [
            {
                "item": item.name,
                "kind": item.kind,
                "outcome": found.outcome if (found := records[item.name]) else "waiting",
                "rows": len(found.rows) if found else 0,
                "seconds": found.seconds if found else 0.0,
            }
            for item in self.items
        ]
        content = {
            "command": self.command,
            "environment": environment_after(dict(before)),
            "seconds": deadline.passed,
            "items": items,
            "left_out": left_out,
        }
        write_json(self.folder / "campaign.json", plain(content))


def _clean(device: torch.device) -> None:
    """Give back what an item held.

    Raises:
        Broken: if the GPU no longer answers.
    """
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise Broken(reason(error)) from error
