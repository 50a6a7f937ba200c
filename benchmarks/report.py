"""Report: raw timings and the environment they were taken in; statistics are derived when asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.benchmarks.statistics import summary
from chase.errors import CheckpointError
from chase.files import write_json


@dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact, on one runtime, at one batch size.

    `provider` is what really computed. `samples_ms` are raw, per call. `throughput` is in images per second,
    `macs` per image, `accuracy` and `agreement` in percent; an accuracy of None has its reason. `agreement`
    is with the network that the artifact came from, as measured at export. `speedup_vs_dense` (median, ci95,
    verdict) is None for the baseline itself and where there is no baseline.
    """

    artifact: str
    runtime: str
    provider: str
    precision: str
    device: str
    batch_size: int
    samples_ms: tuple[float, ...]
    throughput: float
    macs: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int
    accuracy: float | None = None
    accuracy_reason: str | None = None
    agreement: float | None = None
    speedup_vs_dense: Mapping[str, Any] | None = None

    @property
    def latency_ms(self) -> dict[str, Any]:
        """p50, p90, p99, mean, cv and the samples they come from."""
        return {**summary(self.samples_ms), "samples": list(self.samples_ms)}

    def to_dict(self) -> dict[str, Any]:
        """The row of bench.json."""
        return {
            "artifact": self.artifact,
            "runtime": self.runtime,
            "provider": self.provider,
            "precision": self.precision,
            "device": self.device,
            "batch_size": self.batch_size,
            "latency_ms": self.latency_ms,
            "throughput": self.throughput,
            "macs": dict(self.macs),
            "params": dict(self.params),
            "size_bytes": self.size_bytes,
            "accuracy": self.accuracy,
            "accuracy_reason": self.accuracy_reason,
            "agreement": self.agreement,
            "speedup_vs_dense": self.speedup_vs_dense and dict(self.speedup_vs_dense),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Row:
        """The row that `to_dict` gave; all but the samples of `latency_ms` is derived again."""
        rest = {name: value for name, value in facts.items() if name != "latency_ms"}
        return cls(samples_ms=tuple(facts["latency_ms"]["samples"]), **rest)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark found, and where."""

    environment: Mapping[str, Any]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """The content of bench.json; a number that is not finite is null."""
        content = {"environment": dict(self.environment), "rows": [row.to_dict() for row in self.rows]}
        finite: dict[str, Any] = _finite(content)
        return finite

    def save(self, path: Path | str) -> None:
        """Write bench.json, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> Report:
        """The report that `save` wrote.

        Raises:
            CheckpointError: if the file is missing or no report.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"no such file: {path}; make it with `chase bench`")
        try:
            content = json.loads(path.read_text())
            rows = tuple(Row.from_dict(row) for row in content["rows"])
            return cls(environment=content["environment"], rows=rows)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} is no benchmark report ({error!r}); run `chase bench` again") from error


def _finite(value: Any) -> Any:
    """The value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
