"""The dense twin: the network that a slim one is compared with, in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from chase import checkpoint
from chase.checkpoint import Network, build_model, load_network
from chase.counting import count
from chase.files import sha256
from chase.run import Run


def write_dense(run: Run) -> Path:
    """`dense/dense.pt` of a run: the trained twin where there is one, else the same architecture untrained.

    The file holds the network alone, so that its size can be compared with slim.pt. An untrained twin serves to
    measure speed; its facts say `trained: False`.
    """
    target = run.dense.folder / "dense.pt"
    trained = run.dense.checkpoint
    if trained.is_file() and checkpoint.read(trained)["facts"]["complete"]:
        if not run.is_current(target, trained=True):
            _strip(load_network(trained), target)
            run.record(target, parents=[trained], trained=True)
    elif not run.is_current(target, trained=False):
        _untrained(load_network(run.slim), target)
        run.record(target, trained=False)
    return target


def _strip(network: Network, target: Path) -> None:
    content = {key: value for key, value in network.content.items() if key not in DROPPED}
    facts = {**content["facts"], "trained": True}
    checkpoint.save(
        target,
        **(content | {"facts": facts, "input": network.input, "masks": None}),
        network=network.model,
        parent_sha256=sha256(network.path),
    )


DROPPED = ("format", "training", "parent_sha256")


def _untrained(like: Network, target: Path) -> None:
    torch.manual_seed(0)
    model = build_model(like.content["model"]).eval()
    counts = count(model, like.input.example())
    facts: dict[str, Any] = {
        "trained": False,
        "sparsity": 0.0,
        "channel_sparsity": 0.0,
        "macs": counts.macs.to_dict(),
        "params": counts.params.to_dict(),
    }
    checkpoint.save(
        target,
        kind="dense",
        model=like.content["model"],
        network=model,
        recipe=like.content["recipe"],
        input=like.input,
        widths=None,
        masks=None,
        facts=facts,
        samples=like.content["samples"],
        parent_sha256=None,
    )
