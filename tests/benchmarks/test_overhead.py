from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chase.benchmarks.mask_forms import FORMS
from chase.benchmarks.overhead import BETWEEN, EVENTS, EVERY, STEPS, _update, main, measure
from chase.benchmarks.steps import Trainee, Workload
from chase.sparse import Event

TINY = Workload(model="vgg8", batch_size=2, side=8, settings={"num_classes": 10, "width": 0.125})


def test_the_report_holds_raw_samples_and_ratios(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "o.json"), "--case", "cifar-resnet20:2@16", "--seconds", "0.1"])

    (row,) = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert (row["model"], row["batch_size"]) == ("cifar-resnet20", 2)
    assert row["work"]["side"] == 16
    assert set(row["samples_ms"]) == {"dense", "again", "sparse"}
    assert row["masking_share"] == row["masking_ms"] / row["dense_step_ms"]
    assert set(row["mask_forms_ms"]) == set(FORMS)
    assert row["event_ms"] > 0
    assert row["peak_memory_bytes"] == {"dense": None, "sparse": None}
    low, high = row["sparse_over_dense"]["ci95"]
    assert low <= row["sparse_over_dense"]["median"] <= high


def test_the_sparse_step_trains_and_stays_sparse() -> None:
    trainee = Trainee(TINY, BETWEEN, steps=STEPS)
    masks = trainee.sparsifier.masks.weights["features.3.weight"]
    weight = trainee.model.get_parameter("features.3.weight")
    before = weight.detach().clone()

    trainee.step()

    assert not torch.equal(weight, before)
    assert not weight.detach()[masks == 0].any()


def test_each_timed_event_grows_by_dense_gradients() -> None:
    trainee = Trainee(TINY, EVERY, steps=EVENTS)
    explorer, masks = trainee.sparsifier._explorer, trainee.sparsifier.masks
    seen: list[tuple[int, int]] = []

    def observed(event: Event) -> None:
        found = [gradient[masks.weights[name] == 0] for name, gradient in explorer.gradients.items()]
        dormant = sum(int(gradient.count_nonzero()) for gradient in found)
        seen.append((event.step, dormant))

    trainee.sparsifier.observers.append(observed)
    run = _update(trainee)

    run()
    run()

    assert [step for step, _ in seen] == [1, 2]
    assert all(dormant > 1000 for _, dormant in seen)
    assert BETWEEN.with_(update_every=1) == EVERY


def test_a_step_in_bf16_is_measured_as_well() -> None:
    work = Workload(**TINY.to_dict() | {"precision": "bf16", "channels_last": True})

    row = measure(work, seconds=0.05)

    assert row["work"] == work.to_dict()
    assert row["dense_step_ms"] > 0


def test_a_dense_network_has_no_sparsifier() -> None:
    with pytest.raises(AssertionError, match="densely"):
        _ = Trainee(TINY).sparsifier
