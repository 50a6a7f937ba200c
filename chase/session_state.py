"""What continues a training: the state of a session, and a new session brought to where a former one was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chase import distributed

if TYPE_CHECKING:
    from chase.session import Session

COUNTERS = ("epoch", "batch", "first_step", "skipped", "best")


def state_of(session: Session) -> dict[str, Any]:
    """All that continues the training, as plain data and tensors; every process has to ask for it.

    Raises:
        ChaseError: if losses are not finite.
    """
    average = session.train_on.average
    return {
        **{name: getattr(session, name) for name in COUNTERS},
        "losses": session.finite_losses().cpu(),
        "kept": session.sparsifier.masks.units,
        "state_dict": session.model.state_dict(),
        "average": average.module.state_dict() if average else {},
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.train_on.scaler.state_dict(),
        "sparsifier": session.sparsifier.state_dict(),
        "amenable": session.amenable.state_dict(),
        "training_cost": session.training_cost.state_dict(),
        "rng": distributed.gathered(_random_state(session.device)),
    }


def restore(session: Session, state: Mapping[str, Any]) -> None:
    """Continue, in a new session, where `state_of` was called, with the same number of processes or another."""
    for name in COUNTERS:
        setattr(session, name, state[name])
    session.losses[: session.batch] = state["losses"].to(session.device)
    _shrink(session, state["kept"], state["sparsifier"]["step"])
    session.model.load_state_dict(state["state_dict"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.train_on.scaler.load_state_dict(state["scaler"])
    session.sparsifier.load_state_dict(state["sparsifier"])
    session.amenable.load_state_dict(state["amenable"])
    session.training_cost.load_state_dict(state["training_cost"])
    if session.train_on.average:
        session.train_on.average.module.load_state_dict(state["average"])
    if distributed.rank() < len(state["rng"]):
        _set_random_state(state["rng"][distributed.rank()], session.device)


def _shrink(session: Session, kept: Mapping[str, Tensor], step: int) -> None:
    """Bring the full-size network to the widths that it had at `step`."""
    masks = session.sparsifier.masks
    for name, units in kept.items():
        masks.alive[name].zero_()[units] = True
    if masks.removed:
        masks.bury()
        session.sparsifier.step = step
        session.compact()


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
