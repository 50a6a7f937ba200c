"""Run: the folder of one training and everything made from it, with a manifest of hashes."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chase.errors import CheckpointError
from chase.files import atomic, sha256, write_json
from chase.packages import installed

ROOT = Path("runs")
PACKAGES = ("chase-sparse", "torch", "torchvision", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """One run's folder; its files have fixed names."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.folder / "recipe.yaml"

    @property
    def checkpoint(self) -> Path:
        """The masked network and the state of its training."""
        return self.folder / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def slim(self) -> Path:
        """The slim network."""
        return self.folder / "slim.pt"

    @property
    def bench(self) -> Path:
        """Measurements of the artifacts."""
        return self.folder / "bench.json"

    @property
    def analysis(self) -> Path:
        """Amenable channels over training, and prunability."""
        return self.folder / "analysis.json"

    @property
    def manifest(self) -> Path:
        """What made which file."""
        return self.folder / "manifest.json"

    @property
    def dense(self) -> Run:
        """The dense twin: the same recipe without sparsity, in a folder of its own."""
        return Run(self.folder / "dense")

    def artifacts(self) -> list[Path]:
        """Exported files, those that have a description beside them."""
        names = {"manifest.json", "bench.json"}
        sidecars = [path for path in sorted(self.folder.glob("*.*.json")) if path.name not in names]
        return [path.with_suffix("") for path in sidecars if path.with_suffix("").exists()]

    def record(self, *files: Path, parents: Sequence[Path] = (), **facts: Any) -> None:
        """Enter files in the manifest: their hash, the command, versions, and the hashes of what they came from."""
        entries = self.entries()
        for file in files:
            entries[os.path.relpath(file, self.folder)] = {
                "sha256": sha256(file),
                "command": sys.argv,
                "parents": {os.path.relpath(parent, self.folder): sha256(parent) for parent in parents},
                "versions": versions(),
                **facts,
            }
        write_json(self.manifest, entries)

    def entries(self) -> dict[str, Any]:
        """The manifest as it stands.

        Raises:
            CheckpointError: if it is none.
        """
        if not self.manifest.is_file():
            return {}
        try:
            found = json.loads(self.manifest.read_text())
        except ValueError as error:
            raise CheckpointError(
                f"{self.manifest} is not valid JSON ({error}); remove it and run the stage again"
            ) from error
        if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
            raise CheckpointError(f"{self.manifest} is no manifest of a run; remove it and run the stage again")
        return found

    def is_current(self, file: Path, **facts: Any) -> bool:
        """Whether `file` is what the manifest says, made with these facts from parents that have not changed."""
        entry: Mapping[str, Any] = self.entries().get(os.path.relpath(file, self.folder), {})
        if not file.exists() or entry.get("sha256") != sha256(file):
            return False
        parents = ((self.folder / name, digest) for name, digest in entry.get("parents", {}).items())
        same_parents = all(parent.is_file() and sha256(parent) == digest for parent, digest in parents)
        return same_parents and all(entry.get(key) == value for key, value in facts.items())

    def make_latest(self) -> None:
        """Let `latest` beside this folder name it, if it lies in the folder of runs."""
        if self.folder.parent.resolve() == ROOT.resolve():
            with atomic(ROOT / "latest") as temporary:
                temporary.write_text(self.folder.name + "\n")


def current(folder: Path | None = None) -> Run:
    """The run in `folder`, else the one that `runs/latest` names.

    Raises:
        CheckpointError: if there is none, or it has gone.
    """
    if folder is not None:
        if not folder.is_dir():
            raise CheckpointError(f"no such run: {folder}; start one with `chase train`")
        return Run(folder)
    latest = ROOT / "latest"
    if not latest.is_file():
        raise CheckpointError("there is no current run here; start one with `chase train`, or name one with --run")
    name = latest.read_text().strip()
    if not name or not (ROOT / name).is_dir():
        raise CheckpointError(f"{latest} names {name or 'no run'}, which is not there; name a run with --run")
    return Run(ROOT / name)


def fresh(name: str) -> Run:
    """A run called `name`, or `name-2`, `name-3`, … where that is taken."""
    folder, number = ROOT / name, 1
    while folder.exists():
        number += 1
        folder = ROOT / f"{name}-{number}"
    return Run(folder)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that matter."""
    return {"python": platform.python_version(), **installed(PACKAGES)}
