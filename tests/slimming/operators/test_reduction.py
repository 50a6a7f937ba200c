"""Pooling, means, norms and softmax: over space they are exact, over channels they hold."""

from __future__ import annotations

import pytest
from operations import IMAGE, TOKENS, Between, Operation, assert_exact, first_group
from torch import Tensor, nn
from torch.nn import functional as F

ON_IMAGES: dict[str, Operation] = {
    "max pool": lambda x: F.max_pool2d(x, 2),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "mean over space": lambda x: x.mean((2, 3), keepdim=True),
    "softmax over space": lambda x: x * x.flatten(2).softmax(-1).view_as(x),
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_what_looks_over_space_lets_channels_leave_exactly(name: str) -> None:
    model = Between(ON_IMAGES[name], IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None
    assert_exact(model, IMAGE)


def test_an_affine_norm_silences_a_constant_again() -> None:
    model = Between(F.sigmoid, IMAGE, nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)))

    assert first_group(model, IMAGE).why_not() is None
    assert_exact(model, IMAGE)


def test_a_norm_over_another_axis_holds() -> None:
    model = Between(nn.BatchNorm1d(5), TOKENS, nn.Linear(6, 2))

    assert first_group(model, TOKENS).why_not() == "is averaged over by aten.batch_norm"


def test_what_happens_to_the_image_itself_concerns_no_channel() -> None:
    class Centred(Between):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(1, keepdim=True))

    assert first_group(Centred(F.relu, IMAGE, nn.Conv2d(6, 2, 1)), IMAGE).why_not() is None


HELD: dict[str, tuple[Operation, str]] = {
    "softmax": (lambda x: x.softmax(1), "is normalised over channels by aten.softmax"),
    "mean over channels": (lambda x: x + x.mean(1, keepdim=True), "is reduced over channels by aten.mean"),
    "mean over all": (lambda x: x - x.mean(), "is reduced over channels by aten.mean"),
    "pooled over channels": (
        lambda x: F.avg_pool2d(x.permute(0, 2, 1, 3), (3, 1), 1, (1, 0)).permute(0, 2, 1, 3),
        "is pooled by aten.avg_pool2d",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_mixes_channels_holds_and_names_the_operator(name: str) -> None:
    operation, reason = HELD[name]
    model = Between(operation, IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() == reason
