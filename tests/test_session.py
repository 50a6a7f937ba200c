"""A training that is compacted on its way goes the way of the masked one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_recipes
import torch
from torch import Tensor

from chase import checkpoint
from chase.checkpoint import load_network
from chase.data import data_for, load_data
from chase.epoch import Watch
from chase.evaluation import evaluate
from chase.recipe import Recipe
from chase.run import Run
from chase.session import Session
from chase.slimming.stage import slim_checkpoint
from chase.training import train

CPU = torch.device("cpu")
BLOCKS: dict[str, Any] = {
    "model": {"name": "small_training:Double"},
    "data": {"name": "synthetic", "shape": [1, 8, 8], "train": 96, "test": 32, "batch_size": 16, "validation": 0.25},
    "method": {"name": "chase", "sparsity": 0.6, "channel_sparsity": 0.5, "update_every": 2, "channel_every": 3}
    | {"stop": 0.75, "min_channel_ratio": 0.5},
    "training": {"epochs": 6, "seed": 3, "compact": [0.3, 0.5], "checkpoint_minutes": 0},
}


recipe = functools.partial(small_recipes.recipe, BLOCKS)


def session_of(chosen: Recipe) -> Session:
    return Session(chosen, data_for(chosen.data), CPU)


def losses(session: Session) -> Iterator[Tensor]:
    """The loss of every step of a whole training, in the precision it has."""
    found: list[Tensor] = []
    advance = session.train_on

    class Recording:
        average, wrap, scaler = advance.average, advance.wrap, None

        def __call__(self, x: Tensor, y: Tensor) -> Tensor:
            found.append(advance(x, y))
            return found[-1]

    session.train_on = Recording()  # type: ignore[assignment]
    while session.epoch < session.recipe.training.epochs:
        for _ in session.rest_of_epoch(Watch()):
            yield found[-1]
        session.finish_epoch()


def compared(rtol: float, **blocks: dict[str, Any]) -> tuple[Session, Session]:
    """The same training masked only and compacted, with equal losses and masks at the end."""
    training = blocks.pop("training", {})
    masked = session_of(recipe(**blocks, training={**training, "compact": "off"}))
    theirs = torch.stack(list(losses(masked)))
    cut = session_of(recipe(**blocks, training=training))
    ours = torch.stack(list(losses(cut)))

    assert torch.allclose(ours, theirs, rtol=rtol, atol=0)
    ours_masks, their_masks = (each.origin.full_masks() for each in (cut, masked))
    for kind in ("weights", "alive"):
        assert all(torch.equal(ours_masks[kind][name], bits) for name, bits in their_masks[kind].items())
    sizes = [sum(p.numel() for p in each.model.parameters()) for each in (cut, masked)]
    assert sizes[0] < 0.8 * sizes[1]
    assert cut.sparsifier.masks.channel_sparsity == masked.sparsifier.masks.channel_sparsity == 0.5
    return masked, cut


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"training": {"ema": 0.9}},
        {"training": {"accumulate": 2, "channels_last": True, "clip_norm": 0.5, "label_smoothing": 0.1}},
        {"training": {"skip_nonfinite": 3, "compact": [0.2, 0.3, 0.4, 0.5]}},
        {"optimizer": {"name": "adamw", "lr": 0.01}},
        {"method": {"prune_skip": True, "sparsity": 0.0}},
    ],
    ids=["plain", "ema", "accumulated and clipped", "guarded", "adamw", "channels alone"],
)
def test_losses_masks_and_weights_are_those_of_the_masked_training(blocks: dict[str, Any]) -> None:
    masked, cut = compared(1e-9, **blocks)

    for ours, theirs in ((cut.model, masked.model), (cut._network(), masked._network())):
        for name, tensor in cut.origin.full_state(ours.state_dict()).items():
            expected = theirs.state_dict()[name]
            alive = tensor != 0 if "running" in name else torch.ones_like(tensor, dtype=torch.bool)
            assert torch.allclose(tensor[alive], expected[alive], rtol=1e-7, atol=1e-12), name


def test_in_single_precision_losses_agree_as_far_as_that_goes() -> None:
    compared(2e-3, model={"name": "vgg8", "width": 0.25}, training={"epochs": 4})


def test_a_compiled_training_compiles_again_for_the_new_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    compile = torch.compile

    def counted(model: torch.nn.Module, **settings: Any) -> Any:
        compiled.append(sum(parameter.numel() for parameter in model.parameters()))
        return compile(model, backend="eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", counted)

    masked, cut = compared(1e-9, training={"compile": "default", "epochs": 4})

    assert compiled == sorted(compiled, reverse=True)
    assert len(compiled) == 1 + 1 + 2  # the masked training once; the other at first and after each mark
    assert masked.compactions == ()
    assert len(cut.compactions) == 2


def test_the_marks_are_met_as_planned_and_the_kept_units_are_noted() -> None:
    session = session_of(recipe())
    widths: dict[int, int] = {}
    while session.epoch < 6:
        for step in session.rest_of_epoch(Watch()):
            widths[step] = sum(len(units) for units in session.sparsifier.masks.units.values())
        session.finish_epoch()

    first, second = session.compactions
    assert widths[first - 1] == 64 > widths[first] == widths[second - 1] > widths[second] == 32
    for name, units in session.sparsifier.masks.units.items():
        assert len(units) == session.model.get_parameter(f"{name}.weight").shape[0]


def test_slimming_gives_the_same_network_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    facts, slims = [], []
    for compact in ("off", [0.3, 0.5]):
        run = Run(tmp_path / str(compact))
        path = train(recipe(training={"compact": compact}), run, device="cpu")
        assert load_network(path).kind == "masked"
        slim_checkpoint(path, run.slim)
        facts.append([checkpoint.read(file)["facts"] for file in (path, run.slim)])
        slims.append(load_network(run.slim).model.state_dict())

    spent = [each.pop("training_macs") for made in facts for each in made]
    assert facts[0] == facts[1]
    assert spent[2]["gpu_supported"] < spent[0]["gpu_supported"]
    assert spent[2]["theoretical"] == spent[0]["theoretical"]
    assert slims[0].keys() == slims[1].keys()
    assert all(torch.allclose(slims[0][name], tensor, rtol=1e-7) for name, tensor in slims[1].items())
    assert facts[0][1]["channel_sparsity"] == 0.5


def test_the_average_is_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    path = train(recipe(training={"ema": 0.5, "select": "last"}), Run(tmp_path), device="cpu")

    content = checkpoint.read(path)
    kept, state = content["state_dict"], content["training"]
    assert torch.equal(kept["fc.bias"], state["average"]["fc.bias"])
    assert not torch.allclose(kept["fc.bias"], state["state_dict"]["fc.bias"])
    # what has left is gone from the average as well
    assert int(torch.count_nonzero(kept["two.weight"])) < 0.5 * kept["two.weight"].numel()
    accuracy = evaluate_kept(path)
    assert content["facts"]["test_accuracy"] == accuracy


def evaluate_kept(path: Path) -> float:
    data = load_data("synthetic", shape=[1, 8, 8], train=96, test=32)
    return evaluate(load_network(path).model, data.test, device=CPU)
