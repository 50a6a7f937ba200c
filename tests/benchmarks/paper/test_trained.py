"""What is learnt from a finished training: two small ones, one that lost channels and one that did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from chase.benchmarks.paper import measures
from chase.benchmarks.paper.runner import Runner, finish
from chase.benchmarks.paper.scales import Scale
from chase.benchmarks.paper.table import Inapplicable, Training
from chase.benchmarks.paper.trained import Trained
from chase.data import load_data
from chase.recipe import Recipe
from chase.sparse.criteria import CHANNEL_SCORES
from chase.training import Watch


def trained(folder: Path, **method: object) -> Trained:
    recipe = Recipe.from_dict(
        {
            "model": {"name": "vgg8", "width": 0.125},
            "data": {"name": "digits", "batch_size": 128, "validation": 0.0},
            "method": {"sparsity": 0.9, "update_every": 4, "channel_every": 4, "round_to": 1, **method},
            "training": {"epochs": 2},
        }
    )
    return Runner(Scale(about="", seconds=0.02), folder, device="cpu").trained(Training(recipe=recipe))


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("slim"), name="chase", channel_sparsity=0.5)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("masked"), name="rigl")


def test_a_training_that_lost_channels_is_slimmed_and_proved(slim: Trained) -> None:
    assert slim.slim is not None
    assert slim.slim["certificate"]["max_rel"] <= 1e-10
    assert measures.CHANNEL_SPARSITY.of(slim) == pytest.approx(0.5, abs=0.01)
    assert measures.TEST_MACS.of(slim) < measures.EXECUTED_MACS.of(slim) < 1


def test_a_slim_network_that_was_lost_is_made_again_without_training(slim: Trained) -> None:
    before, epochs = slim.run.slim.read_bytes(), list[int]()
    slim.run.slim.unlink()

    watch = Watch(on_epoch=lambda epoch: epochs.append(epoch.epoch))
    finish(slim.recipe, slim.run, device="cpu", data=load_data("digits"), watch=watch)

    assert slim.run.slim.read_bytes() == before
    assert epochs == []


def test_executed_macs_are_those_of_the_slim_network(slim: Trained) -> None:
    assert slim.slim is not None
    macs = slim.slim["facts"]["macs"]

    assert measures.EXECUTED_MACS.of(slim) == macs["gpu_supported"] / macs["dense"]
    assert measures.DENSE_MACS.of(slim) == macs["dense"] / 1e6


def test_without_lost_channels_there_is_nothing_to_slim(masked: Trained) -> None:
    assert masked.slim is None
    assert not masked.run.slim.exists()
    assert measures.EXECUTED_MACS.of(masked) == 1.0
    assert measures.TEST_MACS.of(masked) < 1.0


def test_accuracy_is_that_of_the_test_images(masked: Trained) -> None:
    assert measures.ACCURACY.of(masked) == masked.masked["test_accuracy"]


def test_training_macs_are_those_of_masks_and_of_dense_gradients(masked: Trained) -> None:
    share = measures.TEST_MACS.of(masked)  # RigL keeps as many weights as it has, but they move between layers

    assert 0.9 * share < measures.train_macs().of(masked) < 1
    assert measures.train_macs(1.5).of(masked) == pytest.approx(1.5 * measures.train_macs().of(masked))
    assert measures.train_macs().of(masked) * masked.facts["training_macs"]["dense"] == pytest.approx(
        masked.facts["training_macs"]["theoretical"]
    )


def test_widths_and_zeros_are_those_of_the_slim_shapes(slim: Trained, masked: Trained) -> None:
    assert slim.slim is not None
    kept = slim.slim["masks"]["kept"]

    assert measures.width("features.0").of(masked) == 8
    assert measures.width("features.0").of(slim) == len(kept["features.0"])
    assert 0 <= measures.zeros("features.0").of(slim) < 100
    with pytest.raises(Inapplicable, match="vgg8 has no such layer"):
        measures.width("layer1.0.conv1").of(slim)


def test_the_slim_network_is_timed_in_turn_with_its_dense_one(slim: Trained) -> None:
    row = slim.speed(2)

    assert row.speedup_vs_dense is not None
    assert measures.speedup(2).of(slim) == row.speedup_vs_dense["median"]
    assert measures.latency(2).of(slim) == row.latency_ms["p50"]
    assert measures.throughput(2).of(slim) == row.throughput


def test_timings_are_kept(slim: Trained) -> None:
    first = slim.speed(4).samples_ms

    assert Trained(slim.run, slim.recipe, slim.device, slim.seconds).speed(4).samples_ms == first


def test_what_lost_no_channels_has_no_speed_up(masked: Trained) -> None:
    with pytest.raises(Inapplicable, match="no channel has left"):
        measures.speedup(2).of(masked)


def test_amenable_shares_are_read_at_the_same_fraction_of_a_shorter_training(masked: Trained) -> None:
    first, last = (epoch["amenable"]["umm"]["0.2"] for epoch in masked.epochs)

    for epoch, expected in ((10, first), (80, first), (81, last), (160, last)):
        measure = measures.amenable("umm", "0.2", "features.3", epoch=epoch, epochs=160)
        assert measure.of(masked) == expected["features.3"]
    with pytest.raises(Inapplicable, match="no such layer"):
        measures.amenable("umm", "0.2", "fc9", epoch=1, epochs=160).of(masked)


def test_amenable_shares_of_all_layers_are_a_mean(masked: Trained) -> None:
    shares = list(masked.epochs[-1]["amenable"]["ws"]["0"].values())

    def mean(part: tuple[float, float]) -> float:
        return measures.amenable("ws", "0", None, epoch=160, epochs=160, part=part).of(masked)

    assert len(shares) == 7
    assert mean((0, 1)) == pytest.approx(sum(shares) / 7)
    assert mean((0, 0.5)) == pytest.approx(sum(shares[:4]) / 4)
    assert mean((0.5, 1)) == pytest.approx(sum(shares[3:]) / 4)


def test_every_criterion_prunes_at_once(masked: Trained) -> None:
    for criterion in CHANNEL_SCORES:
        assert 0 <= measures.prunability(criterion, 0.3).of(masked) <= 100
    assert (masked.run.folder / "prunability.json").is_file()
