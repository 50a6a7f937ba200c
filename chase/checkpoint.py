"""Checkpoints: one file format for masked, slim and dense networks, read with `weights_only=True`.

A file holds plain data and tensors: how to build the model (`model`: name and arguments), the width plan that gives
it its slim shapes (`widths`), the `state_dict`, the masks as packed bits, what inputs look like, what was counted and
measured, and for a training in progress all that continues it. Nothing in it is ever executed; a model that is
user code (`package.module:function`) is imported only where the environment variable CHASE_TRUST_CODE is 1.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.errors import CheckpointError, reason
from chase.files import atomic
from chase.models import build
from chase.program import from_program
from chase.slimming.surgery import rebuild_
from chase.trust import HINT, trusted

FORMAT = "chase/1"
KINDS = ("masked", "slim", "dense")
NEEDED = ("model", "input", "widths", "state_dict", "facts")
PRETRAINED = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "weights")
"""Settings of torchvision's and timm's models that fetch weights; a file brings its own."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What goes into a network: the shape (channels, height, width), class names, and normalisation per channel."""

    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def example(self, batch: int = 1) -> Tensor:
        """Zeros of the input's shape, float32 [batch, c, h, w]."""
        return torch.zeros(batch, *self.shape)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as a file holds it, ready to run: evaluation mode, on the CPU.

    `kind` is "masked" (full size, zeros inside), "slim" (cut) or "dense". `content` is all the file holds.
    """

    path: Path
    kind: str
    model: nn.Module
    input: InputSpec
    content: Mapping[str, Any] = field(repr=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return self.input.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.input.classes

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean that inputs are normalised with."""
        return self.input.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation that inputs are normalised with."""
        return self.input.std

    @property
    def facts(self) -> dict[str, Any]:
        """What was counted and measured: sparsity, channel_sparsity, macs, params, accuracies, epoch."""
        return dict(self.content["facts"])

    @property
    def macs(self) -> dict[str, int]:
        """MACs per image: theoretical, gpu_supported, dense."""
        return dict(self.facts["macs"])

    @property
    def params(self) -> dict[str, int]:
        """Parameters: nonzero, stored, dense."""
        return dict(self.facts["params"])


def save(path: Path | str, *, kind: str, model: Mapping[str, Any], network: nn.Module, **content: Any) -> None:
    """Write a checkpoint, whole or not at all.

    `model` is {"name", "settings"}, or {"name", "program"} for a network that no constructor builds (see
    `chase.program`; the weights lie in the program); `content` takes recipe, input (InputSpec), widths, masks, facts,
    certificate, parent_sha256, state_dict (default: that of `network`) and training.

    Raises:
        OutputError: if it cannot be written.
    """
    content["input"] = asdict(content["input"])
    content.setdefault("state_dict", {} if "program" in model else network.state_dict())
    buffer = io.BytesIO()  # torch's own file writer can abort the process on a full disk
    torch.save({"format": FORMAT, "kind": kind, "model": dict(model), **content}, buffer)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())  # a machine that goes down must not leave a name without its content


def read(path: Path | str, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    """The content of a checkpoint; only data and tensors are read, never code.

    Raises:
        CheckpointError: if the file is missing, truncated, unsafe or foreign, or not of one of `kinds`.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file in it, or give the run with --run {path}")
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}; make it with `chase train`, or name another")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can fail anywhere inside the reader
        unsafe = "weights_only" in str(error).lower()
        why = "it holds objects that are not plain data" if unsafe else "truncated, or no checkpoint"
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({why}); make it again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is not a {FORMAT} checkpoint (its format is {found!r}); use `chase train`")
    if content.get("kind") not in kinds:
        raise CheckpointError(f"{path} holds a {content.get('kind')} network; this needs: {', '.join(kinds)}")
    if missing := ", ".join(key for key in NEEDED if key not in content):
        raise CheckpointError(f"{path} is incomplete: it lacks {missing}; make it again")
    return content


def load_network(path: Path | str, *, kinds: tuple[str, ...] = KINDS) -> Network:
    """The network that a checkpoint holds.

    Raises:
        CheckpointError: as `read`, or if the file does not fit the model that it names.
        UnknownName: if the model's name is not known here.
    """
    content = read(path, kinds)
    model = build_model(content["model"])
    try:
        if "program" not in content["model"]:
            if content["widths"]:
                rebuild_(model, content["widths"])
            model.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the model {content['model']['name']!r}: {reason(error)}") from error
    spec = InputSpec(**{key: tuple(value) for key, value in content["input"].items()})
    return Network(path=Path(path), kind=content["kind"], model=model.eval(), input=spec, content=content)


def load_model(path: Path | str) -> nn.Module:
    """The network of a checkpoint as a module, in evaluation mode on the CPU; see `load_network` for errors."""
    return load_network(path).model


def build_model(spec: Mapping[str, Any], builder: Callable[..., nn.Module] = build) -> nn.Module:
    """The model that {"name", "settings"} names, with fresh weights, or the one that a program is.

    Raises:
        CheckpointError: if it is user code and CHASE_TRUST_CODE is not 1.
    """
    if "program" in spec:
        return from_program(spec["program"])
    name = spec["name"]
    if ":" in name and not name.startswith(("torchvision:", "timm:")) and not trusted():
        raise CheckpointError(f"the model {name!r} is code outside Chase; if you trust the file, {HINT}")
    return builder(name, **{key: value for key, value in spec["settings"].items() if key not in PRETRAINED})
