"""Verification: is a file whole, of this parent, and does it answer as its network does?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.checkpoint import Network
from chase.errors import ParityError, RecipeError
from chase.exporters.child import answers
from chase.exporters.divergence import first_divergence
from chase.exporters.parity import Gate, Parity, compare, gate_for, reference
from chase.exporters.preprocessing import Preprocessed
from chase.files import sha256
from chase.runtimes import format_of, runtime_for

_CHUNK = 32


def check(
    model: nn.Module,
    artifact: Artifact,
    samples: Tensor,
    *,
    gate: Gate,
    runtime: str | None = None,
    device: str = "cpu",
    isolated: bool = True,
) -> Parity:
    """The parity of an artifact with the fp32 network, on `samples` [n, ...] and at a second batch size.

    `samples` are what goes into both. With `isolated` the artifact runs in a fresh process.

    Raises:
        ParityError: if `gate` is not met, if the artifact cannot run one of the batches, or if the network's answers
            are such that nothing can be compared; it names the first layer that differs where the format shows it.
        MissingDependency: if the runtime or the device is not here.
    """
    name = artifact.path.name
    whole, few = _batches(len(samples), artifact.batch_sizes)
    others = [samples[few]] + ([_doubled(samples[:2])] if artifact.settings.get("dynamic_size") else [])
    given = [*samples[whole.flatten()].split(whole.shape[1]), *others]
    found = answers(artifact, given, runtime=runtime, device=device, isolated=isolated)
    main = torch.cat(found[: len(whole)])[: len(samples)]
    parities = [compare(reference(model, samples), main, name=name)]
    parities += [compare(reference(model, x), y, name=name) for x, y in zip(others, found[len(whole) :], strict=True)]
    for parity in parities:
        if why := gate.failure(parity):
            layer = first_divergence(model, artifact, _furthest(samples, reference(model, samples), main), gate)
            raise ParityError(f"{name} {why}; {layer}" if layer else f"{name} {why}")
    worst = max(parities, key=lambda each: each.max_rel)
    return dataclasses.replace(parities[0], max_abs=worst.max_abs, max_rel=worst.max_rel)


def compare_modules(model: nn.Module, other: nn.Module, samples: Tensor, *, gate: Gate, name: str) -> Parity:
    """The parity of a network with the one that a file was made from, both run by torch.

    Raises:
        ParityError: if `gate` is not met.
    """
    parity = compare(reference(model, samples), reference(other, samples), name=name)
    if why := gate.failure(parity):
        raise ParityError(f"{name} {why}")
    return parity


def verify(
    artifact: Artifact,
    network: Network,
    *,
    samples: Tensor | None = None,
    runtime: str | None = None,
    device: str = "cpu",
    isolated: bool = True,
) -> Parity:
    """The parity of an artifact with the network that it must have been made from.

    The file must be the one that was written, from this very network, with its classes and its normalisation.
    `samples` [n, c, h, w] are normalised images; by default those that the network carries.

    Raises:
        ParityError: if anything of this is not so.
        RecipeError: if there are no samples, or the runtime does not take the file.
        MissingDependency: if the runtime or the device is not here.
    """
    _check_facts(artifact, network)
    samples = network.content.get("samples") if samples is None else samples
    if samples is None or not len(samples):
        raise RecipeError(f"{network.path} carries no sample images; name some with --data")
    samples = artifact.encode(samples.float())
    model = Preprocessed(network.model, network.mean, network.std) if artifact.preprocessing else network.model
    if runtime is not None:
        runtime_for(format_of(artifact), runtime)
    on_gpu = device != "cpu"
    gate = gate_for(model, samples, format=artifact.format, precision=artifact.precision, on_gpu=on_gpu)
    where: dict[str, Any] = {"runtime": runtime, "device": device, "isolated": isolated}
    return check(model.eval(), artifact, samples, gate=gate, **where)


def _check_facts(artifact: Artifact, network: Network) -> None:
    """Refuse a file that was changed, one of another parent, and one that prepares its input in another way."""
    name = artifact.path.name
    if not artifact.is_whole():
        raise ParityError(f"{name} is not the file that was exported: its SHA-256 has changed; export again")
    parent = sha256(network.path)
    if artifact.parent_sha256 != parent:
        was = (artifact.parent_sha256 or "nothing known")[:12]
        raise ParityError(f"{name} was made from {was}…, but {network.path} is {parent[:12]}…; export again")
    for fact in ("classes", "mean", "std", "input_shape"):
        told, true = getattr(artifact, fact), getattr(network, fact)
        if not _same(told, true):
            raise ParityError(f"{name} says {fact} {_short(told)}, its network {_short(true)}; export again")


def _same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return list(first) == list(second)


def _short(values: Sequence[Any]) -> str:
    text = str(list(values))
    return text if len(text) < 60 else text[:59] + "…"


def _batches(count: int, sizes: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    """Positions of samples: all in batches of one size, int64 [batches, size], and a batch of another size, int64 [m].

    Samples come again where they do not fill the last batch; `sizes` are those that the file takes.
    """
    smallest, largest = (sizes[0], sizes[-1]) if sizes else (1, _CHUNK)
    size = max(smallest, min(largest, _CHUNK, count))
    rounds = torch.arange(-(-count // size) * size) % count
    another = next((each for each in (3, 2, 1, largest) if smallest <= each <= largest and each != size), size)
    return rounds.reshape(-1, size), torch.arange(another) % count


def _furthest(samples: Tensor, expected: Tensor, found: Tensor) -> Tensor:
    """The samples [n, ...], those first whose answers are furthest off."""
    far = (found - expected).abs().amax(1).nan_to_num(nan=torch.inf)
    return samples[far.argsort(descending=True)]


def _doubled(samples: Tensor) -> Tensor:
    """Images of twice the height and width."""
    rows, columns = (1, 2) if samples.dtype == torch.uint8 else (2, 3)
    return samples.repeat_interleave(2, rows).repeat_interleave(2, columns)


def samples_like(example: Tensor, count: int = 8) -> Tensor:
    """Random inputs [count, ...] of the shape of `example` [1, ...], always the same."""
    return torch.randn(count, *example.shape[1:], generator=torch.Generator().manual_seed(0))
