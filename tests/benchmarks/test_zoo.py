"""The networks of the sweeps, made as if trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from chase.benchmarks.zoo import ZOOS, perturb_, sides_for, subject
from chase.models import MODELS


class Fresh(nn.Module):
    """Everything that constructors leave at zero or constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)
        self.scale = nn.Parameter(1e-6 * torch.ones(4, 1, 1))
        self.positions = nn.Parameter(torch.zeros(4, 3, 3))
        self.token = nn.Parameter(1e-6 * torch.randn(5))
        self.wide = nn.Linear(4096, 2)  # its weights are below 1 / 64
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 4:
            raise ValueError("only images of 4 by 4")
        return self.norm(self.conv(x)) * self.scale + self.positions  # type: ignore[no-any-return]


def test_nothing_is_left_at_zero_or_constant() -> None:
    model = Fresh()

    perturb_(model, seed=0)

    floats = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    assert all(tensor.count_nonzero() == tensor.numel() and tensor.min() < tensor.max() for tensor in floats)
    assert min(model.positions.std(), model.token.std()) > 0.05
    for scale in (model.norm.weight, model.scale, model.norm.running_var):
        assert scale is not None
        assert 0.5 <= scale.min() <= scale.max() <= 1.5


def test_random_weights_are_left_as_they_are_and_seeds_repeat() -> None:
    model, again = Fresh(), Fresh()
    weights: list[Tensor] = [model.conv.weight, model.wide.weight]
    before = [weight.detach().clone() for weight in weights]

    perturb_(model, seed=3)
    perturb_(again, seed=3)

    assert all(map(torch.equal, weights, before))
    assert torch.equal(model.positions, again.positions)


def test_a_subject_gets_the_smallest_image_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "fresh", Fresh)

    tried = subject("fresh", sides=(2, 4, 8))

    assert tried.example.shape == (1, 3, 4, 4)
    assert not tried.model.training
    assert {module.momentum for module in tried.model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    with pytest.raises(ValueError, match="only images of 4 by 4"):
        subject("fresh", sides=(2, 8))


def test_torchvisions_zoo_is_all_of_its_classifiers() -> None:
    names = ZOOS["torchvision"]()

    assert len(names) >= 80
    assert "torchvision:regnet_y_128gf" in names


def test_the_zoos_of_timm_name_models_that_there_are_each_once() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    studied, families = ZOOS["timm"](), ZOOS["timm-families"]()

    assert len(studied) == 25
    assert len({*studied, *families}) == len(studied) + len(families)
    assert {name.removeprefix("timm:") for name in (*studied, *families)} <= set(timm.list_models())


def test_timm_says_which_images_its_models_take() -> None:
    pytest.importorskip("timm", reason="timm is not installed")

    assert sides_for("timm:vit_tiny_patch16_224") == (224,)
    assert sides_for("timm:resnet10t") == (64, 128, 176)
    assert sides_for("torchvision:resnet18")[0] == 64
