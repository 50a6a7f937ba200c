"""Facts: all that a run's folder holds, what it lacks, and the command that makes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.artifact import Artifact
from chase.benchmarks.report import Report
from chase.errors import CheckpointError
from chase.files import sha256
from chase.run import Run

Epochs = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one run; `folder` is where it lies.

    `network` is what slim.pt (else checkpoint.pt) says besides its tensors; `epochs` and `dense_epochs` are the lines
    of metrics.jsonl, of the run and of its dense twin; `missing` holds (what, the command that makes it), and `changed`
    the files that are no longer the ones that the manifest or bench.json speaks of.
    """

    name: str
    folder: Path
    report: Report | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    epochs: Epochs = ()
    dense_epochs: Epochs = ()
    artifacts: tuple[Artifact, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[tuple[str, str], ...] = ()
    changed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All but the report, ready for JSON."""
        return {
            "name": self.name,
            "network": dict(self.network),
            "epochs": [dict(epoch) for epoch in self.epochs],
            "dense_epochs": [dict(epoch) for epoch in self.dense_epochs],
            "artifacts": {artifact.path.name: artifact.parity for artifact in self.artifacts},
            "manifest": dict(self.manifest),
            "missing": [{"what": what, "command": command} for what, command in self.missing],
            "changed": list(self.changed),
        }


def gather(path: Path) -> Facts:
    """The facts of a run's folder, or of a bench.json alone.

    Raises:
        CheckpointError: if there is nothing to report, or a file is damaged.
    """
    if path.is_file():
        name = path.resolve().parent.name if path.stem == "bench" else path.stem
        return Facts(name=name, folder=path.parent, report=Report.load(path))
    if not path.is_dir():
        raise CheckpointError(f"no such run: {path}; start one with `chase train`")
    run = Run(path)
    report = Report.load(run.bench) if run.bench.is_file() else None
    facts = Facts(
        name=path.resolve().name,
        folder=path,
        report=report,
        network=_network(run),
        epochs=read_epochs(run.metrics),
        dense_epochs=read_epochs(run.dense.metrics),
        artifacts=tuple(Artifact.load(file) for file in [*run.artifacts(), *run.dense.artifacts()]),
        manifest=run.entries(),
        missing=_missing(run, report),
        changed=_changed(run),
    )
    if not (facts.report or facts.network or facts.epochs or facts.artifacts):
        raise CheckpointError(f"{path} holds nothing to report; begin with `chase train`")
    return facts


def _network(run: Run) -> dict[str, Any]:
    """The kind, model, input, facts and certificate of the slim network, or of the masked one."""
    from chase.checkpoint import read

    path = run.slim if run.slim.is_file() else run.checkpoint
    if not path.is_file():
        return {}
    content = read(path)
    given = {name: list(value) for name, value in content["input"].items()}
    kept = {name: content.get(name) for name in ("kind", "facts", "certificate", "parent_sha256")}
    return {"file": path.name, "model": content["model"]["name"], "input": given, **kept} | {
        "about": (content.get("recipe") or {}).get("about") or ""
    }


def read_epochs(path: Path) -> Epochs:
    """The lines of a metrics.jsonl; none where there is no such file.

    Raises:
        CheckpointError: if a line is damaged.
    """
    if not path.is_file():
        return ()
    epochs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            epochs.append({"epoch": json.loads(line)["epoch"], **json.loads(line)})
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} line {number} is no epoch ({error!r}); remove the line, or train again"
            ) from error
    return tuple(epochs)


def _missing(run: Run, report: Report | None) -> tuple[tuple[str, str], ...]:
    """What the page cannot show, and the command for each."""
    there = f" --run {shlex.quote(str(run.folder))}"
    found = []
    if not run.metrics.is_file():
        found.append(("how training went", f"chase train{there}"))
    if not run.slim.is_file():
        found.append(("the slim network and its widths", f"chase slim{there}"))
    if not run.artifacts():
        found.append(("exported files", f"chase export --format onnx{there}"))
    if report is None:
        found.append(("measurements of latency, throughput and accuracy", f"chase bench{there}"))
    else:
        found += _unmeasured(report, there)
    return tuple(found)


def _unmeasured(report: Report, there: str) -> list[tuple[str, str]]:
    found = []
    if all(row.accuracy is None for row in report.rows):
        reasons = "; ".join(dict.fromkeys(row.accuracy_reason or "unknown" for row in report.rows))
        found.append((f"accuracy through each runtime ({reasons})", f"chase bench --data FOLDER{there}"))
    if all(row.speedup_vs_dense is None for row in report.rows):
        found.append(("a dense network to compare with", f"chase bench --against dense{there}"))
    return found


def _changed(run: Run) -> tuple[str, ...]:
    """Files that are not those that the manifest names, or that bench.json measured."""
    entries = run.entries()
    recorded = {name: entry.get("sha256") for name, entry in entries.items()}
    measured: Mapping[str, str] = entries.get(run.bench.name, {}).get("parents", {})
    now = {name: sha256(run.folder / name) for name in {*recorded, *measured} if (run.folder / name).exists()}
    return tuple(name for name in now if any(_differs(name, known, now) for known in (recorded, measured)))


def _differs(name: str, expected: Mapping[str, str | None], now: Mapping[str, str]) -> bool:
    return expected.get(name) not in (None, now[name])
