"""The drawing of channel groups: a box a group, the right edges, and words that say why."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from networks import paper_groups

from chase.slimming.groups import SKIP_REASON, Group, Slice
from chase.slimming.picture import MOST_LISTED, STATES, explain, feeds, state, svg

SVG = "{http://www.w3.org/2000/svg}"


def group(name: str, *reads: str, makes: tuple[str, ...] = (), size: int = 4, **rest: Any) -> Group:
    """A group of the layer `name` (and the layers `makes`) whose units the layers `reads` read."""
    producers = tuple(f"{layer}.weight" for layer in (name, *makes))
    units = torch.arange(size)
    rows = [Slice(weight, 0, units, units) for weight in producers]
    columns = [Slice(f"{layer}.weight", 1, units, units, reads=True) for layer in reads]
    return Group(name=name, size=size, slices=(*rows, *columns), producers=producers, **rest)


CHAIN = (group("a", "b"), group("b", "c"), group("c", pinned="is an output of the model"))
BRANCH = (group("a", "b", "c"), group("b", "d"), group("c", "d"), group("d"))
RESIDUAL = (group("stem", "one", "head", makes=("two",), skip=True), group("one", "two"), group("head"))
HELD = {"is tied to a": 2, "is read by b": 3}


def drawn(groups: tuple[Group, ...], **settings: Any) -> ElementTree.Element:
    return ElementTree.fromstring(svg(groups, **settings))


def boxes(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """The element of each group, by the name written in its box."""
    found = {}
    for element in root.iter(f"{SVG}g"):
        if element.get("class") == "group":
            found[element.findall(f"{SVG}text")[0].text or ""] = element
    return found


def edges(root: ElementTree.Element) -> dict[tuple[str, str], str]:
    paths = [path for path in root.iter(f"{SVG}path") if path.get("data-from") is not None]
    found = {(path.attrib["data-from"], path.attrib["data-to"]): path.attrib["class"] for path in paths}
    assert len(found) == len(paths)
    return found


def colour(element: ElementTree.Element) -> str:
    (box,) = element.findall(f"{SVG}rect")
    return box.attrib["class"]


def text(element: ElementTree.Element) -> str:
    return " ".join("".join(part.itertext()) for part in element.iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (CHAIN, {("a", "b"), ("b", "c")}),
        (BRANCH, {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}),
        (RESIDUAL, {("stem", "one"), ("stem", "head"), ("one", "stem")}),
        ((), set()),
    ],
)
def test_there_is_a_box_for_every_group_and_an_edge_for_every_reader(
    groups: tuple[Group, ...], expected: set[tuple[str, str]]
) -> None:
    root = drawn(groups)

    assert list(boxes(root)) == [each.name for each in groups]
    assert edges(root).keys() == expected
    assert {(groups[a].name, groups[b].name) for a, b in feeds(groups)} == expected


def test_an_edge_that_does_not_go_down_is_dashed() -> None:
    assert edges(drawn(RESIDUAL)) == {("stem", "one"): "edge", ("stem", "head"): "edge", ("one", "stem"): "edge back"}


def test_a_layer_that_is_used_twice_feeds_its_own_group() -> None:
    assert edges(drawn((group("a", "a"),))) == {("a", "a"): "edge back"}


@pytest.mark.parametrize(
    ("settings", "prune_skip", "expected"),
    [
        ({}, False, "leaves"),
        ({"skip": True}, False, "skip"),
        ({"skip": True}, True, "leaves"),
        ({"held": HELD}, False, "partly"),
        ({"held": HELD, "skip": True}, False, "skip"),
        ({"held": HELD, "skip": True}, True, "partly"),
        ({"pinned": "is an output of the model", "skip": True}, True, "pinned"),
    ],
)
def test_a_box_has_the_colour_of_its_state(settings: dict[str, Any], prune_skip: bool, expected: str) -> None:
    one = group("a", **settings)
    root = drawn((one,), prune_skip=prune_skip)

    assert state(one, prune_skip=prune_skip) == expected
    assert colour(boxes(root)["a"]) == f"box {expected}"
    assert f"{STATES[expected]}: 1 group, 4 units" in text(root)


def test_every_state_has_a_colour_in_light_and_in_dark() -> None:
    style = drawn(CHAIN).findtext(f"{SVG}style") or ""
    light, dark = style.split("@media (prefers-color-scheme: dark)")

    for name in STATES:
        assert f".{name} {{ fill: #" in light
        assert f".{name} {{ fill: #" in dark


def test_a_box_says_how_wide_it_is_and_who_makes_and_reads_it() -> None:
    words = text(boxes(drawn((group("a", "x", "y", "z", makes=("b",), size=1500, held=HELD),)))["a"])

    assert words == "a 1,500 units, 5 held 2 → 3"


def test_the_tooltip_holds_the_reason_and_what_leaves_with_a_unit() -> None:
    tip = boxes(drawn(RESIDUAL))["stem"].findtext(f"{SVG}title")

    assert tip == explain(RESIDUAL[0])
    assert tip.splitlines() == [
        "stem",
        f"4 units stay: {SKIP_REASON}",
        "made by stem.weight, two.weight",
        "read by one.weight, head.weight",
        "a unit leaves 4 tensors:",
        "stem.weight (dim 0)",
        "two.weight (dim 0)",
        "one.weight (dim 1)",
        "head.weight (dim 1)",
    ]


def test_the_tooltip_names_every_reason_that_holds_some_units() -> None:
    lines = explain(group("a", held=HELD)).splitlines()

    assert lines[1:4] == ["4 units may leave", "2 more stay: is tied to a", "3 more stay: is read by b"]


def test_a_very_long_list_in_a_tooltip_ends_with_how_much_is_left_out() -> None:
    lines = explain(group("a", *(f"layer{number}" for number in range(MOST_LISTED + 2)))).splitlines()

    assert len(lines) == 6 + MOST_LISTED
    assert lines[-1] == "and 3 more"


def test_odd_names_are_escaped_and_what_xml_cannot_hold_is_replaced() -> None:
    odd = 'a<b>&"c"\'\N{SNOWMAN}\x00\ud800'
    shown = odd[:-2] + "\N{REPLACEMENT CHARACTER}" * 2

    root = ElementTree.fromstring(svg((group(odd, "next"), group("next")), title=odd).encode())

    assert list(boxes(root)) == [shown, "next"]
    assert edges(root).keys() == {(shown, "next")}
    assert root.findtext(f"{SVG}title") == shown


def test_the_document_stands_alone_and_is_the_same_each_time() -> None:
    document = svg(BRANCH, title="branch")

    assert document == svg(BRANCH, title="branch")
    assert not {"script", "image", "a", "use", "foreignObject"} & {
        element.tag.removeprefix(SVG) for element in ElementTree.fromstring(document).iter()
    }
    assert document.replace('xmlns="http://www.w3.org/2000/svg"', "").find("http") == -1


def test_everything_lies_inside_the_picture() -> None:
    groups = (group("a" * 60, *(f"b{n}" for n in range(20))), *(group(f"b{n}") for n in range(20)))
    root = drawn(groups)
    width, height = (float(root.attrib[side]) for side in ("width", "height"))

    rects = [element.find(f"{SVG}rect") for element in boxes(root).values()]
    sides = [
        {key: float(value) for key, value in rect.attrib.items() if key != "class"}
        for rect in rects
        if rect is not None
    ]
    assert len(sides) == 21
    assert all(side["x"] >= 0 and side["x"] + side["width"] <= width for side in sides)
    assert all(side["y"] >= 0 and side["y"] + side["height"] <= height for side in sides)


def test_a_residual_network_has_a_loop_for_every_block() -> None:
    found = edges(drawn(paper_groups("cifar-resnet20")))

    assert found["conv1", "layer1.0.conv1"] == "edge"
    assert {pair for pair, kind in found.items() if kind == "edge back"} == {
        (f"layer{stage}.{block}.conv1", "conv1" if stage == 1 else f"layer{stage}.0.conv2")
        for stage, block in ((1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2))
    }
