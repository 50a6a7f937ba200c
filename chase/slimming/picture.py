"""A drawing of channel groups: what feeds what, and which channels may leave."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree

from chase.slimming.groups import Group
from chase.slimming.layout import Edge, lay_out

STATES = {
    "leaves": "may leave",
    "skip": "may leave with prune_skip",
    "partly": "may leave but for those held",
    "pinned": "may not leave",
}
STEP, HEIGHT, GAP, MARGIN = 9, 40, 36, 24  # px; a step is the distance between two lanes
MOST_LISTED = 40  # tensors in a tooltip
STYLE = """
svg { background: #ffffff; }
text { font: 11px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #57606a; }
.name { font: 600 11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1b1f24; }
.title { font-size: 16px; font-weight: 600; fill: #1b1f24; }
.paper { fill: #ffffff; }
.box { stroke-width: 1.3; }
.leaves { fill: #e4f5e9; stroke: #1f883d; }
.skip { fill: #fff3d1; stroke: #b7791f; }
.partly { fill: #e1eeff; stroke: #2166d1; }
.pinned { fill: #eeeff1; stroke: #8c959f; stroke-dasharray: 3 2; }
.edge { fill: none; stroke: #7a8590; stroke-width: 1.2; }
.back { stroke: #c08a3e; stroke-dasharray: 4 3; }
.head { fill: #7a8590; }
.backhead { fill: #c08a3e; }
.group:hover .edge { stroke: #d6336c; stroke-width: 2.4; }
.group:hover .box { stroke-width: 3; }
@media (prefers-color-scheme: dark) {
svg { background: #0f141a; }
text { fill: #9aa6b2; }
.name, .title { fill: #e6edf3; }
.paper { fill: #0f141a; }
.leaves { fill: #12331f; stroke: #3fb950; }
.skip { fill: #3a2d0d; stroke: #d29922; }
.partly { fill: #112a4a; stroke: #58a6ff; }
.pinned { fill: #252a31; stroke: #6e7681; }
.edge { stroke: #6b7682; }
.back { stroke: #a8833c; }
.head { fill: #6b7682; }
.backhead { fill: #a8833c; }
.group:hover .edge { stroke: #ff79b0; }
}
"""


def state(group: Group, *, prune_skip: bool = False) -> str:
    """What becomes of the group's channels under this setting: a key of STATES."""
    if group.pinned:
        return "pinned"
    if group.skip and not prune_skip:
        return "skip"
    return "partly" if group.held else "leaves"


def readers(group: Group) -> tuple[str, ...]:
    """The weights whose columns read the group's channels."""
    return tuple(dict.fromkeys(part.tensor for part in group.slices if part.reads))


def feeds(groups: Sequence[Group]) -> list[Edge]:
    """Pairs (a, b), sorted: a layer that makes channels of `groups[b]` reads channels of `groups[a]`."""
    makes = defaultdict(list)
    for index, group in enumerate(groups):
        for weight in group.producers:
            makes[weight].append(index)
    return sorted({(index, b) for index, group in enumerate(groups) for name in readers(group) for b in makes[name]})


class Drawing:
    """A picture in the making: what lies where, in px."""

    def __init__(self, groups: Sequence[Group], *, prune_skip: bool, top: int) -> None:
        self.groups, self.prune_skip, self.top = groups, prune_skip, top
        self.edges = feeds(groups)
        self.steps = _steps(groups)
        self.layout = lay_out(len(groups), self.edges, self.steps)
        used = [*self.layout.centres, *self.layout.lanes.values()] or [0]
        self.left = min(used) - self.steps // 2
        self.width = (max(used) - self.left + self.steps // 2 + 1) * STEP + 2 * MARGIN
        self.height = top + (max(self.layout.rows, default=-1) + 1) * (HEIGHT + GAP) + MARGIN
        self.ports = self._ports()

    def x(self, step: float) -> float:
        """The middle of a step in px."""
        return (step - self.left + 0.5) * STEP + MARGIN

    def y(self, box: int) -> int:
        """The upper rim of a box in px."""
        return self.top + self.layout.rows[box] * (HEIGHT + GAP)

    def _ports(self) -> dict[Edge, float]:
        """Where (px) each downward edge meets the upper rim of its box: in the order in which they come."""
        arriving = defaultdict(list)
        for edge in self.edges:
            if self.layout.drop(edge) > 0:
                arriving[edge[1]].append((self.layout.lanes.get(edge, self.layout.centres[edge[0]]), edge))
        ports = {}
        for box, found in arriving.items():
            apart = min(STEP, 0.6 * self.steps * STEP / len(found))
            for number, (_, edge) in enumerate(sorted(found)):
                ports[edge] = self.x(self.layout.centres[box]) + (number - (len(found) - 1) / 2) * apart
        return ports

    def path(self, edge: Edge) -> str:
        """The curve of an edge."""
        a, b = edge
        drop = self.layout.drop(edge)
        x, y, end = self.x(self.layout.centres[a]), self.y(a), self.y(b)
        if a == b:
            rim = x + self.steps * STEP / 2
            return f"M{rim:g} {y + 12} C{rim + 26:g} {y + 2} {rim + 26:g} {y + HEIGHT - 2} {rim:g} {y + HEIGHT - 12}"
        if drop > 0:
            return self._curve((x, y + HEIGHT), (self.ports[edge], end), self.layout.lanes.get(edge), 1)
        side = 0.42 * self.steps * STEP
        target = self.x(self.layout.centres[b]) - side
        if drop < 0:
            return self._curve((x - side, y), (target, end + HEIGHT), self.layout.lanes.get(edge), -1)
        low = y + HEIGHT + GAP * 0.7
        return f"M{x - side:g} {y + HEIGHT} C{x - side:g} {low:g} {target:g} {low:g} {target:g} {y + HEIGHT}"

    def _curve(self, start: tuple[float, int], end: tuple[float, int], lane: int | None, down: int) -> str:
        (x, y), (last, rim), bend = start, end, down * GAP // 2
        if lane is None:
            return f"M{x:g} {y} C{x:g} {y + bend} {last:g} {rim - bend} {last:g} {rim}"
        at, near, far = self.x(lane), y + 2 * bend, rim - 2 * bend
        first = f"M{x:g} {y} C{x:g} {y + bend} {at:g} {near - bend} {at:g} {near}"
        return f"{first} V{far} C{at:g} {far + bend} {last:g} {rim - bend} {last:g} {rim}"

    def group(self, parent: ElementTree.Element, index: int) -> None:
        """A box with its tooltip, over the edges that leave it."""
        holder = ElementTree.SubElement(parent, "g", {"class": "group"})
        explained = explain(self.groups[index], prune_skip=self.prune_skip)
        ElementTree.SubElement(holder, "title").text = _clean(explained)
        for edge in self.edges:
            if edge[0] == index:
                self._edge(holder, edge)
        self._box(holder, index)

    def _edge(self, parent: ElementTree.Element, edge: Edge) -> None:
        ends = {"data-from": _clean(self.groups[edge[0]].name), "data-to": _clean(self.groups[edge[1]].name)}
        back = "" if self.layout.drop(edge) > 0 else "back"
        looks = {"class": f"edge {back}".strip(), "marker-end": f"url(#{back}head)"}
        ElementTree.SubElement(parent, "path", {**looks, "d": self.path(edge), **ends})

    def _box(self, parent: ElementTree.Element, index: int) -> None:
        group, width, top = self.groups[index], self.steps * STEP, self.y(index)
        left = self.x(self.layout.centres[index]) - width / 2
        box = {"x": f"{left:g}", "y": f"{top}", "width": f"{width}", "height": f"{HEIGHT}", "rx": "6"}
        ElementTree.SubElement(parent, "rect", {"class": f"box {state(group, prune_skip=self.prune_skip)}", **box})
        _text(parent, left + 9, top + 16, group.name, "name")
        _text(parent, left + 9, top + 31, _units(group))
        flow = f"{len(group.producers)} → {len(readers(group)) or '–'}"
        _text(parent, left + width - 9, top + 31, flow).set("text-anchor", "end")


def explain(group: Group, *, prune_skip: bool = False) -> str:
    """The group in words, a line each: what may leave and why not, who makes and reads it, what a unit takes along."""
    reason = group.why_not(prune_skip=prune_skip)
    tensors = list(dict.fromkeys(f"{part.tensor} (dim {part.dim})" for part in group.slices))
    hidden = len(tensors) - MOST_LISTED
    return "\n".join(
        [
            group.name,
            f"{group.size} units may leave" if reason is None else f"{group.size} units stay: {reason}",
            *(f"{count} more stay: {why}" for why, count in group.held.items()),
            f"made by {', '.join(group.producers)}",
            *([f"read by {', '.join(readers(group))}"] if readers(group) else []),
            f"a unit leaves {len(tensors)} tensors:",
            *tensors[:MOST_LISTED],
            *([f"and {hidden} more"] if hidden > 0 else []),
        ]
    )


def svg(groups: Sequence[Group], *, prune_skip: bool = False, title: str = "") -> str:
    """The groups as a self-contained SVG document: a box each, in execution order from top to bottom.

    An edge runs from a group to those whose layers read its channels; it is dashed where it does not go down, as at
    the end of a skip connection. Pointing at a box shows the reason and all that leaves with a unit.
    """
    drawing = Drawing(groups, prune_skip=prune_skip, top=MARGIN + (24 if title else 0) + 18 * (len(STATES) + 2) + GAP)
    width, height = max(drawing.width, 60 + 2 * MARGIN + 9 * len(title), 480), drawing.height
    root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    root.attrib |= {"viewBox": f"0 0 {width} {height}", "width": f"{width}", "height": f"{height}"}
    ElementTree.SubElement(root, "title").text = _clean(title or "channel groups")
    ElementTree.SubElement(root, "style").text = STYLE
    definitions = ElementTree.SubElement(root, "defs")
    for name in ("head", "backhead"):
        _marker(definitions, name)
    ElementTree.SubElement(root, "rect", {"class": "paper", "width": f"{width}", "height": f"{height}"})
    if title:
        _text(root, MARGIN, MARGIN + 14, title, "title")
    _legend(root, groups, MARGIN + (24 if title else 0), prune_skip=prune_skip)
    for index in range(len(groups)):
        drawing.group(root, index)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _legend(root: ElementTree.Element, groups: Sequence[Group], top: float, *, prune_skip: bool) -> None:
    legend = ElementTree.SubElement(root, "g", {"class": "legend"})
    for number, (name, words) in enumerate(STATES.items()):
        low = top + 18 * number
        swatch = {"class": f"box {name}", "rx": "3", "x": f"{MARGIN}", "y": f"{low + 3}", "width": "22", "height": "12"}
        ElementTree.SubElement(legend, "rect", swatch)
        found = [group for group in groups if state(group, prune_skip=prune_skip) == name]
        units = sum(group.size for group in found)
        _text(legend, MARGIN + 32, low + 13, f"{words}: {_plural(len(found), 'group')}, {_plural(units, 'unit')}")
    for number, (kind, words) in enumerate((("", "feeds"), ("back", "feeds, back into a group that began earlier"))):
        low = top + 18 * (len(STATES) + number) + 9
        line = {"class": f"edge {kind}".strip(), "d": f"M{MARGIN} {low} H{MARGIN + 22}"}
        ElementTree.SubElement(legend, "path", line | {"marker-end": f"url(#{kind}head)"})
        key = "; 1 → 3 in a box: made by one layer, read by three" if not kind else ""
        _text(legend, MARGIN + 32, low + 4, words + key)


def _marker(parent: ElementTree.Element, name: str) -> None:
    shape = {"id": name, "viewBox": "0 0 8 8", "refX": "7", "refY": "4", "orient": "auto"}
    size = {"markerWidth": "6", "markerHeight": "6", "markerUnits": "userSpaceOnUse"}
    marker = ElementTree.SubElement(parent, "marker", shape | size)
    ElementTree.SubElement(marker, "path", {"class": name, "d": "M0 0 L8 4 L0 8 z"})


def _text(parent: ElementTree.Element, x: float, y: float, text: str, kind: str = "") -> ElementTree.Element:
    element = ElementTree.SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}"} | ({"class": kind} if kind else {}))
    element.text = _clean(text)
    return element


def _steps(groups: Sequence[Group]) -> int:
    """The width of a box that holds the longest words: an odd number of steps."""
    longest = max((max(7 * len(group.name), 6.2 * len(_units(group)) + 52) for group in groups), default=0)
    return max(13, int((longest + 18) / STEP) // 2 * 2 + 1)


def _units(group: Group) -> str:
    held = sum(group.held.values())
    words = {"pinned": ", pinned", "skip": ", skip"}.get(state(group), "")
    return f"{_plural(group.size, 'unit')}{words}" + (f", {held} held" if held else "")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _clean(text: str) -> str:
    """`text` with what XML cannot hold replaced."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
