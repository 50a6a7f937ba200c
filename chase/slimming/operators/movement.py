"""Operators that move elements: views, permutations, slices, concatenation, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from chase.slimming.operators.rule import Flow, argument, labelled, same_or_unknown, without_axes
from chase.slimming.units import NO_UNIT, UNKNOWN, Axis, Labels
from chase.tracing import operator, place, shape

AS_OTHER = {"aten.view_as": "reshape", "aten.reshape_as": "reshape", "aten.expand_as": "expand"}


def moves(flow: Flow, node: fx.Node) -> Labels | tuple[Labels | None, ...] | None:
    """Only moves elements: run the operator itself on the position that each element has along a labelled axis."""
    source = flow.labels(node.args[0])
    if operator(node) in AS_OTHER and (name := flow.tensor_name(node.args[1])) is not None:
        flow.ledger.explained.add(name)  # only its shape is asked for
    if source is None:
        return None
    parts: list[dict[int, Axis]] = [{} for _ in _result_shapes(node)]
    for axis, (ids, value) in source.axes.items():
        places = _places(source.shape, axis)
        moved = _moved(node, places)
        if sum(part.numel() for part in moved) < places.numel() and len(_positions(moved)) < len(ids):
            flow.ledger.pin_all(ids, _fixed(node))
            continue
        for part, result in zip(parts, moved, strict=True):
            part.update({a: Axis(units, value) for a, units in _relabelled(flow, node, ids, result).items()})
    labels = tuple(labelled(sides, part) for sides, part in zip(_result_shapes(node), parts, strict=True))
    return labels if isinstance(node.meta["val"], list | tuple) else labels[0]


def _places(sides: tuple[int, ...], axis: int) -> Tensor:
    """The position of every element along an axis, int64 [*sides], without memory of its own."""
    column = [1] * len(sides)
    column[axis] = sides[axis]
    return torch.arange(sides[axis]).view(column).expand(sides)


def _positions(moved: Sequence[Tensor]) -> Tensor:
    positions: Tensor = torch.cat([part.flatten() for part in moved]).unique()
    return positions


def _result_shapes(node: fx.Node) -> list[tuple[int, ...]]:
    value = node.meta["val"]
    return [tuple(map(int, part.shape)) for part in (value if isinstance(value, list | tuple) else [value])]


def _moved(node: fx.Node, places: Tensor) -> list[Tensor]:
    """The operator's result on `places`, as a list."""
    if (name := AS_OTHER.get(operator(node))) is not None:
        as_other: Tensor = getattr(places, name)(shape(node))
        return [as_other]
    # `places` has strides of 0, which a view of the real activation does not have to cope with.
    move: Any = torch.ops.aten.reshape if operator(node) in ("aten.view", "aten._unsafe_view") else node.target
    result = move(places, *node.args[1:], **node.kwargs)
    moved: list[Tensor] = list(result) if isinstance(result, list | tuple) else [result]
    return moved


def _relabelled(flow: Flow, node: fx.Node, ids: Tensor, places: Tensor) -> dict[int, Tensor]:
    """The axis that the positions `places` vary along now, with its units; where there are several, units are tied."""
    varying = [axis for axis in range(places.ndim) if _varies(places, axis)]
    if not varying:
        return {}
    if len(varying) > 1 and not flow.guesses(ids):  # [groups, channels of each], or [channels, groups]?
        flow.ledger.pin_all(ids, f"is split by {place(node)} into sizes that do not follow its width")
        return {}
    axis = varying[0] if len(varying) == 1 else flow.chosen_axis(node, varying)
    others = [other for other in varying if other != axis]
    rows = places.permute([axis, *others, *(d for d in range(places.ndim) if d not in varying)])
    rows = rows.reshape(places.shape[axis], *(places.shape[d] for d in others), -1)[..., 0]
    rows = rows.reshape(places.shape[axis], -1)
    for column in rows.T[1:]:
        flow.ledger.tie(ids[rows[:, 0]], ids[column])
    return {axis: ids[rows[:, 0]]}


def becomes_heads(node: fx.Node, axis: int) -> bool:
    """Whether an axis of a node's result is that of the heads in an attention further on."""
    if shape(node)[axis : axis + 1] in ((), (1,)):
        return False
    return any(_reaches_heads(user, node, _places(shape(node), axis)) for user in node.users)


def _reaches_heads(node: fx.Node, source: fx.Node, places: Tensor) -> bool:
    """Follow positions through operators that move elements or keep the shape, up to an attention."""
    if operator(node) == "aten.scaled_dot_product_attention":
        return places.ndim == 4 and [axis for axis in range(4) if _varies(places, axis)] == [1]
    if node.args[0] is not source or not isinstance(node.meta.get("val"), Tensor | list | tuple):
        return False
    if operator(node) in HEADS_PASS:
        moved = _moved(node, places)
        if isinstance(node.meta["val"], Tensor):
            return any(_reaches_heads(user, node, moved[0]) for user in node.users)
        picked = [(user, moved[user.args[1]]) for user in node.users if operator(user) == "getitem"]  # type: ignore[index]
        return any(_reaches_heads(user, item, part) for item, part in picked for user in item.users)
    kept = shape(node) == tuple(places.shape)
    return kept and any(_reaches_heads(user, node, places) for user in node.users)


HEADS_PASS = {"aten.view", "aten.reshape", "aten.permute", "aten.transpose", "aten.unbind", "aten.select"}


def _varies(places: Tensor, axis: int) -> bool:
    if places.shape[axis] < 2 or places.stride(axis) == 0:
        return False
    return not bool((places == places.narrow(axis, 0, 1)).all())


def chunks(flow: Flow, node: fx.Node) -> tuple[Labels | None, ...]:
    """chunk(input, n, dim): along the channels, each of the n parts keeps equally many."""
    return _in_parts(flow, node, lambda ids: True, f"is cut unevenly by {operator(node)}")


def splits(flow: Flow, node: fx.Node) -> tuple[Labels | None, ...]:
    """split(input, sizes, dim): channels along `dim` stay, unless parts of one size follow the width."""
    return _in_parts(flow, node, flow.guesses, _fixed(node))


def _in_parts(flow: Flow, node: fx.Node, follow: Callable[[Tensor], bool], reason: str) -> tuple[Labels | None, ...]:
    """Parts of one size, if they `follow` the width of these units; else the channels are held."""
    source, sizes = flow.labels(node.args[0]), _result_shapes(node)
    axis = argument(node, 2, "dim", 0) % len(sizes[0])
    if source is not None and axis in source.axes:
        even = len({sides[axis] for sides in sizes}) == 1
        if not (even and follow(source.axes[axis].ids)):
            source = without_axes(flow, source, [axis], reason)
    return tuple(_parts(flow, source, axis, sizes))


def slices(flow: Flow, node: fx.Node) -> Labels | tuple[Labels | None, ...] | None:
    """slice(input, dim, start, end, step): channels along `dim` stay, unless the bounds follow the width."""
    source = flow.labels(node.args[0])
    axis = argument(node, 1, "dim", 0) % len(shape(node))
    if source is None or axis not in source.axes or shape(node) == source.shape:
        return moves(flow, node)
    (ids, value), size = source.axes[axis], source.shape[axis]
    start, end, _ = slice(argument(node, 2, "start"), argument(node, 3, "end")).indices(size)
    part = math.gcd(start, end, size)
    if argument(node, 4, "step", 1) != 1 or part == 1 or not flow.guesses(ids):
        return without_axes(flow, source.shaped(shape(node)), [axis], _fixed(node))
    flow.ledger.balance(ids.split(part))
    return Labels(shape(node), {**source.axes, axis: Axis(ids[start:end], value)})


def _fixed(node: fx.Node) -> str:
    return f"is cut at fixed positions by {place(node)}"


def _parts(flow: Flow, source: Labels | None, axis: int, sizes: list[tuple[int, ...]]) -> Iterator[Labels | None]:
    if source is None:
        yield from (None for _ in sizes)
        return
    if axis not in source.axes:
        yield from (source.shaped(sides) for sides in sizes)
        return
    ids, value = source.axes[axis]
    pieces = ids.split([sides[axis] for sides in sizes])
    flow.ledger.balance(pieces)
    for sides, piece in zip(sizes, pieces, strict=True):
        yield Labels(sides, {**source.axes, axis: Axis(piece, value)})


def unbinds(flow: Flow, node: fx.Node) -> tuple[Labels | None, ...]:
    """unbind(input, dim): channels along `dim` would each be a tensor of its own, so they stay."""
    results = _result_shapes(node)
    axis = argument(node, 1, "dim", 0) % (len(results[0]) + 1)
    source = without_axes(flow, flow.labels(node.args[0]), [axis], f"is taken apart by {operator(node)}")
    axes = {a - (a > axis): entry for a, entry in source.axes.items()} if source is not None else {}
    return tuple(labelled(sides, axes) for sides in results)


def rolls(flow: Flow, node: fx.Node) -> Labels | None:
    """roll(input, shifts, dims): shifting by a fixed number of channels holds them."""
    source = flow.labels(node.args[0])
    dims = argument(node, 2, "dims") or range(len(shape(node)))
    return without_axes(flow, source, [d % len(shape(node)) for d in dims], "is shifted by aten.roll")


def pixel_shuffle(flow: Flow, node: fx.Node) -> Labels | None:
    """pixel_shuffle(input [..., c · r², h, w], r): the r² channels that make one become one unit."""
    source, factor = flow.labels(node.args[0]), argument(node, 1, "upscale_factor") ** 2
    if source is None:
        return None
    axis = len(source.shape) - 3
    source = without_axes(flow, source, {axis + 1, axis + 2}, "runs along space at aten.pixel_shuffle")
    if source is None or axis not in source.axes:
        return source and source.shaped(shape(node))
    ids, value = source.axes[axis]
    rows = ids.view(-1, factor)
    for column in rows.T[1:]:
        flow.ledger.tie(rows[:, 0], column)
    return Labels(shape(node), {**source.axes, axis: Axis(rows[:, 0], value)})


def concat(flow: Flow, node: fx.Node) -> Labels | None:
    """cat(tensors, dim): channels stand one after the other; along other axes they are tied."""
    tensors: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    axis = argument(node, 1, "dim", 0) % len(shape(node))
    return _joined(flow, node, [(flow.labels(t), shape(t)) for t in tensors], axis)


def stack(flow: Flow, node: fx.Node) -> Labels | None:
    """stack(tensors, dim): a new axis without channels; along the others they are tied."""
    tensors: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    axis = argument(node, 1, "dim", 0) % len(shape(node))
    return _joined(flow, node, [_unsqueezed(flow.labels(t), shape(t), axis) for t in tensors], axis)


def _unsqueezed(labels: Labels | None, sides: tuple[int, ...], axis: int) -> tuple[Labels | None, tuple[int, ...]]:
    grown = (*sides[:axis], 1, *sides[axis:])
    if labels is None:
        return None, grown
    return Labels(grown, {a + (a >= axis): entry for a, entry in labels.axes.items()}), grown


def _joined(flow: Flow, node: fx.Node, inputs: list[tuple[Labels | None, tuple[int, ...]]], axis: int) -> Labels | None:
    inputs = [(labels, sides) for labels, sides in inputs if len(sides) == len(shape(node))]  # not a legacy empty one
    axes: dict[int, Axis] = {}
    for number in {a for labels, _ in inputs if labels for a in labels.axes} - {axis}:
        found = [labels.axes.get(number) if labels else None for labels, _ in inputs]
        carried = [entry for entry in found if entry is not None]
        for entry in carried[1:]:
            flow.ledger.tie(carried[0].ids, entry.ids)
        if len(carried) == len(inputs):
            axes[number] = Axis(carried[0].ids, same_or_unknown(entry.value for entry in carried))
        else:
            flow.ledger.pin_all(carried[0].ids, f"meets something that is not a channel at {place(node)}")
    found = [labels.axes.get(axis) if labels else None for labels, _ in inputs]
    if any(entry is not None for entry in found):
        ids = [entry.ids if entry else torch.full((sides[axis],), NO_UNIT)
               for entry, (_, sides) in zip(found, inputs, strict=True)]  # fmt: skip
        axes[axis] = Axis(torch.cat(ids), same_or_unknown(entry.value for entry in found if entry))
    return labelled(shape(node), axes)


def pads(flow: Flow, node: fx.Node) -> Labels | None:
    """pad(input, [before, after, ...] from the last axis on, mode, value): what is added has no unit."""
    source = flow.labels(node.args[0])
    named, rank = operator(node), len(shape(node))
    constant = named != "aten.pad" or argument(node, 2, "mode", "constant") == "constant"
    fill = argument(node, 3 if named == "aten.pad" else 2, "value", 0) or 0
    amounts: list[int] = list(node.args[1])  # type: ignore[arg-type]
    around = {rank - 1 - step: amounts[2 * step : 2 * step + 2] for step in range(len(amounts) // 2)}
    bad = [axis for axis, ends in around.items() if any(ends) and (not constant or min(ends) < 0)]
    source = without_axes(flow, source, bad, f"is padded by {named}")
    axes = {}
    for number, (ids, value) in (source.axes if source else {}).items():
        grown = torch.nn.functional.pad(ids, around.get(number, [0, 0]), value=NO_UNIT)
        framed = constant and any(max(ends) > 0 for axis, ends in around.items() if axis != number)
        axes[number] = Axis(grown, UNKNOWN if framed and fill != value else value)
    return labelled(shape(node), axes)
