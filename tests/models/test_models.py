"""Models by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from chase.errors import RecipeError, UnknownName
from chase.models import MODELS, build


def maskable(model: nn.Module) -> list[int]:
    """The number of weights of each convolution and linear layer."""
    return [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def side(name: str) -> int:
    """The smallest image side that suits the model in a test."""
    return 32 if name in ("mlp", "vgg16", "vgg19") else 8


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "num_classes", "params", "weights", "layers"),
    [
        ("cifar-resnet50", 10, 23_520_832, 23_467_712, 54),
        ("cifar-resnet50", 100, 23_705_152, 23_652_032, 54),
        ("vgg19", 10, 20_040_522, 20_024_000, 17),
        ("vgg19", 100, 20_086_692, 20_070_080, 17),
        ("cifar-resnet20", 10, 272_474, 270_896, 22),
        ("cifar-resnet20", 100, 278_324, 276_656, 22),
        ("cifar-resnet32", 100, 472_756, 470_192, 34),
        ("resnet50", 1000, 25_557_032, 25_502_912, 54),
    ],
)
def test_the_paper_networks_have_the_published_counts(
    name: str, num_classes: int, params: int, weights: int, layers: int
) -> None:
    with torch.device("meta"):  # counts need no weights
        model = build(name, num_classes=num_classes)

    assert sum(p.numel() for p in model.parameters()) == params
    assert sum(maskable(model)) == weights
    assert len(maskable(model)) == layers


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_answers_with_one_logit_per_class(name: str) -> None:
    model = build(name, num_classes=7, in_channels=3).eval()

    assert model(torch.zeros(2, 3, side(name), side(name))).shape == (2, 7)


@pytest.mark.parametrize("name", ["vgg8", "cifar-resnet20", "cifar-resnet50", "mlp"])
def test_a_model_takes_grey_images_and_can_be_exported(name: str) -> None:
    settings = {"side": 8} if name == "mlp" else {}
    model = build(name, num_classes=3, in_channels=1, **settings).eval()
    images = torch.rand(2, 1, 8, 8)

    exported = torch.export.export(model, (images,)).module()

    torch.testing.assert_close(exported(images), model(images))


def test_vgg19_numbers_its_convolutions_as_torchvision_does() -> None:
    with torch.device("meta"):
        model = build("vgg19", num_classes=10)

    found = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]

    numbers = (0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49)
    assert found == [f"features.{number}" for number in numbers]


def test_vgg_starts_with_the_papers_weights() -> None:
    torch.manual_seed(0)
    model = build("vgg8", num_classes=1000)
    conv, linear = model.get_submodule("features.17"), model.get_submodule("classifier")

    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert isinstance(linear, nn.Linear)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not conv.bias.any()
    assert not linear.bias.any()


@pytest.mark.parametrize(("width", "first", "last"), [(0.5, 32, 128), (0.01, 8, 8), (0.3, 16, 80), (1, 64, 256)])
def test_the_width_of_vgg8_rounds_to_multiples_of_eight(width: float, first: int, last: int) -> None:
    convs = [m for m in build("vgg8", num_classes=2, width=width).modules() if isinstance(m, nn.Conv2d)]

    assert (convs[0].out_channels, convs[-1].out_channels) == (first, last)


def test_a_width_of_zero_is_refused() -> None:
    with pytest.raises(RecipeError, match="width must be positive, not 0"):
        build("vgg8", num_classes=2, width=0)


def test_resnets_use_torchvisions_names_and_put_the_stride_on_the_3x3() -> None:
    with torch.device("meta"):
        ours = dict(build("cifar-resnet50", num_classes=10).named_parameters())
        theirs = dict(build("torchvision:resnet50", num_classes=10).named_parameters())
        strided = build("cifar-resnet50", num_classes=10).get_submodule("layer2.0.conv2")

    assert set(ours) == set(theirs) - {"fc.bias"}
    assert {name for name in ours if ours[name].shape != theirs[name].shape} == {"conv1.weight"}
    assert isinstance(strided, nn.Conv2d)
    assert strided.stride == (2, 2)


def test_narrow_resnets_start_with_kaiming_weights() -> None:
    torch.manual_seed(0)
    conv = build("cifar-resnet20", num_classes=10).get_submodule("layer3.2.conv2")

    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_the_mlp_has_a_linear_layer_per_hidden_width_and_one_more() -> None:
    model = build("mlp", num_classes=10, in_channels=1, side=8, hidden=[32, 16])

    assert maskable(model) == [64 * 32, 32 * 16, 16 * 10]


@pytest.mark.parametrize("name", ["torchvision:resnet18", "mobilenet_v3_small", "googlenet", "inception_v3"])
def test_torchvision_classifiers_are_built_without_warnings_and_answer_with_logits(name: str) -> None:
    with torch.device("meta"):
        model = build(name, num_classes=5, in_channels=3)
        logits = model.train()(torch.empty(2, 3, 299, 299))

    assert logits.shape == (2, 5)


def test_torchvision_models_refuse_grey_images() -> None:
    with pytest.raises(RecipeError, match="resnet18 takes 3 channels, not 1; use"):
        build("resnet18", num_classes=10, in_channels=1)


def test_our_models_load_no_torchvision() -> None:
    code = "import sys, chase.models as m; m.build('mlp', num_classes=2); sys.exit('torchvision' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "hint"),
    [("vgg91", "vgg19"), ("cifar-resnet-50", "cifar-resnet50"), ("torchvision:resnet43", "resnet34")],
)
def test_an_unknown_name_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=f"no model named '{name}'; did you mean '{hint}'"):
        build(name, num_classes=10)


def test_a_torchvision_detector_is_no_classifier() -> None:
    with pytest.raises(UnknownName, match="no model named 'ssd300_vgg16'"):
        build("ssd300_vgg16", num_classes=10)


@pytest.mark.parametrize("name", ["vgg19", "mlp", "resnet18"])
def test_an_unexpected_setting_is_named_with_its_model(name: str) -> None:
    with pytest.raises(RecipeError, match=f"cannot build model '{name}': .*'widht'; change its settings"):
        build(name, num_classes=10, widht=2)


def test_user_code_in_the_current_directory_is_imported_and_called(workspace: Path) -> None:
    (workspace / "my_nets.py").write_text(
        "from torch import nn\ndef tiny(num_classes, in_channels):\n    return nn.Linear(in_channels, num_classes)\n"
    )
    before = list(sys.path)

    model = build("my_nets:tiny", num_classes=3, in_channels=2)

    assert maskable(model) == [6]
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:net", r"cannot import 'no_such_module' \(ModuleNotFoundError: .*\); is it here"),
        ("broken_nets:net", r"cannot import 'broken_nets' \(NameError: "),
        (":net", "cannot import ''"),
        ("math:net", "has no attribute 'net'; write package.module:function"),
        ("math:pi", "model 'math:pi' is a float; name a function"),
        ("builtins:dict", "model 'builtins:dict' returned a dict; it must return a torch.nn.Module"),
        ("math:sqrt", "cannot build model 'math:sqrt': .*keyword arguments"),
    ],
)
def test_wrong_user_code_is_one_clear_error(workspace: Path, name: str, message: str) -> None:
    (workspace / "broken_nets.py").write_text("nonsense\n")

    with pytest.raises(RecipeError, match=message):
        build(name, num_classes=3)
