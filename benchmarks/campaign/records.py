"""Records: the JSON files of a campaign, one for each item, and what must stand in them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.benchmarks.schema import (
    CLOCK,
    MACS,
    ROW,
    Check,
    anything,
    finite,
    many,
    mismatches,
    number,
    one_of,
    optional,
    percent,
    positive,
    record,
    table,
    text,
    truth,
    whole,
)
from chase.files import write_json

UNFINISHED = "it was begun and not finished: the process died or was stopped"

RATIO: dict[str, Check] = {"median": positive, "ci95": many(positive, least=2)}
OVERHEAD: dict[str, Check] = {
    "model": text,
    "batch_size": positive,
    "work": table(anything),
    **dict.fromkeys(("dense_step_ms", "masking_ms", "masking_share"), positive),
    "mask_forms_ms": table(positive),
    "event_ms": number,
    "peak_memory_bytes": table(optional(whole)),
    **dict.fromkeys(("sparse_over_dense", "dense_over_dense"), record(RATIO)),
    "samples_ms": table(many(positive, least=1)),
}
TRAINING: dict[str, Check] = {
    "variant": one_of("dense", "masked", "compacted", "compacted-to8"),
    "channel_sparsity": number,
    "prune_skip": truth,
    "work": table(anything),
    "macs": MACS,
    "mac_ratio": positive,
    "samples_ms": many(positive, least=1),
    "speedup_vs_dense": optional(record(RATIO | {"verdict": one_of("faster", "slower", "no difference")})),
    "compaction_ms": optional(positive),
    "peak_memory_bytes": optional(whole),
}
ACCURACY: dict[str, Check] = {
    "method": text,
    "recipe": table(anything),
    **dict.fromkeys(("sparsity", "channel_sparsity"), number),
    "test_accuracy": percent,
    "macs": MACS,
    "training_macs": MACS,
    "params": table(whole),
    "epochs": positive,
    "images_per_second": positive,
}
ROWS: dict[str, dict[str, Check]] = {
    "shapes": ROW,
    "overhead": OVERHEAD,
    "training": TRAINING,
    "accuracy": ACCURACY,
}
"""The rows of each kind of item."""

OUTCOMES = ("done", "partial", "left out", "failed", "waiting")
RECORD: dict[str, Check] = {
    "item": text,
    "kind": one_of(*ROWS),
    "settings": table(anything),
    "command": many(text, least=1),
    "environment": table(anything),
    "seconds": number,
    "complete": truth,
    "error": optional(text),
    "left_out": many(text),
    "clocks": many(record(CLOCK)),
    "rows": many(anything),
}
SUMMARY: dict[str, Check] = {
    "command": many(text, least=1),
    "environment": table(anything),
    "seconds": number,
    "items": many(
        record({"item": text, "kind": one_of(*ROWS), "outcome": one_of(*OUTCOMES), "rows": whole, "seconds": number})
    ),
    "left_out": many(text),
}


@dataclass(kw_only=True)
class Record:
    """What is known of one item so far. `error` is None where nothing went wrong; `left_out` gives reasons in words."""

    item: str
    kind: str
    settings: Mapping[str, Any]
    command: tuple[str, ...]
    environment: Mapping[str, Any]
    seconds: float = 0.0
    complete: bool = False
    error: str | None = UNFINISHED
    left_out: list[str] = field(default_factory=list)
    clocks: list[Mapping[str, Any]] = field(default_factory=list)
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """One of OUTCOMES; an item that had to leave out everything is not done."""
        if self.error:
            return "failed"
        if not self.complete:
            return "partial"
        return "done" if self.rows or not self.left_out else "left out"

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        write_json(path_of(folder, self.item), plain(dataclasses.asdict(self)))


def load(folder: Path, item: str, settings: Mapping[str, Any]) -> Record | None:
    """The record of an item that was measured with these settings; None where there is no sound one."""
    path = path_of(folder, item)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if problems(content) or content["settings"] != plain(settings):
        return None
    return Record(**content)


def path_of(folder: Path, item: str) -> Path:
    """The file of an item."""
    return folder / f"{item}.json"


def plain(value: Any) -> Any:
    """The value as JSON gives it back: lists for tuples, None for what is not finite."""
    return json.loads(json.dumps(finite(value)))


def problems(content: Any) -> list[str]:
    """What is wrong with the content of an item's file, in words; nothing for a good one."""
    found = list(mismatches("", content, RECORD))
    if found:
        return found
    for position, row in enumerate(content["rows"]):
        found += mismatches(f"rows[{position}].", row, ROWS[content["kind"]])
    return found
