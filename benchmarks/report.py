"""Report: raw timings and the environment they were taken in; statistics are derived when asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.benchmarks.schema import finite, plain, problems
from chase.benchmarks.statistics import summary
from chase.errors import CheckpointError
from chase.files import write_json


@dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact, on one runtime, at one batch size.

    `provider` is what really computed. `samples_ms` are raw host times, one a round, from the call to finished work;
    `first_call_ms` is what the very first took. On a CPU, `cpu_ms` is the processor time of the same calls, all threads
    together. On a GPU there are `gpu_ms` (between two events on the stream), `enqueue_ms` (until the call returned) and
    `transfer_ms` (medians of the copies `to_device` and `from_device`, which no other figure includes). `throughput` is
    in images per second, from a loop of its own; `macs` are per image; `compressed_bytes` is the file as gzip packs it.

    `accuracy`, `top5` and `agreement` (the same top-1 answer as the fp32 network that the artifact came from, whose own
    accuracy is `reference_accuracy`) are in percent, `flipped` counts the images without that agreement, and
    `worst_logit_error` is the largest absolute difference of any logit: on the test images, or on those of the export
    where there were none. An accuracy of None has its reason.

    `speedup_vs_dense` is None for a baseline itself and where there is none; else it holds the median of the paired
    ratios, ci95, verdict, the `clock` that they are of ("host", or "cpu" for processor time), the name of the
    `baseline`, and how many times more MACs that one executes (`mac_ratio`). What is not known is None.
    """

    artifact: str
    runtime: str
    provider: str
    precision: str
    device: str
    batch_size: int
    samples_ms: tuple[float, ...]
    first_call_ms: float | None = None
    cpu_ms: tuple[float, ...] | None = None
    gpu_ms: tuple[float, ...] | None = None
    enqueue_ms: tuple[float, ...] | None = None
    transfer_ms: Mapping[str, float] | None = None
    throughput: float
    macs: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int
    compressed_bytes: int | None = None
    peak_memory_bytes: int | None = None
    accuracy: float | None = None
    top5: float | None = None
    accuracy_reason: str | None = None
    agreement: float | None = None
    flipped: int | None = None
    worst_logit_error: float | None = None
    reference_accuracy: float | None = None
    speedup_vs_dense: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latency_ms(self) -> dict[str, Any]:
        """p50, p90, p99 (None below 100 samples), mean, cv, and how many samples they come from."""
        return summary(self.samples_ms)

    @property
    def mac_ratio(self) -> float | None:
        """How many times more MACs the dense network has than this artifact executes."""
        dense, here = self.macs.get("dense"), self.macs.get("gpu_supported")
        return dense / here if dense and here else None

    @property
    def efficiency(self) -> float | None:
        """The measured speed-up over what the MACs promise: 1 where every MAC saved is time saved."""
        if self.speedup_vs_dense is None:
            return None
        promised = self.speedup_vs_dense.get("mac_ratio", self.mac_ratio)
        return self.speedup_vs_dense["median"] / promised if promised else None

    def to_dict(self) -> dict[str, Any]:
        """The row of bench.json: every field, and what is derived from them."""
        facts = {each.name: plain(getattr(self, each.name)) for each in dataclasses.fields(self)}
        return facts | {name: getattr(self, name) for name in DERIVED}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Row:
        """The row that `to_dict` gave; what is derived is derived again."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in facts.items()
            if name not in DERIVED
        }
        return cls(**fields)


DERIVED = ("latency_ms", "mac_ratio", "efficiency")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark found, and where.

    `clocks` is the GPU while it was timed, {t_s, sm_mhz, temperature_c, power_w, throttle}; `profiles` holds, by the
    name of an artifact, where its time went, {layer, op, macs, share_of_macs, ms, share_of_time, width, aligned};
    `command` is what was typed, word by word.
    """

    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    clocks: tuple[Mapping[str, Any], ...] = ()
    profiles: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The content of bench.json; a number that is not finite is null."""
        content: dict[str, Any] = finite(
            {
                "environment": dict(self.environment),
                "command": list(self.command),
                "rows": [row.to_dict() for row in self.rows],
                "clocks": [dict(sample) for sample in self.clocks],
                "profiles": {name: [dict(layer) for layer in layers] for name, layers in self.profiles.items()},
            }
        )
        return content

    def save(self, path: Path | str) -> None:
        """Write bench.json, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """The report that `to_dict` gave; `problems` says beforehand what is wrong with it."""
        return cls(
            environment=content["environment"],
            rows=tuple(Row.from_dict(row) for row in content["rows"]),
            clocks=tuple(content["clocks"]),
            profiles={name: tuple(layers) for name, layers in content["profiles"].items()},
            command=tuple(content["command"]),
        )

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
        except ValueError as error:
            raise CheckpointError(f"{path} is no JSON ({error}); run `chase bench` again") from error
        if found := problems(content):
            raise CheckpointError(f"{path} is no benchmark report: {found[0]}; run `chase bench` again")
        return cls.from_dict(content)
