"""Records: the tables of where the numbers come from: machine, commands, files and hashes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.tables import Table, plain
from chase.benchmarks.report import Report


def environment_table(facts: Facts) -> Table | None:
    """The machine and the versions that the measurements were taken with."""
    if facts.report is None:
        return None
    rows = [(name.replace("_", " ").replace(".", " "), text) for name, text in flat(facts.report.environment).items()]
    return plain("Environment", ("fact", "value"), rows)


def command_table(facts: Facts) -> Table:
    """Every command that is on record, and what it made."""
    made: dict[str, list[str]] = {}
    if facts.report and facts.report.command:
        made[_typed(facts.report.command)] = ["bench.json"]
    for name, entry in facts.manifest.items():
        names = made.setdefault(_typed(entry.get("command", ())), [])
        names += [] if name in names else [name]
    rows = [(command, ", ".join(names)) for command, names in made.items() if command]
    return plain("Commands", ("command", "made"), rows)


def _typed(words: Sequence[str]) -> str:
    """A command as it was typed: the program without the folder it lies in."""
    first, *rest = [*words] or [""]
    return shlex.join([first.replace("\\", "/").rsplit("/", 1)[-1], *rest]) if words else ""


def artifact_table(facts: Facts) -> Table:
    """The exported files, and how far their answers are from those of the network they came from."""
    rows = []
    for artifact in facts.artifacts:
        parity: Mapping[str, Any] = artifact.parity
        folder = "dense/" if artifact.path.parent.name == "dense" else ""
        numbers = [parity.get(name) for name in ("max_abs", "max_rel", "snr_db", "agreement", "samples")]
        rows.append((folder + artifact.path.name, artifact.format, artifact.precision, *numbers, artifact.opset))
    headings = ("file", "format", "precision", "max abs", "max rel", "SNR (dB)", "agreement (%)", "samples", "opset")
    return plain("Exported files against their network", headings, rows)


def file_table(facts: Facts) -> Table:
    """The hash of every file on record."""
    rows = [(name, entry.get("sha256") or "") for name, entry in facts.manifest.items()]
    return plain("Files", ("file", "SHA-256"), rows)


def training_table(network: Mapping[str, Any]) -> Table | None:
    """What the training of the network cost, beside a training of the dense one; None where it is not on record."""
    macs = (network.get("facts") or {}).get("training_macs")
    if not macs:
        return None
    rows = [(title, macs[name] / 1e12, f"{macs[name] / macs['dense']:.3f}×") for name, title in COLUMNS.items()]
    note = "Three forward passes for every image of every step; an event that grows by gradients needs all of them."
    return plain("MACs of the training", ("column", "TMACs", "of the dense training"), rows, note)


COLUMNS = {"theoretical": "theoretical", "gpu_supported": "GPU-supported", "dense": "dense"}
"""What the columns of MACs are called."""


def profile_tables(report: Report) -> list[Table]:
    """Per artifact the layers with their time, their MACs and their widths."""
    headings = ("layer", "operator", "time (ms)", "time (%)", "MACs of the batch (M)", "MACs (%)", "width", "aligned")
    return [
        plain(f"Layers of {name}", headings, [_layer(row) for row in rows]) for name, rows in report.profiles.items()
    ]


def _layer(row: Mapping[str, Any]) -> tuple[Any, ...]:
    macs, share = row["macs"], row["share_of_macs"]
    width = None if row["width"] is None else " → ".join(map(str, row["width"]))
    aligned = None if row["aligned"] is None else "yes" if row["aligned"] else "no"
    times = (row["ms"], 100 * row["share_of_time"])
    counts = (None if macs is None else macs / 1e6, None if share is None else 100 * share)
    return (row["layer"], row["op"], *times, *counts, width, aligned)


def warning_table(report: Report) -> Table:
    """Every warning, with the measurement that it belongs to."""
    rows = [(row.artifact, row.runtime, row.batch_size, text) for row in report.rows for text in row.warnings]
    return plain("Warnings", ("artifact", "runtime", "batch", "warning"), rows)


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts with dotted names, ready to be shown."""
    shown: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            shown |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, int) and name.endswith("_bytes"):
            shown[f"{prefix}{name.removesuffix('_bytes')}"] = f"{value / 1e9:.1f} GB"
        elif value is not None:
            shown[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return shown
