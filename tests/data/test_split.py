"""Orders, counts and stratification."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chase.data import Data, class_balanced, epoch_seed, load_data
from chase.data.split import Normalise, balanced, epoch_generator, epoch_order, num_batches, stratified
from chase.errors import RecipeError


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("synthetic", classes=4, shape=(1, 4, 4), train=40, test=8)


@pytest.mark.parametrize(
    ("images", "batch_size", "shuffled", "expected"),
    [
        (10, 4, False, 3),
        (10, 4, True, 2),
        (3, 4, True, 1),
        (3, 4, False, 1),
        (8, 4, True, 2),
        (0, 4, True, 0),
    ],
)
def test_shuffling_drops_an_incomplete_last_batch_unless_it_is_the_only_one(
    images: int, batch_size: int, shuffled: bool, expected: int
) -> None:
    generator = epoch_generator(batch_size, 1 if shuffled else None, augment=False)
    order = epoch_order(images, batch_size, generator)

    assert num_batches(images, batch_size, shuffled) == expected
    assert len(torch.split(order, batch_size)) == max(expected, 1)  # torch splits nothing into one empty part
    assert len(set(order.tolist())) == len(order)


def test_a_third_of_six_and_three_takes_two_and_one() -> None:
    labels = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0, 1])

    rest, held = stratified(labels, 1 / 3, seed=0)

    assert labels[held].bincount().tolist() == [2, 1]
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(9))
    assert held.tolist() == sorted(held.tolist())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 0.99), st.integers(0, 2**31))
def test_the_held_out_part_is_exact_and_every_class_gives_its_share(
    classes: list[int], fraction: float, seed: int
) -> None:
    labels = torch.tensor(classes)

    rest, held = stratified(labels, fraction, seed)

    assert len(held) == (max(round(fraction * len(labels)), 1) if fraction else 0)
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(len(labels)))
    shares = labels.bincount(minlength=5) * fraction
    assert ((labels[held].bincount(minlength=5) - shares).abs() < 1.001).all()


def test_the_same_seed_holds_out_the_same_images(data: Data) -> None:
    labels = data.train.labels

    assert stratified(labels, 0.25, 3)[1].tolist() == stratified(labels, 0.25, 3)[1].tolist()
    assert stratified(labels, 0.25, 3)[1].tolist() != stratified(labels, 0.25, 4)[1].tolist()


def test_held_out_splits_the_train_split(data: Data) -> None:
    rest, validation = data.held_out(0.25, seed=0)

    assert (len(rest), len(validation)) == (30, 10)
    together = torch.cat([rest.labels, validation.labels]).bincount()
    assert torch.equal(together, data.train.labels.bincount())


def test_nothing_is_held_out_at_fraction_zero(data: Data) -> None:
    rest, validation = data.held_out(0, seed=0)

    assert (len(rest), len(validation)) == (40, 0)
    assert list(validation.batches(4)) == []
    assert torch.equal(rest.labels, data.train.labels)


@pytest.mark.parametrize("fraction", [-0.1, 1, 2])
def test_a_fraction_out_of_range_is_refused(data: Data, fraction: float) -> None:
    with pytest.raises(RecipeError, match=rf"held-out fraction {fraction} is outside \[0, 1\)"):
        data.held_out(fraction, seed=0)


def test_a_train_split_is_never_emptied() -> None:
    data = load_data("synthetic", train=1, test=1)

    with pytest.raises(RecipeError, match="held-out fraction 0.5 of 1 images leaves none to train on"):
        data.held_out(0.5, seed=0)


def test_epoch_seeds_differ_between_epochs_and_runs() -> None:
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}

    assert len(seeds) == 400
    assert epoch_seed(3, 4) == epoch_seed(3, 4)


def test_normalised_images_are_scaled_per_channel() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)

    result = Normalise((0.5, 0.25), (0.5, 0.125), "cpu")(images)

    torch.testing.assert_close(result, torch.tensor([-1.0, 6.0]).view(1, 2, 1, 1))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 2**31))
def test_a_balanced_choice_has_as_many_of_each_class_or_all_there_are(classes: list[int], each: int, seed: int) -> None:
    labels = torch.tensor(classes)

    chosen = balanced(labels, each, seed)

    assert torch.equal(labels[chosen].bincount(minlength=5), labels.bincount(minlength=5).clamp(max=each))
    assert len(set(chosen.tolist())) == len(chosen)


def test_a_balanced_choice_mixes_the_classes_and_follows_from_its_seed() -> None:
    labels = torch.arange(4).repeat_interleave(50)

    first, again, other = (balanced(labels, 10, seed) for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert sorted(first.tolist()) != sorted(other.tolist())
    assert labels[first[:20]].bincount(minlength=4).min() > 0  # half of the batch knows every class


def test_a_class_balanced_batch_has_the_images_of_its_labels(data: Data) -> None:
    images, labels = class_balanced(data.train, per_class=3, seed=5)

    assert labels.bincount().tolist() == [3, 3, 3, 3]
    everything, theirs = next(data.train.batches(40))
    for image, label in zip(images, labels, strict=True):
        same = (everything == image).flatten(1).all(1)
        assert label in theirs[same]


def test_a_class_balanced_batch_of_nothing_is_refused(data: Data) -> None:
    with pytest.raises(RecipeError, match="per_class 0"):
        class_balanced(data.train, per_class=0)
    with pytest.raises(RecipeError, match="without images"):
        class_balanced(data.train.subset(torch.arange(0)))
