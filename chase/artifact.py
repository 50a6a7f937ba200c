"""Artifact: an exported file and the facts that travel beside it as `<file>.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.errors import CheckpointError
from chase.files import write_json


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One exported file.

    `input_shape` is (channels, height, width) without the batch. Inputs are scaled to `input_range` and then normalised
    with `mean` and `std` (one value per channel). `parity` is what the exporter measured against the
    network it came from: max_abs, max_rel, agreement, tolerance, samples. `macs` (per image) holds theoretical,
    gpu_supported and dense; `params` holds nonzero, stored and dense.
    """

    path: Path
    format: str
    precision: str = "fp32"
    input_shape: tuple[int, ...]
    input_name: str = "input"
    input_dtype: str = "float32"
    input_range: tuple[float, float] = (0.0, 1.0)
    output_name: str = "logits"
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    kind: str = "slim"
    parent_sha256: str | None = None
    parity: dict[str, Any] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    opset: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    gpu: str | None = None

    @property
    def sidecar(self) -> Path:
        """Where the facts are stored."""
        return self.path.with_name(self.path.name + ".json")

    def save(self) -> None:
        """Write the sidecar; the path itself is stored as the bare file name, so that folders can move."""
        write_json(self.sidecar, dataclasses.asdict(self) | {"path": self.path.name})

    @classmethod
    def load(cls, path: Path | str) -> Artifact:
        """Read an artifact's facts from the sidecar beside it.

        Raises:
            CheckpointError: if the file or its sidecar is missing or unreadable.
        """
        path = Path(path)
        sidecar = path.with_name(path.name + ".json")
        for file in (path, sidecar):
            if not file.is_file():
                raise CheckpointError(f"no such file: {file}; make it with `chase export`")
        try:
            facts = json.loads(sidecar.read_text())
            lists = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
            return cls(**(facts | lists | {"path": path}))
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{sidecar} is not an artifact's description ({error}); export again") from error
