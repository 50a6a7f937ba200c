from __future__ import annotations

from typing import Any

import pytest

from chase.benchmarks.layers import rows, typical, wasteful


def row(layer: str, op: str = "Conv2d", **facts: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("macs", "share_of_macs", "width", "aligned"))
    return {"layer": layer, "op": op, "ms": 1.0, "share_of_time": 0.1, **empty, **facts}


def test_the_widths_of_images_and_classes_are_as_they_are() -> None:
    times = dict.fromkeys(("first", "middle", "last"), 1.0)
    widths = {"first": (3, 16), "middle": (16, 24), "last": (24, 10)}

    found = rows(times, dict.fromkeys(times, "Conv2d"), dict.fromkeys(times, 1), widths)

    assert [each["aligned"] for each in found] == [True, True, True]
    assert [each["share_of_macs"] for each in found] == pytest.approx([1 / 3] * 3)


def test_the_typical_time_is_the_lower_quartile() -> None:
    assert typical([9.0, 1.0, 2.0, 3.0, 100.0, 4.0, 5.0, 6.0]) == 3.0
    assert typical([7.0]) == 7.0


def test_waste_names_layers_reorderings_and_odd_widths() -> None:
    odd = row("conv2", macs=100, share_of_macs=0.25, share_of_time=0.5, ms=5.0, width=[195, 93], aligned=False)
    even = row("conv3", macs=300, share_of_macs=0.75, share_of_time=0.3, ms=3.0, width=[64, 64], aligned=True)
    moved = [row(name, "ReorderOutput", share_of_time=0.1) for name in "ab"]

    assert wasteful([odd, even, *moved]) == [
        "conv2 takes 50.0 % of the time for 25.0 % of the MACs (195 → 93 channels, not multiples of 8)",
        "2 reorderings between layouts of the data take 20.0 % of the time",
        "1 of 2 layers have widths that are not multiples of 8 and take 5.00 × the time of the others for each "
        "multiplication; slim with --round-to 8",
    ]


def test_convolutions_that_onnx_runtime_does_not_block_are_counted() -> None:
    facts = {"macs": 1, "share_of_macs": 0.25, "share_of_time": 0.25, "aligned": True}
    kinds = (("Conv (blocked)", [3, 13]), ("FusedConv", [13, 16]), ("Conv", [16, 16]), ("FusedConv", [90, 8]))
    found = [row(f"conv{index}", op, width=width, **facts) for index, (op, width) in enumerate(kinds)]

    assert wasteful(found) == [
        "2 of 4 convolutions do not run in blocks of channels, for which their input must be a multiple of 4 wide"
    ]
    assert wasteful(found[1:]) == []  # a processor without such kernels


def test_where_time_follows_macs_nothing_is_wasted() -> None:
    even = row("conv", macs=300, share_of_macs=1.0, share_of_time=0.99, ms=3.0, width=[64, 64], aligned=True)

    assert wasteful([even, row("relu", "ReLU", share_of_time=0.01)]) == []
    assert wasteful([]) == []


def test_the_worst_come_first_and_not_too_many() -> None:
    found = [
        row(f"conv{index}", macs=1, share_of_macs=0.1, share_of_time=0.1 + 0.03 * index, width=[8, 8], aligned=True)
        for index in range(5)
    ]

    said = wasteful(found, most=2)

    assert [text.split()[0] for text in said] == ["conv4", "conv3"]


# Table 15 of the paper, ResNet-50 at 80 %: what is left of the widths inside each block
TABLE_15 = {
    "layer1": [(64, 64), (63, 62), (63, 64)],
    "layer2": [(128, 127), (111, 117), (106, 108), (122, 96)],
    "layer3": [(255, 241), (151, 143), (151, 108), (91, 74), (76, 41), (105, 44)],
    "layer4": [(499, 241), (146, 89), (489, 292)],
}


def test_all_but_one_of_the_widths_that_the_paper_cut_are_flagged() -> None:
    widths, cut = {"conv1": (3, 64)}, set()
    before = 64
    for stage, (name, blocks) in enumerate(TABLE_15.items()):
        inside, outside = 64 << stage, 256 << stage
        for position, (first, second) in enumerate(blocks):
            block = f"{name}.{position}"
            widths |= {f"{block}.conv1": (before, first), f"{block}.conv2": (first, second)}
            widths |= {f"{block}.conv3": (second, outside)}
            cut |= {f"{block}.conv{i}" for i, width in ((1, first), (2, second)) if width < inside}
            before = outside
    widths["fc"] = (2048, 1000)

    found = rows(dict.fromkeys(widths, 1.0), dict.fromkeys(widths, "Conv2d"), dict.fromkeys(widths, 1), widths)

    assert len(cut) == 28
    flagged = {each["layer"] for each in found if each["layer"] in cut and each["width"][1] % 8}
    assert cut - flagged == {"layer2.3.conv2"}
    assert all(each["aligned"] is False for each in found if each["layer"] in flagged)
    assert wasteful(found)[-1].startswith("42 of 50 layers have widths that are not multiples of 8 and take 1.00 ×")
