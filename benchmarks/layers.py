"""Layers: where time goes beside where multiplications are, and in words where it is wasted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

ALIGNMENT = 8
"""What widths should be a multiple of: tensor cores want 8 in fp16."""

BLOCKED, BLOCK = "Conv (blocked)", 4
"""ONNX Runtime's fast convolutions on a CPU, and what the width of their input must be a multiple of."""

REST = "(between layers)"
ROUNDS = 20
WASTE = 0.02  # of the time more than of the MACs makes a layer worth naming

Layer = dict[str, Any]
Widths = dict[str, tuple[int, int]]
"""Input and output channels of the layers with weights, in the order in which data meets them."""


def typical(spent: Sequence[float]) -> float:
    """The lower quartile: what else runs on the machine only makes a layer slower."""
    return sorted(spent)[len(spent) // 4]


def rows(times: Mapping[str, float], ops: Mapping[str, str], macs: Mapping[str, int], widths: Widths) -> list[Layer]:
    """The rows of a profile, in the order of `times` (ms).

    {"layer", "op", "macs" (of the whole batch), "share_of_macs", "ms", "share_of_time", "width" (input and output
    channels), "aligned" (whether they are multiples of ALIGNMENT; those of the images and the classes do not count)}.
    What has no weight has no MACs, width and alignment.
    """
    whole, all_macs = sum(times.values()), sum(macs.values())
    first, last = next(iter(widths), ""), next(reversed(widths), "")
    found: list[Layer] = []
    for name, spent in times.items():
        width = list(widths[name]) if name in widths else None
        free = width and width[name == first : -1 if name == last else None]  # images and classes are as they are
        found.append(
            {
                "layer": name,
                "op": ops[name],
                "macs": macs.get(name),
                "share_of_macs": macs[name] / all_macs if name in macs and all_macs else None,
                "ms": spent,
                "share_of_time": spent / whole,
                "width": width,
                "aligned": None if free is None else all(each % ALIGNMENT == 0 for each in free),
            }
        )
    return found


def wasteful(profile: Sequence[Mapping[str, Any]], *, most: int = 3) -> list[str]:
    """Where time is spent on other things than multiplying, worst first, in words; widths that are the cause are named.

    Names up to `most` layers whose share of the time is above their share of the MACs.
    """
    layers = [row for row in profile if row["macs"]]
    extra = {row["layer"]: row["share_of_time"] - row["share_of_macs"] for row in layers}
    worst = sorted(layers, key=lambda row: -extra[row["layer"]])[:most]
    said = [_waste(row) for row in worst if extra[row["layer"]] > WASTE]
    return [*said, *_unblocked(layers), *_between(profile), *_unaligned(layers)]


def _waste(row: Mapping[str, Any]) -> str:
    shares = f"{100 * row['share_of_time']:.1f} % of the time for {100 * row['share_of_macs']:.1f} % of the MACs"
    odd = "" if row["aligned"] in (None, True) else f", not multiples of {ALIGNMENT}"
    widths = f" ({' → '.join(map(str, row['width']))} channels{odd})" if row["width"] else ""
    return f"{row['layer']} takes {shares}{widths}"


def _unblocked(layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Convolutions that ONNX Runtime runs slowly because of their widths."""
    convolutions = [row for row in layers if row["op"] in ("Conv", "FusedConv", BLOCKED)]
    odd = [row for row in convolutions if row["op"] != BLOCKED and row["width"][0] % BLOCK]
    if odd and any(row["op"] == BLOCKED for row in convolutions):  # else this processor may have none
        yield (
            f"{len(odd)} of {len(convolutions)} convolutions do not run in blocks of channels, "
            f"for which their input must be a multiple of {BLOCK} wide"
        )


def _between(profile: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    moved = [row["share_of_time"] for row in profile if row["op"].startswith("Reorder")]
    if sum(moved) > WASTE:
        yield f"{len(moved)} reorderings between layouts of the data take {100 * sum(moved):.1f} % of the time"


def _unaligned(layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What layers with odd widths cost, per multiplication, beside the others of the same operator."""
    odd = [row for row in layers if row["aligned"] is False]
    even = [row for row in layers if row["aligned"] is True]
    if not odd:
        return
    text = f"{len(odd)} of {len(odd) + len(even)} layers have widths that are not multiples of {ALIGNMENT}"
    if even:
        first, second = (sum(row["ms"] for row in some) / sum(row["macs"] for row in some) for some in (odd, even))
        text += f" and take {first / second:.2f} × the time of the others for each multiplication"
    yield f"{text}; slim with --round-to {ALIGNMENT}"
