"""Starting a training from the weights of another one."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from chase import checkpoint
from chase.errors import RecipeError


def take_weights(model: nn.Module, path: Path | str) -> None:
    """Copy the weights and buffers of a checkpoint of the same, full-size architecture into `model`.

    Raises:
        CheckpointError: if it cannot be read.
        RecipeError: if it holds another architecture, naming the first tensor that differs.
    """
    theirs, ours = checkpoint.read(path, ("dense", "masked"))["state_dict"], model.state_dict()
    for name in dict.fromkeys([*ours, *theirs]):
        found = [list(state[name].shape) if name in state else "missing" for state in (theirs, ours)]
        if found[0] != found[1]:
            raise RecipeError(
                f"training.start_from {path} holds another network: {name} is {found[0]} there and {found[1]} here"
            )
    model.load_state_dict(theirs)
