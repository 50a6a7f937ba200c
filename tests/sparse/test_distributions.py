"""Layer densities: the published ERK numbers, and counts that add up exactly."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chase.models import build
from chase.sparse import maskable
from chase.sparse.distributions import DISTRIBUTIONS, apportion, counts, er, erk, uniform

Shapes = dict[str, tuple[int, ...]]


def shapes_of(name: str, classes: int) -> Shapes:
    with torch.device("meta"):
        model = build(name, num_classes=classes)
    return {key.removesuffix(".weight"): tuple(weight.shape) for key, weight in maskable(model).items()}


def by_kind(densities: dict[str, float]) -> dict[str, list[float]]:
    """Densities of a ResNet-50, four digits: stem and fc, and per kind of layer those of stages 1 to 4."""
    rows = {"c1 of block 0": "0.conv1", "c1+": "1.conv1", "conv2": "1.conv2", "conv3": "1.conv3"}
    table = {
        kind: [round(densities[f"layer{s}.{key}"], 4) for s in (1, 2, 3, 4)]
        for kind, key in (rows | {"downsample": "0.downsample.0"}).items()
    }
    return table | {"ends": [round(densities["conv1"], 4), round(densities["fc"], 4)]}


R50_IMAGENET_20 = {
    "ends": [0.8572, 0.1482],
    "c1 of block 0": [1, 1, 0.5849, 0.2921],
    "c1+": [1, 0.9753, 0.4869, 0.2433],
    "conv2": [0.3619, 0.1769, 0.0874, 0.0435],
    "conv3": [1, 0.9753, 0.4869, 0.2433],
    "downsample": [1, 0.5849, 0.2921, 0.1459],
}
R50_IMAGENET_10 = {
    "ends": [0.4200, 0.0726],
    "c1 of block 0": [1, 0.5747, 0.2866, 0.1431],
    "c1+": [0.9588, 0.4779, 0.2386, 0.1192],
    "conv2": [0.1773, 0.0867, 0.0428, 0.0213],
    "conv3": [0.9588, 0.4779, 0.2386, 0.1192],
    "downsample": [0.9588, 0.2866, 0.1431, 0.0715],
}
R50_CIFAR100_10 = {
    "ends": [1, 0.4832],
    "c1 of block 0": [1, 0.5427, 0.2707, 0.1352],
    "c1+": [0.9055, 0.4513, 0.2253, 0.1126],
    "conv2": [0.1675, 0.0819, 0.0405, 0.0201],
    "conv3": [0.9055, 0.4513, 0.2253, 0.1126],
    "downsample": [0.9055, 0.2707, 0.1352, 0.0675],
}


@pytest.mark.parametrize(
    ("model", "classes", "density", "table"),
    [
        ("torchvision:resnet50", 1000, 0.2, R50_IMAGENET_20),
        ("torchvision:resnet50", 1000, 0.1, R50_IMAGENET_10),
        ("cifar-resnet50", 100, 0.1, R50_CIFAR100_10),
    ],
)
def test_erk_gives_the_published_densities_of_resnet50(
    model: str, classes: int, density: float, table: dict[str, list[float]]
) -> None:
    shapes = shapes_of(model, classes)

    assert len(shapes) == 54
    assert by_kind(erk(shapes, density)) == table


VGG_LAYERS = (0, 3, 7, 10, 14, *(17, 20, 23), 27, *(30, 33, 36, 40, 43, 46, 49))


@pytest.mark.parametrize(
    ("density", "row", "last"),
    [
        (0.2, (1, 1, 1, 0.6714, 0.4997, 0.3319, 0.2479, 0.1650), 1),
        (0.1, (1, 0.6751, 0.4987, 0.3300, 0.2456, 0.1631, 0.1219, 0.0811), 1),
        (0.05, (1, 0.3284, 0.2426, 0.1605, 0.1195, 0.0793, 0.0593, 0.0394), 1),
        (0.02, (1, 0.1305, 0.0964, 0.0638, 0.0475, 0.0315, 0.0236, 0.0157), 0.4291),
    ],
)
def test_erk_gives_the_published_densities_of_vgg19(density: float, row: tuple[float, ...], last: float) -> None:
    densities = erk(shapes_of("vgg19", 100), density)

    *first, seventeen, twenty_seven, thirty = row
    expected = [*first, *[seventeen] * 3, twenty_seven, *[thirty] * 7]
    assert [round(densities[f"features.{index}"], 4) for index in VGG_LAYERS] == expected
    assert round(densities["classifier"], 4) == last


@pytest.mark.parametrize(
    ("model", "classes", "density", "epsilon"),
    [
        ("torchvision:resnet50", 1000, 0.2, 99.561173),
        ("torchvision:resnet50", 1000, 0.05, 24.371583),
        ("cifar-resnet50", 10, 0.1, 47.296629),
        ("vgg19", 10, 0.1, 189.655199),
        ("cifar-resnet20", 10, 0.1, 16.985986),
        ("cifar-resnet32", 100, 0.1, 17.492483),
    ],
)
def test_erk_solves_for_the_published_epsilon(model: str, classes: int, density: float, epsilon: float) -> None:
    shapes = shapes_of(model, classes)
    densities = erk(shapes, density)

    solved = {round(d * math.prod(shapes[n]) / sum(shapes[n]), 4) for n, d in densities.items() if d < 1}
    assert solved == {round(epsilon, 4)}
    assert all(epsilon * sum(shapes[n]) / math.prod(shapes[n]) >= 1 for n, d in densities.items() if d == 1)


def test_er_ignores_the_kernel_and_erk_does_not() -> None:
    shapes = {"a": (4, 4, 3, 3), "b": (8, 8, 1, 1)}

    # er: raw 8/16 and 16/64, so ε · (0.5 · 144 + 0.25 · 64) = 0.25 · 208; erk: raw 14/144 and 18/64
    assert er(shapes, 0.25) == pytest.approx({"a": 52 / 88 * 0.5, "b": 52 / 88 * 0.25})
    assert erk(shapes, 0.25) == pytest.approx({"a": 52 / 32 * 14 / 144, "b": 52 / 32 * 18 / 64})
    assert uniform(shapes, 0.25) == {"a": 0.25, "b": 0.25}


random_shapes = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, max_examples=100)
@given(random_shapes, st.floats(0, 1), st.sampled_from(sorted(DISTRIBUTIONS)))
def test_counts_add_up_to_the_rounded_budget_within_each_layer(shapes: Shapes, density: float, name: str) -> None:
    densities = DISTRIBUTIONS[name](shapes, density)
    found = counts(shapes, density, DISTRIBUTIONS[name])

    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    assert sum(found.values()) == round(density * sum(sizes.values()))
    assert all(0 <= found[key] <= sizes[key] for key in shapes)
    assert all(0 <= d <= 1 for d in densities.values())
    assert sum(densities[key] * sizes[key] for key in shapes) == pytest.approx(density * sum(sizes.values()))
    assert all(abs(found[key] - densities[key] * sizes[key]) < 1.5 for key in shapes)


shares_and_limits = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2), st.tuples(st.integers(0, 50), st.integers(0, 40)), min_size=1
)


@settings(deadline=None, max_examples=150)
@given(shares_and_limits, st.integers(0, 300))
def test_apportion_spends_everything_there_is_room_for(table: dict[str, tuple[int, int]], total: int) -> None:
    shares = {name: share for name, (share, _) in table.items()}
    limits = {name: limit for name, (_, limit) in table.items()}

    parts = apportion(total, shares, limits)

    assert list(parts) == list(shares)
    assert sum(parts.values()) == min(total, sum(limits.values()))
    assert all(0 <= parts[name] <= limits[name] for name in parts)
    unlimited = [name for name in parts if parts[name] < limits[name]]
    for a in unlimited:
        assert all(parts[a] + 1 >= parts[b] for b in unlimited if shares[a] >= shares[b])


@pytest.mark.parametrize(
    ("total", "shares", "limits", "expected"),
    [
        (7, (1, 1, 1), (9, 9, 9), (3, 2, 2)),  # equal remainders: the earlier name
        (10, (1, 2, 7), (9, 9, 9), (1, 2, 7)),
        (10, (1, 2, 7), (9, 9, 4), (2, 4, 4)),  # what the full layer cannot hold goes on in proportion
        (10, (5, 3, 2), (1, 1, 1), (1, 1, 1)),
        (5, (0, 0, 0), (9, 1, 9), (2, 1, 2)),
        (4, (0, 1, 0), (9, 2, 9), (1, 2, 1)),  # shares of zero get what no other has room for
    ],
)
def test_apportion_by_hand(
    total: int, shares: tuple[int, ...], limits: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    parts = apportion(total, dict(zip("abc", shares, strict=True)), dict(zip("abc", limits, strict=True)))

    assert tuple(parts.values()) == expected
