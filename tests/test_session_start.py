"""What a training starts from: masks by saliency, the weights of another one, a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import same_weights

from chase import checkpoint
from chase.data import class_balanced, load_data
from chase.errors import RecipeError
from chase.recipe import Recipe
from chase.run import Run
from chase.session import Session
from chase.sparse.saliency import INITIAL, Batch
from chase.training import train

CPU = torch.device("cpu")


def recipe(method: Any = "dense", **training: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "name": "tiny",
            "model": {"name": "mlp", "hidden": [16]},
            "data": {"name": "digits", "batch_size": 256},
            "method": method,
            "training": {"epochs": 1, **training},
        }
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(), Run(tmp_path_factory.mktemp("dense")))


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "magnitude"])
def test_initial_masks_are_measured_on_images_of_each_class(name: str) -> None:
    data = load_data("digits")
    session = Session(recipe({"name": "static", "initial": name}), data, CPU)
    fresh = Session(recipe(), data, CPU)  # the same seed: the same weights, unmasked
    batch = Batch(*class_balanced(session.train_split, seed=0))

    masks = session.sparsifier.masks
    expected = INITIAL[name](fresh.model, masks.nonzero, batch=batch, example=torch.zeros(1, *data.input_shape))

    assert masks.nonzero == round(0.1 * masks.total)
    assert all(torch.equal(masks.weights[weight], mask) for weight, mask in expected.items())


def test_a_training_starts_from_the_weights_of_another(dense: Path) -> None:
    session = Session(recipe(start_from=str(dense)), load_data("digits"), CPU)

    assert same_weights(session.model, checkpoint.load_model(dense))


def test_a_teacher_that_has_all_of_the_loss_is_imitated(dense: Path, tmp_path: Path) -> None:
    settings = {"teacher": str(dense), "distillation": 1.0, "start_from": str(dense)}
    path = train(recipe(**settings), Run(tmp_path))

    student, teacher = checkpoint.load_model(path), checkpoint.load_model(dense)
    for name, value in teacher.state_dict().items():  # weight decay pulls at them, the loss no more
        torch.testing.assert_close(student.state_dict()[name], value, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"distillation": 1.5}, r"training.distillation must lie in \[0, 1\], not 1.5"),
        ({"seed": -1}, r"training.seed must lie in \[0, 2⁶³\), not -1"),
        ({"seed": 1 << 63}, r"training.seed must lie in \[0, 2⁶³\), not 9223372036854775808"),
        ({"temperature": 0.0}, "training.temperature must be above 0, not 0.0"),
    ],
)
def test_settings_out_of_range_are_named(training: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(**training)
