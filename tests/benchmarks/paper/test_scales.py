"""Scales: what becomes of a recipe, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chase.benchmarks.paper.blocks import chase, cifar, imagenet, trained_by, vit
from chase.benchmarks.paper.scales import SCALES, Scale, differences, same
from chase.settings import DataSettings

SMALL = Scale(about="", models={"vgg19": same("vgg8", width=0.5)}, epochs=16, batch_size=64, amp="off")


def test_what_is_counted_in_epochs_or_steps_shrinks_with_the_training() -> None:
    recipe = SMALL.recipe(cifar("VGG-19", "CIFAR-100"))
    steps, before = 16 * (50_000 // 64), 160 * (50_000 // 128)

    assert (recipe.model.name, recipe.model.settings) == ("vgg8", {"width": 0.5})
    assert (recipe.training.epochs, recipe.schedule.milestones) == (16, (8.0, 12.0))
    assert recipe.method.update_every == round(1000 * steps / before) == 200
    assert recipe.method.channel_every == round(8000 * steps / before) == 1602
    assert recipe.method.keep == ()  # the layer belongs to another model
    assert recipe.optimizer.lr == 0.05  # half of the images a step


def test_longer_trainings_stay_longer_in_proportion() -> None:
    small = SCALES["small"]

    assert [small.recipe(imagenet(longer)).training.epochs for longer in (False, True)] == [5, 8]


def test_intervals_have_a_least_length() -> None:
    method = SCALES["smoke"].recipe(cifar("VGG-19", "CIFAR-100")).method

    assert (method.update_every, method.channel_every) == (4, 4)


def test_masks_that_never_change_never_change() -> None:
    recipe = trained_by(cifar("VGG-19", "CIFAR-100"), "static").recipe

    assert SCALES["smoke"].recipe(recipe).method.update_every == 0


def test_a_setting_of_every_recipe_is_one_of_the_differences() -> None:
    recipe = cifar("VGG-19", "CIFAR-100")
    scale = replace(SCALES["full"], assignments=("training.amp=bf16", "method.normalise=layer"))

    ours = scale.recipe(recipe)

    assert differences(recipe, ours) == {"method.normalise": ("none", "layer"), "training.amp": ("off", "bf16")}
    assert replace(ours, method=recipe.method, training=recipe.training) == recipe


def test_a_sparsity_of_0_stays_0() -> None:
    recipe = cifar("VGG-19", "CIFAR-100")
    dense, sparse = trained_by(recipe, "dense"), chase(recipe, sparsity=0.98)

    assert [SCALES["smoke"].recipe(each.recipe).method.sparsity for each in (dense, sparse)] == [0.0, 0.8]


def test_a_teacher_is_scaled_too() -> None:
    recipe = cifar("VGG-19", "CIFAR-100")
    made = replace(chase(recipe), before={"teacher": trained_by(recipe, "dense")})

    teacher = made.with_recipes(SCALES["smoke"].recipe).before["teacher"]
    assert teacher.recipe == SCALES["smoke"].recipe(trained_by(recipe, "dense").recipe)


def test_a_vit_is_cut_to_the_images_that_there_are() -> None:
    settings = SCALES["smoke"].recipe(vit()).model.settings

    assert (settings["img_size"], settings["patch_size"], settings["depth"]) == (8, 2, 9)


def test_every_data_set_can_be_replaced_by_another() -> None:
    scale = replace(SCALES["full"], data=DataSettings(name="digits"))
    recipe = scale.recipe(cifar("ResNet-20", "CIFAR-10"))

    assert (recipe.data.name, recipe.data.batch_size, recipe.training.epochs) == ("digits", 128, 160)


def test_differences_are_pairs_of_the_papers_value_and_ours() -> None:
    paper = cifar("ResNet-50", "CIFAR-100")
    ours = replace(
        paper,
        name="other",
        model=same("vgg8", width=0.5)(None),  # type: ignore[arg-type]
        training=replace(paper.training, epochs=2, seed=7),
    )

    assert differences(paper, paper) == {}
    assert differences(paper, ours) == {
        "model.name": ("cifar-resnet50", "vgg8"),
        "model.width": (None, 0.5),
        "training.epochs": (160, 2),
    }


@pytest.mark.parametrize("name", SCALES)
def test_every_scale_says_what_it_is(name: str) -> None:
    assert SCALES[name].about
    assert SCALES[name].seeds
