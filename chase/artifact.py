"""Artifact: an exported file and the facts that travel beside it as `<file>.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chase.errors import CheckpointError
from chase.files import sha256, write_json

if TYPE_CHECKING:
    from chase.checkpoint import Network


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One exported file, or folder, and the `files` beside it that belong to it.

    `input_shape` is (channels, height, width) without the batch. Inputs are scaled to `input_range` and then normalised
    with `mean` and `std` (one value per channel); with `preprocessing` the file does that itself: it takes uint8 images
    [b, height, width, channels] and answers with probabilities. `batch_sizes` are the smallest, the usual and the
    largest one (None: any). `keep_fp32` names the layers that a reduced `precision` leaves out. `parity` is what the
    exporter measured against the network it came from: max_abs, max_rel, snr_db, agreement, flipped, samples, and the
    `gate` they were held to. `macs` (per image) holds theoretical, gpu_supported and dense; `params` holds nonzero,
    stored and dense. `built_for` is what the file is bound to, such as a GPU and a version of TensorRT; `settings` are
    the exporter's options.
    """

    path: Path
    format: str
    precision: str = "fp32"
    input_shape: tuple[int, ...]
    input_name: str = "input"
    input_dtype: str = "float32"
    input_range: tuple[float, float] = (0.0, 1.0)
    output_name: str = "logits"
    preprocessing: bool = False
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    kind: str = "slim"
    parent_sha256: str | None = None
    widths_sha256: str | None = None
    sha256: str | None = None
    files: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] | None = None
    keep_fp32: tuple[str, ...] = ()
    parity: dict[str, Any] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    opset: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    built_for: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def sidecar(self) -> Path:
        """Where the facts are stored."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def size_bytes(self) -> int:
        """The size of the file, or of all in its folder, with the files that belong to it."""
        parts = [self.path, *(self.path.with_name(name) for name in self.files)]
        return sum(each.stat().st_size for part in parts for each in (part, *part.rglob("*")) if each.is_file())

    def encode(self, images: Tensor) -> Tensor:
        """What goes into the file for normalised images [b, c, h, w]: they themselves, or uint8 [b, h, w, c].

        Values that `preprocessing` would have to be given as fractions of a level are rounded to the next level.
        """
        return to_levels(images, self.mean, self.std) if self.preprocessing else images

    def fingerprint(self) -> str:
        """The SHA-256 of the file, or of the hashes of all that belongs to it."""
        whole = sha256(self.path)
        others = [f"{name} {sha256(self.path.with_name(name))}" for name in self.files]
        return hashlib.sha256("\n".join([whole, *others]).encode()).hexdigest() if others else whole

    def is_whole(self) -> bool:
        """Whether the file, with all that belongs to it, is the one that was written."""
        there = all(self.path.with_name(name).is_file() for name in self.files)
        return there and (self.sha256 is None or self.fingerprint() == self.sha256)

    def inner(self) -> Artifact:
        """The file inside a Triton repository, as an artifact; any other artifact is its own."""
        if "inner_path" not in self.settings:
            return self
        path, format = self.path / self.settings["inner_path"], self.settings["inner_format"]
        return dataclasses.replace(self, path=path, format=format, sha256=None, settings=self.settings["inner"])

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
        sidecar = path.parent / f"{path.name}.json"
        if not path.exists():
            raise CheckpointError(f"no such file: {path}; make it with `chase export`")
        if not sidecar.is_file():
            raise CheckpointError(
                f"{path} is no exported file of Chase, or lost its description {sidecar}; make both with `chase export`"
            )
        try:
            facts = json.loads(sidecar.read_text()) | {"path": path}
            cls(**facts)  # says what is missing, or unknown here
            return _typed(cls, facts)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{sidecar} is not an artifact's description ({error}); export again") from error


def _typed(cls: type[Artifact], facts: dict[str, Any]) -> Artifact:
    """An artifact whose fields have their types, lists made tuples; a ValueError names the first that cannot."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg'].lower()}") from error


def facts_of(network: Network) -> dict[str, Any]:
    """The facts of an artifact that come from the file of its network."""
    names = ("kind", "classes", "mean", "std", "macs", "params")
    widths = json.dumps(network.content["widths"], sort_keys=True, default=str)
    return {name: getattr(network, name) for name in names} | {
        "parent_sha256": sha256(network.path),
        "widths_sha256": hashlib.sha256(widths.encode()).hexdigest(),
    }


def to_levels(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalised images [b, c, h, w] as the uint8 images [b, h, w, c] that they were made from."""
    scale, shift = (torch.tensor(values or default) for values, default in ((std, (1.0,)), (mean, (0.0,))))
    fractions = images.cpu() * scale[:, None, None] + shift[:, None, None]
    return (fractions * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().to(images.device)
