"""The slimming stage: from the file of a masked network to that of a slim one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.checkpoint import InputSpec, Network, load_network, save
from chase.counting import count
from chase.files import sha256
from chase.program import to_program
from chase.recipe import Recipe
from chase.slimming.groups import Group
from chase.slimming.network import Slimmed, sliced_masks, slimmed
from chase.slimming.tracer import channel_groups
from chase.slimming.widths import Grid
from chase.sparse.masks import Masks, pack
from chase.sparse.start import candidates


def slim_checkpoint(source: Path, target: Path, *, round_to: Grid = 8) -> dict[str, Any]:
    """Write the slim network of the masked checkpoint `source` to `target`; its facts.

    The proof runs on random inputs and on the real ones that the checkpoint carries.

    Raises:
        CheckpointError: if `source` is no masked checkpoint.
        EquivalenceError: if the slim network does not equal the masked one; nothing is written.
    """
    network = load_network(source, kinds=("masked",))
    masks = stored_masks(network)
    example, samples = network.input.example(), network.content["samples"]
    result = slimmed(network.model, masks, example=example, round_to=round_to, samples=samples)
    macs, params = network.macs["dense"], network.params["dense"]
    facts = network.facts | _facts(result, masks, example, dense_macs=macs, dense_params=params)
    save(
        target,
        kind="slim",
        model=network.content["model"],
        network=result.model,
        recipe=network.content["recipe"],
        input=network.input,
        widths=result.plan.to_dict(),
        masks={
            "weights": {name: pack(mask) for name, mask in sliced_masks(masks, result.kept).items()},
            "kept": result.kept,
        },
        facts=facts,
        certificate=result.certificate,
        samples=samples,
        parent_sha256=sha256(source),
    )
    return facts | {"certificate": result.certificate}


def save_slim(
    path: Path | str,
    result: Slimmed,
    masks: Masks,
    *,
    dense: nn.Module,
    input: InputSpec,
    model: Mapping[str, Any] | None = None,
) -> None:
    """Write a slim network that your own code trained as a file that `chase export` and `chase bench` take.

    Args:
        path: the file.
        result: what `slimmed` returned.
        masks: the masks it was given.
        dense: the full-size model, to count from.
        input: what inputs look like.
        model: {"name", "settings"} that build the full-size model again, such as {"name": "my_package:net",
            "settings": {}}. Without it the file holds the network as a program: it runs and exports, but has no
            training mode.

    Raises:
        TraceError: if there is no `model` and the network cannot be exported.
        OutputError: if the file cannot be written.
    """
    example = input.example()
    spec = model or {"name": type(dense).__name__, "program": to_program(result.model, example)}
    whole = count(dense, example)
    counted = _facts(result, masks, example, dense_macs=whole.macs.dense, dense_params=whole.params.dense)
    save(
        path,
        kind="slim",
        model=spec,
        network=result.model,
        recipe={},
        input=input,
        widths=result.plan.to_dict() if model else {},
        masks={"weights": {}, "kept": result.kept},
        facts={"sparsity": masks.sparsity, **counted},
        certificate=result.certificate,
        samples=None,
        parent_sha256=None,
    )


def _facts(result: Slimmed, masks: Masks, example: Tensor, *, dense_macs: int, dense_params: int) -> dict[str, Any]:
    """What is counted of a slim network, beside the dense one."""
    kept, counts = sum(map(len, result.kept.values())), count(result.model, example)
    return {
        "channel_sparsity": 1 - kept / masks.channels if masks.channels else 0.0,
        "widths": {group.name: [group.size, len(result.kept[group.name])] for group in masks.groups},
        "macs": replace(counts.macs, dense=dense_macs).to_dict(),
        "params": replace(counts.params, dense=dense_params).to_dict(),
    }


def rehearse(model: nn.Module, groups: tuple[Group, ...], *, example: Tensor) -> None:
    """Cut every second channel out of a copy of `model` with random norms and biases, before a training relies on it.

    Raises:
        EquivalenceError: if the model could not be slimmed exactly, for example since its forward pass fixes a size.
    """
    trial = copy.deepcopy(model).cpu()
    generator = torch.Generator().manual_seed(0)
    for tensor in [*trial.parameters(), *trial.buffers()]:
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    masks = Masks.dense(trial, groups)
    for alive in masks.alive.values():
        alive[1::2] = False
    masks.bury()
    slimmed(trial, masks, example=example, round_to=1)


def recipe_of(network: Network) -> Recipe:
    """The recipe that a network was trained by."""
    return Recipe.from_dict(network.content["recipe"], source=str(network.path))


def stored_masks(network: Network) -> Masks:
    """The masks of a masked checkpoint; its channels are traced again and must be those it was trained with."""
    method = recipe_of(network).method
    example, freedoms = network.input.example(), method.freedoms
    groups = channel_groups(network.model, example, freedoms=freedoms) if method.prunes_channels else ()
    masks = Masks.dense(network.model, candidates(groups, method))
    masks.load_state_dict(network.content["masks"])
    return masks
