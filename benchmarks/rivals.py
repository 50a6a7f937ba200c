"""Rivals: other networks to measure beside a run's own, so that it shows whether the slim one is worth it.

A rival is the name of a model (built for the run's data, untrained: for speed alone), `self@160` or `dense@160` (the
slim or the dense network on smaller images), or a file that was trained elsewhere.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chase import checkpoint
from chase.artifact import Artifact
from chase.benchmarks.candidates import RIVAL
from chase.benchmarks.resized import resize
from chase.checkpoint import InputSpec, Network, load_network
from chase.counting import count
from chase.errors import CheckpointError, RecipeError, reason
from chase.files import sha256
from chase.models import build_for
from chase.run import Run
from chase.runtimes import load_source
from chase.twin import DROPPED, write_dense

RESIZED = re.compile(r"(self|dense)@(.*)")


@dataclass(frozen=True)
class Rival:
    """A network to compare with: its name as it was asked for, its file, and whether that was made for the run."""

    name: str
    path: Path
    made: bool

    @property
    def trained(self) -> bool:
        """Whether its answers mean anything."""
        source = load_source(self.path)
        return not isinstance(source, Network) or source.facts.get("trained", True) is not False


def as_rival(path: Path) -> Artifact | Network:
    """What a file holds, as an item for `bench` that is never a baseline."""
    return dataclasses.replace(load_source(path), kind=RIVAL)


def is_file(name: str) -> bool:
    """Whether a rival's name is that of a file, there or missing, and not of a model."""
    from chase.exporters.formats import is_exported  # which brings all exporters along

    return Path(name).exists() or "/" in name or name.endswith(".pt") or is_exported(name)


def from_file(name: str, like: Artifact | Network) -> Rival:
    """The rival in a file that was trained elsewhere on the same classes as `like`.

    Raises:
        CheckpointError: if it is missing or none of Chase's.
        RecipeError: if it takes other channels or has other classes.
    """
    path = Path(name)
    if not path.exists():
        raise CheckpointError(f"--compare {name}: no such file; name an exported file, a .pt or a model")
    source = load_source(path)
    if source.classes and like.classes and source.classes != like.classes:
        raise RecipeError(
            f"--compare {name} has other classes ({len(source.classes)}) than {like.path} ({len(like.classes)})"
        )
    if source.input_shape[0] != like.input_shape[0]:
        raise RecipeError(f"--compare {name} takes {source.input_shape[0]} channels, {like.path} {like.input_shape[0]}")
    return Rival(name, path, made=False)


def rival(run: Run, name: str) -> Rival:
    """The rival that a name stands for; what has to be built lies in the run's `rivals/`, and is made once.

    Raises:
        UnknownName: if it is neither a file nor the name of a model.
        RecipeError: if the size is no size, or the network cannot be built or run on such images.
        CheckpointError, MissingDependency: as `from_file` and `chase.models.build` do.
    """
    slim = load_network(run.slim, kinds=("slim",))
    if found := RESIZED.fullmatch(name):
        size = _size(name, found[2], slim.input_shape)
        source = run.slim if found[1] == "self" else write_dense(run)
    elif is_file(name):
        return from_file(name, slim)
    else:
        size, source = None, run.slim
    target = run.folder / "rivals" / (re.sub(r"[^\w@.-]+", "-", name) + ".pt")
    home = Run(target.parent)
    if not home.is_current(target, rival=name):
        target.parent.mkdir(exist_ok=True)
        _at_size(load_network(source), size, target, name, slim.macs) if size else _stock(slim, target, name)
        home.record(target, parents=[source], rival=name)
    return Rival(name, target, made=True)


def _size(name: str, text: str, shape: tuple[int, ...]) -> int:
    """S of self@S."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise RecipeError(f"--compare {name}: {text!r} is no size; write a positive number of pixels, as in self@160")
    size = int(text)
    if shape[1:] == (size, size):
        raise RecipeError(f"--compare {name}: the run's own images are {size} x {size}; name another size")
    return size


def _stock(slim: Network, target: Path, name: str) -> None:
    """Write the model `name`, untrained, for the images and classes of the slim network."""
    channels, height, width = slim.input_shape
    classes = len(slim.classes) or _answers(slim.model, slim.input, slim.path.name).shape[1]
    torch.manual_seed(0)
    model, spec = build_for(name, (channels, height, width), classes, {})
    _answers(model.eval(), slim.input, name)
    facts = {"trained": False, "sparsity": 0.0, "channel_sparsity": 0.0, **_counted(model, slim.input)}
    kept = {key: slim.content[key] for key in ("recipe", "samples")}
    checkpoint.save(
        target,
        kind="dense",
        model=spec,
        network=model,
        input=slim.input,
        widths=None,
        masks=None,
        facts=facts,
        parent_sha256=None,
        **kept,
    )


def _at_size(network: Network, size: int, target: Path, name: str, macs: dict[str, int]) -> None:
    """Write a network for images of another size; its MACs `dense` stay those of the run's dense network."""
    spec = dataclasses.replace(network.input, shape=(network.input_shape[0], size, size))
    _answers(network.model, spec, name)
    counted = _counted(network.model, spec)
    facts = network.facts | {
        "macs": counted["macs"] | {"dense": macs["dense"]},
        "resized_from": list(network.input_shape[1:]),
    }
    content = {key: value for key, value in network.content.items() if key not in (*DROPPED, "certificate")}
    samples = resize(network.content["samples"], (size, size))
    changed = {"input": spec, "facts": facts, "samples": samples, "masks": None}
    checkpoint.save(target, **(content | changed), network=network.model, parent_sha256=sha256(network.path))


def _counted(model: nn.Module, spec: InputSpec) -> dict[str, Any]:
    counts = count(model, spec.example())
    return {"macs": counts.macs.to_dict(), "params": counts.params.to_dict()}


def _answers(model: nn.Module, spec: InputSpec, name: str) -> torch.Tensor:
    """What the network answers to an example; that it can is the point.

    Raises:
        RecipeError: if it cannot run on such images.
    """
    try:
        with torch.no_grad():
            answers: torch.Tensor = model(spec.example())
    except Exception as error:  # whatever a model's code raises on images that it is not made for
        size = " x ".join(str(each) for each in spec.shape[1:])
        raise RecipeError(f"--compare {name} cannot run on images of {size}: {reason(error)}") from error
    return answers
