"""Models that fit a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from chase.errors import RecipeError, UnknownName
from chase.models import build, build_for

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("vgg8", {}, {"num_classes": 5, "in_channels": 1}),
        ("vgg8", {"width": 0.5}, {"num_classes": 5, "in_channels": 1, "width": 0.5}),
        ("mlp", {}, {"num_classes": 5, "in_channels": 1, "side": 8}),
        ("mlp", {"num_classes": 7, "hidden": [4]}, {"num_classes": 7, "in_channels": 1, "side": 8, "hidden": [4]}),
    ],
)
def test_a_constructor_is_given_what_it_takes_and_the_settings_win(
    name: str, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    model, spec = build_for(name, SHAPE, 5, settings)

    assert spec == {"name": name, "settings": expected}
    assert model(torch.zeros(2, *SHAPE)).shape == (2, expected["num_classes"])


def test_the_spec_builds_the_same_architecture_again() -> None:
    model, spec = build_for("cifar-resnet20", (3, 8, 8), 4, {})

    again = build(spec["name"], **spec["settings"])

    assert repr(again) == repr(model)


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18"])
def test_torchvision_takes_the_classes_and_checks_the_channels(name: str) -> None:
    with torch.device("meta"):
        _, spec = build_for(name, (3, 64, 64), 6, {})

    assert spec["settings"] == {"num_classes": 6, "in_channels": 3}
    with pytest.raises(RecipeError, match="resnet18 takes 3 channels, not 1"):
        build_for(name, SHAPE, 6, {})


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("num_classes", {"num_classes": 5}),
        ("side, num_classes=2", {"num_classes": 5, "side": 8}),
        ("**settings", {"num_classes": 5}),
        ("", {}),
    ],
)
def test_user_code_is_given_what_it_takes(
    signature: str, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"nets_{abs(hash(signature))}"
    (tmp_path / f"{module}.py").write_text(f"from torch import nn\ndef net({signature}):\n    return nn.Identity()\n")
    monkeypatch.chdir(tmp_path)

    assert build_for(f"{module}:net", SHAPE, 5, {})[1] == {"name": f"{module}:net", "settings": expected}


def test_a_setting_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot build model 'vgg8': .*'side'; change its settings"):
        build_for("vgg8", SHAPE, 5, {"side": 8})


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownName, match="no model named 'vgg88'; did you mean 'vgg8'"):
        build_for("vgg88", SHAPE, 5, {})


def test_a_callable_without_a_signature_is_refused() -> None:
    with pytest.raises(RecipeError, match="'builtins:dict' has no signature to read"):
        build_for("builtins:dict", (3, 8, 8), 10, {})
