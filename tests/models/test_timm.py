"""Models by the prefix `timm:`; timm is an optional package."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from chase.checkpoint import build_model
from chase.errors import MissingDependency, RecipeError, UnknownName
from chase.models import build, build_for

pytest.importorskip("timm", reason="timm is not installed")


def test_a_timm_model_takes_the_classes_and_the_channels_of_the_images() -> None:
    with torch.device("meta"):
        model, spec = build_for("timm:resnet10t", (1, 64, 64), 6, {})
        logits = model.eval()(torch.empty(2, 1, 64, 64))

    assert spec == {"name": "timm:resnet10t", "settings": {"num_classes": 6, "in_channels": 1}}
    assert logits.shape == (2, 6)


def test_settings_go_to_timms_constructor() -> None:
    with torch.device("meta"):
        model = build("timm:vit_tiny_patch16_224", num_classes=4, img_size=32)

    assert tuple(model.get_parameter("pos_embed").shape) == (1, 2 * 2 + 1, 192)


def test_timm_builds_with_random_weights_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert build("timm:test_resnet", num_classes=3).get_parameter("fc.weight").shape[0] == 3


@pytest.mark.parametrize(("name", "hint"), [("timm:resnet51", "resnet51q"), ("timm:convnext_tyni", "convnext_tiny")])
def test_an_unknown_timm_name_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=f"no model named '{name}'; did you mean '{hint}'"):
        build(name)


@pytest.mark.parametrize("settings", [{"widht": 2}, {"global_pool": "sum of all"}])
def test_a_setting_that_timm_refuses_is_one_clear_error(settings: dict[str, Any]) -> None:
    with torch.device("meta"), pytest.raises(RecipeError, match="'timm:vit_tiny_patch16_224'.*; change its settings"):
        build("timm:vit_tiny_patch16_224", **settings)


def test_timm_models_need_no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)

    assert build_model({"name": "timm:test_resnet", "settings": {"num_classes": 2}}).get_parameter("fc.weight").numel()


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(MissingDependency, match="needs the package timm; run: pip install timm"):
        build("timm:resnet18")


def test_torchvisions_models_load_no_timm() -> None:
    code = "import sys, chase.models as m; m.build('torchvision:alexnet'); sys.exit('timm' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
