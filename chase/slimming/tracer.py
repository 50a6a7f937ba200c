"""From a model to its channel groups: trace, propagate, and try whether the forward pass follows its shapes."""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import nn

from chase.errors import TraceError
from chase.slimming.groups import Collection, Group
from chase.slimming.operators.rule import Freedoms
from chase.slimming.propagation import DEFAULT, Propagation, owners
from chase.slimming.trial import Trial, follows, halved, trial_copy
from chase.slimming.units import Ledger
from chase.tracing import Example, Trace, trace

log = logging.getLogger(__name__)


def channel_groups(model: nn.Module, example: Example, *, freedoms: Freedoms = DEFAULT) -> tuple[Group, ...]:
    """All channel groups of `model`, in execution order, traced on an input like `example` [b, ...].

    `freedoms` lets LayerNorms and attention heads lose channels as well.

    Raises:
        TraceError: if `torch.export` cannot follow the forward pass.
    """
    return groups_of(model, trace(model, example), example, freedoms=freedoms)


def groups_of(model: nn.Module, traced: Trace, example: Example, *, freedoms: Freedoms = DEFAULT) -> tuple[Group, ...]:
    """The channel groups of a model whose evaluation has been traced.

    Where the evaluation leaves parameters out (auxiliary heads), the training graph is traced as well. Sizes in the
    graph that may follow the widths are first taken to do so; if a trial shows that they do not, they hold channels.
    """
    graphs = [traced, *_training_graph(model, traced, example)]
    guess = _guessed(model, graphs, example, freedoms)
    return _settled(model, graphs, example, freedoms) if guess is None else guess


def _training_graph(model: nn.Module, traced: Trace, example: Example) -> list[Trace]:
    """The graph of the training mode, where evaluation leaves parameters out."""
    if not traced.unused() & {name for name, _ in model.named_parameters()}:
        return []
    try:
        return [trace(model, example, training=True)]
    except TraceError as error:
        log.warning("parts that only training uses are not followed: %s", error)
        return []


def _walk(
    model: nn.Module, graphs: list[Trace], freedoms: Freedoms, *, guessing: bool
) -> tuple[list[Propagation], Collection]:
    kinds, ledger = owners(model), Ledger()
    walks = [Propagation(graph, kinds, ledger, guessing=guessing, freedoms=freedoms) for graph in graphs]
    for walk in walks:
        walk.run()
    return walks, Collection(ledger)


def _guessed(model: nn.Module, graphs: list[Trace], example: Example, freedoms: Freedoms) -> tuple[Group, ...] | None:
    """The groups if all sizes follow the widths, or None if a trial shows that they do not."""
    walks, collection = _walk(model, graphs, freedoms, guessing=True)
    groups = collection.groups()
    free = [group for group in groups if group.pinned is None]
    if Trial(model, example).failure(free) is not None:
        return None
    guessed = [ids for walk in walks for ids in walk.guessed]
    if guessed and collection.any_free(torch.cat(guessed)):
        stays = collection.staying(free, halved(free))
        if not follows(walks[0], trial_copy(model, free, "cpu"), example, stays):
            return None
    return groups


def _settled(model: nn.Module, graphs: list[Trace], example: Example, freedoms: Freedoms) -> tuple[Group, ...]:
    """The groups without guesses, where those are pinned whose number the forward pass fixes nevertheless."""
    groups = _walk(model, graphs, freedoms, guessing=False)[1].groups()
    trial = Trial(model, example)
    accepted = {group.name for group in trial.accepted([group for group in groups if group.pinned is None])}
    return tuple(
        group
        if group.pinned is not None or group.name in accepted
        else dataclasses.replace(group, pinned=f"the forward pass fixes their number: {trial.reasons[group.name]}")
        for group in groups
    )
