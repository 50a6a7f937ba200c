"""Forecast: what a recipe will do, before any data is read or a GPU is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from chase.compaction import compactions, evenly, macs_if_even
from chase.counting import Cost, cost_of, macs_at_widths
from chase.data.known import Extent, extent, extent_of
from chase.data.split import Data, num_batches
from chase.models import build_for
from chase.recipe import Recipe
from chase.slimming.groups import Group
from chase.slimming.tracer import groups_of
from chase.sparse.distributions import DISTRIBUTIONS, counts
from chase.sparse.masks import Masks, maskable
from chase.sparse.method import Method
from chase.sparse.plan import plan, stop_step
from chase.sparse.start import candidates, check_layers, check_macs, check_reachable, floors, reachable
from chase.tracing import trace


def forecast(recipe: Recipe, *, data: Data | None = None) -> dict[str, Any]:
    """The layers with their initial densities, the prunable groups with their floors, every event, and the MACs that
    are reachable, as plain data. Without `data`, a data set of known extent is not loaded.

    Raises:
        RecipeError: if the recipe cannot be met.
    """
    size = extent_of(data) if data else extent(recipe.data)
    model, _ = build_for(recipe.model.name, size.input_shape, size.classes, recipe.model.settings)
    example = torch.zeros(1, *size.input_shape)
    traced = trace(model, example)
    spent, groups = cost_of(traced), groups_of(model, traced, example, freedoms=recipe.method.freedoms)
    per_epoch, steps = _steps(recipe, size)
    return {
        "recipe": recipe.name,
        "model": recipe.model.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "stop_step": stop_step(recipe.method, steps),
        "layers": _layers(model, recipe.method),
        "groups": [_group(group, recipe.method) for group in groups],
        "events": [asdict(event) for event in plan(recipe.method, steps)],
        "compactions": list(
            compactions(
                recipe.training,
                recipe.method,
                steps,
                model=model,
                groups=candidates(groups, recipe.method),
                cost=spent,
            )
        ),
        **_reachable(model, groups, spent, recipe.method),
        "unknown_operators": list(spent.unknown),
    }


def _steps(recipe: Recipe, size: Extent) -> tuple[int, int]:
    """Steps of one epoch and of the whole run."""
    images = size.train - round(size.train * recipe.data.validation)
    per_epoch = num_batches(images, recipe.data.batch_size, shuffled=True)
    return per_epoch, per_epoch * recipe.training.epochs


def _layers(model: nn.Module, method: Method) -> list[dict[str, Any]]:
    shapes = {name: tuple(weight.shape) for name, weight in maskable(model).items()}
    distribution = DISTRIBUTIONS[method.distribution]
    density = method.initial_density
    densities, numbers = distribution(shapes, density), counts(shapes, density, distribution)
    return [
        {"weight": name, "shape": list(shape), "density": densities[name], "nonzero": numbers[name]}
        for name, shape in shapes.items()
    ]


def _group(group: Group, method: Method) -> dict[str, Any]:
    floor = floors((group,), method)[group.name]
    return {
        "name": group.name,
        "width": group.size,
        "floor": floor,
        "lowest_width": int(evenly((group,), method, {group.name: floor})[group.name].sum()),
        "stays_because": group.why_not(prune_skip=method.prune_skip, keep=method.keep),
    }


def _reachable(model: nn.Module, groups: tuple[Group, ...], spent: Cost, method: Method) -> dict[str, Any]:
    """Channel sparsity and MACs: at the start, with channels removed evenly, and with all groups on their floors."""
    chosen = candidates(groups, method)
    if method.prunes_channels:
        check_layers(groups, method)
        check_reachable(chosen, method)
        check_macs(Masks.dense(model, chosen), method, spent)
    layers = {layer["weight"]: layer["nonzero"] for layer in _layers(model, method)}
    share = 1 - method.channel_sparsity if method.executed_macs is None else math.sqrt(method.executed_macs)
    (even,) = macs_if_even(model, chosen, spent, method, [share])
    lowest = evenly(chosen, method, floors(chosen, method))
    return {
        "prunable_channels": sum(group.size for group in chosen),
        "channel_sparsity": {
            "target": method.channel_sparsity,
            "highest_reachable": reachable(chosen, method) if chosen else 0.0,
        },
        "sparsity": method.sparsity,
        "macs": {
            "dense": spent.macs,
            "theoretical_at_start": spent.macs_of(layers),
            "gpu_supported_if_even": even,
            "gpu_supported_at_floors": _macs_at(model, chosen, lowest, spent),
        },
    }


def _macs_at(model: nn.Module, groups: tuple[Group, ...], alive: Mapping[str, Tensor], spent: Cost) -> int:
    masks = Masks.dense(model, groups)
    masks.alive |= alive
    return macs_at_widths(spent, masks.shapes())
