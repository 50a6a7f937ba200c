"""Recipes: shipped ones, reading, checking, overriding, writing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from chase.errors import RecipeError, UnknownName
from chase.recipe import Recipe, override, read, shipped
from chase.settings import ModelSettings

SHIPPED = [
    "cifar10-resnet50",
    "cifar10-vgg19",
    "cifar100-resnet50",
    "cifar100-vgg19",
    "digits-demo",
    "imagenet-resnet50",
    "imagenet-resnet50-1.5x",
    "imagenet-resnet50-chase-1",
    "imagenet-resnet50-chase-2",
]


def test_the_shipped_recipes_are_listed() -> None:
    assert shipped() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads_and_is_called_as_its_file(name: str) -> None:
    recipe = Recipe.from_dict(read(name))

    assert recipe.name == name
    assert recipe.about.endswith(".")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_survives_the_way_through_yaml(name: str) -> None:
    recipe = Recipe.from_dict(read(name))

    again = Recipe.from_dict(yaml.safe_load(recipe.to_yaml()))

    assert again == recipe
    assert again.to_dict() == recipe.to_dict()


def test_the_papers_settings_are_in_the_imagenet_recipe() -> None:
    recipe = Recipe.from_dict(read("imagenet-resnet50"))

    assert (recipe.training.epochs, recipe.data.batch_size, recipe.optimizer.lr) == (100, 512, 0.512)
    assert recipe.method.with_(name="x") == recipe.method.with_(name="x", soft_bound=0.05, stop=0.8)
    assert (recipe.method.update_every, recipe.method.channel_every, recipe.method.min_channel_ratio) == (
        1000,
        1000,
        0.2,
    )
    assert (recipe.optimizer.weight_decay, recipe.optimizer.norm_decay) == (1e-4, False)


@pytest.mark.parametrize(
    ("name", "epochs", "stop", "update_every", "sparsity"),
    [
        ("imagenet-resnet50", 100, 80, 1000, 0.9),
        ("imagenet-resnet50-1.5x", 150, 120, 1500, 0.9),
        ("imagenet-resnet50-chase-1", 250, 170, 2500, 0.8),
        ("imagenet-resnet50-chase-2", 250, 170, 2500, 0.9),
    ],
)
def test_the_imagenet_recipes_differ_as_tables_10_and_11_say(
    name: str, epochs: int, stop: int, update_every: int, sparsity: float
) -> None:
    recipe, base = Recipe.from_dict(read(name)), Recipe.from_dict(read("imagenet-resnet50"))
    method = recipe.method

    assert (recipe.training.epochs, round(method.stop * epochs)) == (epochs, stop)
    assert (method.update_every, method.sparsity, method.channel_sparsity) == (update_every, sparsity, 0.4)
    assert method.with_(stop=0.8, update_every=1000, sparsity=0.9) == base.method
    assert (recipe.data, recipe.optimizer, recipe.schedule) == (base.data, base.optimizer, base.schedule)


def test_what_is_not_given_has_its_default() -> None:
    assert Recipe.from_dict({}) == Recipe()
    assert Recipe.from_dict({"training": {"epochs": 3}}).training.seed == Recipe().training.seed


def test_a_block_of_text_is_a_name() -> None:
    recipe = Recipe.from_dict({"model": "vgg19", "data": "cifar10", "method": "rigl"})

    assert (recipe.model.name, recipe.data.name, recipe.method.name) == ("vgg19", "cifar10", "rigl")
    assert recipe.method.stop == 0.75  # RigL's own default


def test_unknown_keys_of_model_and_data_are_settings_of_theirs() -> None:
    blocks = {"model": {"name": "vgg8", "width": 0.5}, "data": {"name": "synthetic", "shape": [3, 8, 8]}}
    recipe = Recipe.from_dict(blocks)

    assert recipe.model == ModelSettings(name="vgg8", settings={"width": 0.5})
    assert recipe.data.settings == {"shape": [3, 8, 8]}
    assert recipe.to_dict()["model"] == {"name": "vgg8", "width": 0.5}
    assert Recipe.from_dict({"model": {"name": "vgg8", "settings": {"width": 0.5}}}).model == recipe.model


def test_values_are_brought_to_their_types() -> None:
    blocks = {
        "optimizer": {"lr": "1e-3", "betas": [0.8, "0.9"], "nesterov": "true"},
        "schedule": {"milestones": [80, 120]},
        "training": {"epochs": "5", "clip_norm": None},
        "method": {"keep": ["features.0"]},
    }
    recipe = Recipe.from_dict(blocks)

    assert (recipe.optimizer.lr, recipe.optimizer.betas, recipe.optimizer.nesterov) == (0.001, (0.8, 0.9), True)
    assert recipe.schedule.milestones == (80.0, 120.0)
    assert (recipe.training.epochs, recipe.training.clip_norm) == (5, None)
    assert recipe.method.keep == ("features.0",)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"trainig": {}}, "f.yaml: trainig: no such setting; did you mean 'training'?"),
        ({1: {}}, "f.yaml: 1: no such setting; known: about, data,"),
        ({"training": {"epoch": 2}}, "f.yaml: training.epoch: no such setting; did you mean 'epochs'?"),
        ({"method": {"sparsty": 0.5}}, "f.yaml: method.sparsty: no such setting; did you mean 'sparsity'?"),
        ({"training": 5}, "f.yaml: training must be a mapping of settings, not 5"),
        ({"method": None}, "f.yaml: method must be a mapping of settings, not None"),
        ({"model": {"settings": 3}}, "f.yaml: model.settings must be a mapping, not 3"),
        ({"training": {"epochs": 2.5}}, "f.yaml: training.epochs: input should be a valid integer"),
        ({"training": {"epochs": "many"}}, "not 'many'"),
        ({"optimizer": {"lr": "fast"}}, "f.yaml: optimizer.lr: input should be a valid number"),
        (
            {"training": {"compact": 0.5}},
            "training.compact: input should be a valid string or a valid list, not 0.5; write a list: [0.5, …]",
        ),
        ({"training": {"compact": None}}, "training.compact: input should be a valid string or a valid list, not None"),
        ({"schedule": {"milestones": 30}}, "milestones: input should be a valid list, not 30; write a list: [30, …]"),
        ({"method": {"keep": "fc"}}, "method.keep: input should be a valid list, not 'fc'; write a list: ['fc', …]"),
        ({"method": {"round_to": [8]}}, "method.round_to: input should be a valid integer or a valid mapping, not [8]"),
        ({"training": {"epochs": 0}}, "training.epochs must be above 0, not 0"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr must be above 0, not -1"),
        ({"schedule": {"gamma": 0}}, "schedule.gamma must be above 0, not 0"),
        ({"schedule": {"milestones": [4, -1]}}, "schedule.milestones must be above 0, not -1"),
        ({"training": {"clip_norm": -0.5}}, "training.clip_norm must be above 0, not -0.5"),
        ({"optimizer": {"weight_decay": -1}}, "optimizer.weight_decay must be at least 0, not -1"),
        ({"optimizer": {"momentum": 1.5}}, r"optimizer.momentum must lie in [0, 1), not 1.5"),
        ({"optimizer": {"betas": [0.9, 1]}}, r"optimizer.betas must lie in [0, 1), not 1.0"),
        ({"optimizer": {"nesterov": True, "momentum": 0}}, "optimizer.nesterov needs optimizer.momentum above 0"),
        ({"schedule": {"warmup_epochs": -1}}, "schedule.warmup_epochs must be at least 0, not -1"),
        ({"data": {"batch_size": 0}}, "data.batch_size must be above 0, not 0"),
        ({"data": {"validation": 1}}, "data.validation must lie in [0, 1), not 1.0"),
        ({"training": {"label_smoothing": 1}}, "training.label_smoothing must lie in [0, 1), not 1.0"),
        ({"method": {"sparsity": 1}}, "method.sparsity must lie in [0, 1), not 1.0"),
        ({"name": "a/b"}, "name must be usable as a folder's name, not 'a/b'"),
        ({"name": "latest"}, "name must be usable as a folder's name, not 'latest'"),
        ({"name": ""}, "name must be usable as a folder's name, not ''"),
        ([1], "f.yaml: a recipe is a mapping of name, about, model"),
    ],
)
def test_a_wrong_recipe_is_one_clear_error(blocks: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(blocks, source="f.yaml")

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def decimals() -> list[tuple[str, str, bool]]:
    """(block, setting, whether it is a list) of every setting that takes a number with decimals."""
    blocks = {name: block for name, block in vars(Recipe()).items() if dataclasses.is_dataclass(block)}
    hints = [(name, *hint) for name, block in blocks.items() for hint in get_type_hints(type(block)).items()]
    return [(name, setting, "tuple" in str(hint)) for name, setting, hint in hints if "float" in str(hint)]


@pytest.mark.parametrize("text", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(("block", "setting", "several"), decimals())
def test_a_number_that_is_not_finite_is_refused(block: str, setting: str, several: bool, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({block: {setting: [0.5, text] if several else text}})

    assert str(caught.value) == f"{block}.{setting} must be a finite number, not {text}"


def test_every_setting_with_decimals_is_among_them() -> None:
    assert {"data", "optimizer", "schedule", "training", "method"} == {block for block, *_ in decimals()}
    assert ("training", "compact", True) in decimals()
    assert ("method", "executed_macs", False) in decimals()


def test_settings_of_models_and_data_are_finite_too() -> None:
    for block in ("model", "data"):
        with pytest.raises(RecipeError, match=f"{block}.settings.width must be a finite number, not inf"):
            Recipe.from_dict({block: {"width": float("inf")}})
    with pytest.raises(RecipeError, match="data.settings.noise.low must be a finite number, not nan"):
        Recipe.from_dict({"data": {"noise": {"low": float("nan")}}})


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"optimizer": {"name": "sdg"}}, "optimizer.name: nothing named 'sdg'; did you mean 'sgd'?"),
        ({"schedule": {"name": "cos"}}, "schedule.name: nothing named 'cos'"),
        ({"training": {"amp": "fp8"}}, "training.amp: nothing named 'fp8'; known: bf16, fp16, off"),
        ({"training": {"select": "first"}}, "training.select: nothing named 'first'"),
        ({"method": {"name": "chas"}}, "no method named 'chas'; did you mean 'chase'?"),
        ({"method": {"criterion": "um"}}, "no channel score named 'um'; did you mean 'umm'?"),
    ],
)
def test_an_unknown_value_gets_a_hint(blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        Recipe.from_dict(blocks)

    assert message in str(caught.value)


def test_the_word_off_is_off_though_yaml_reads_it_as_false() -> None:
    blocks = override({"training": {"amp": "bf16"}}, ["training.amp=off"])

    assert Recipe.from_dict(blocks).training.amp == "off"


def test_a_recipe_file_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ntraining: {epochs: 2}\n")

    assert read(str(tmp_path / "mine.yaml")) == {"name": "mine", "training": {"epochs": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2", "is not valid YAML: while parsing a flow sequence"),
        (b"\x80\x02}q\x00", "is not valid YAML"),
        (b"- 1\n", "is not a recipe: it must be a mapping of blocks"),
        (b"", "is not a recipe: it must be a mapping of blocks"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)

    with pytest.raises(RecipeError, match=message) as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_explained() -> None:
    with pytest.raises(RecipeError, match="no such recipe file: no/such.yaml; `chase recipes` lists"):
        read("no/such.yaml")
    with pytest.raises(UnknownName, match="no recipe named 'digits-dem'; did you mean 'digits-demo'?"):
        read("digits-dem")


def test_overrides_reach_into_blocks_and_read_their_values_as_yaml() -> None:
    blocks = {"model": "vgg8", "training": {"epochs": 3, "seed": 1}}

    changed = override(
        blocks,
        ["training.epochs=5", "data.shape=[3, 8, 8]", "model.width=0.5", "name=x", "method.keep=[a, b]", "about=a=b"],
    )

    assert changed == {
        "model": {"name": "vgg8", "width": 0.5},
        "training": {"epochs": 5, "seed": 1},
        "data": {"shape": [3, 8, 8]},
        "name": "x",
        "method": {"keep": ["a", "b"]},
        "about": "a=b",
    }
    assert blocks == {"model": "vgg8", "training": {"epochs": 3, "seed": 1}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epochs", "'training.epochs' is not an assignment; write -o key=value, as in -o training.epochs=5"),
        ("=5", "'=5' is not an assignment"),
        ("training.epochs.x=1", "training.epochs.x: 'x' lies inside a value that has no settings"),
        ("data.shape=[3, 8", "data.shape is not valid YAML: while parsing a flow sequence"),
    ],
)
def test_a_wrong_override_is_one_clear_error(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        override({"training": {"epochs": 3}}, [assignment])

    assert message in str(caught.value)
