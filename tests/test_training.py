"""What a whole training comes to, and what it records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import recipe

from chase import checkpoint
from chase.data import load_data
from chase.errors import ChaseError, RecipeError
from chase.run import Run
from chase.training import Epoch, Watch, resolve_device, train


def test_the_kept_epoch_is_the_best_on_validation_among_those_that_meet_the_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([99.0, 50.0, 70.0, 60.0, 12.5])  # four epochs on validation, then the kept network on the test split
    monkeypatch.setattr("chase.session.evaluate", lambda *args, **settings: next(scores))

    path = train(recipe(), Run(tmp_path), device="cpu")

    facts = checkpoint.read(path)["facts"]
    assert (facts["epoch"], facts["validation_accuracy"], facts["test_accuracy"]) == (3, 70.0, 12.5)
    assert facts["channel_sparsity"] == 0.5
    assert facts["complete"]


@pytest.mark.parametrize("blocks", [{"training": {"select": "last"}}, {"data": {"validation": 0.0}}])
def test_the_last_epoch_is_kept_if_asked_for_or_without_a_validation_split(
    blocks: dict[str, Any], tmp_path: Path
) -> None:
    path = train(recipe(**blocks), Run(tmp_path), device="cpu")

    content = checkpoint.read(path)
    assert content["facts"]["epoch"] == 4
    assert all(
        torch.equal(value, content["training"]["state_dict"][key]) for key, value in content["state_dict"].items()
    )


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ChaseError, match=r"the loss became (nan|inf) in step \d \(epoch 1\); lower optimizer.lr"):
        train(recipe(optimizer={"lr": 1e30}), Run(tmp_path), device="cpu")

    state = checkpoint.read(tmp_path / "checkpoint.pt")["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_events_and_counts_are_recorded_where_they_happen(tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    steps: list[tuple[int, int]] = []
    watch = Watch(lambda done, total: steps.append((done, total)), epochs.append)

    train(recipe(method={"update_every": 3, "channel_every": 4}), Run(tmp_path), device="cpu", watch=watch)

    assert [[event["step"] for event in epoch.events] for epoch in epochs] == [[3, 4], [6, 8], [], []]
    assert steps == [(done, 16) for done in range(1, 17)]
    assert [epoch.channel_sparsity for epoch in epochs[1:]] == [0.5, 0.5, 0.5]
    assert epochs[-1].macs["gpu_supported"] < epochs[0].macs["dense"] == epochs[-1].macs["dense"]


def test_channels_are_executed_until_they_are_cut_out(tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    chosen = recipe(model={"width": 0.25}, method={"round_to": 8, "channel_every": 3}, training={"compact": [0.5]})

    train(chosen, Run(tmp_path), device="cpu", watch=Watch(on_epoch=epochs.append))

    first, *_, last = epochs
    assert first.executed_macs == first.macs["dense"] > first.macs["gpu_supported"]
    assert last.executed_macs == last.macs["gpu_supported"]


def test_a_checkpoint_carries_real_inputs_of_its_test_split(tmp_path: Path) -> None:
    path = train(recipe(training={"epochs": 1}), Run(tmp_path), device="cpu")

    data = load_data("synthetic", shape=[1, 8, 8], train=96, test=32)
    assert torch.equal(checkpoint.read(path)["samples"], next(data.test.batches(16))[0])


def test_a_device_that_is_not_there_is_refused() -> None:
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("cuda:99", "no such thing"):
        with pytest.raises(RecipeError, match="is not available here"):
            resolve_device(name)


def test_cudnn_tries_its_kernels_while_a_training_lasts(tmp_path: Path) -> None:
    seen = []

    watch = Watch(on_epoch=lambda epoch: seen.append(torch.backends.cudnn.benchmark))

    assert not torch.backends.cudnn.benchmark
    train(recipe(training={"epochs": 1}), Run(tmp_path), watch=watch)
    assert seen == [True]
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("local_rank", [0, 3])
def test_a_gpu_is_chosen_by_its_number(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    index_of = torch.cuda._utils._get_device_index  # what torch.cuda.set_device asks first; it refuses a bare "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(index_of(device)))
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr("chase.training.distributed.local_rank", lambda: local_rank)

    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", local_rank)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [local_rank, local_rank, 1]


def test_the_shares_of_amenable_channels_are_recorded_every_epoch(tmp_path: Path) -> None:
    train(recipe(training={"amenable_thresholds": [0, 0.25]}), Run(tmp_path), device="cpu")

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [[*line["amenable"]] for line in lines] == [["umm", "ws"]] * 4
    assert [[*line["amenable"]["umm"]] for line in lines] == [["0", "0.25"]] * 4
    last = lines[-1]["amenable"]
    assert [*last["ws"]["0"]] == [*last["umm"]["0.25"]]
    assert any(0 < share < 1 for share in last["umm"]["0"].values())


@pytest.mark.parametrize(
    "blocks",
    [
        {"method": {"name": "dense", "sparsity": 0.0, "channel_sparsity": 0.0}},
        {"training": {"amenable_thresholds": []}},
    ],
    ids=["dense", "no thresholds"],
)
def test_nothing_is_recorded_of_a_dense_training_or_without_thresholds(blocks: dict[str, Any], tmp_path: Path) -> None:
    train(recipe(**blocks), Run(tmp_path), device="cpu")

    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["amenable"] == {}
