"""What a training gains by being compacted on its way: `python -m chase.benchmarks.slimming_training --out FILE`.

The 160-epoch CIFAR schedule (62,560 steps, cubic to half of the channels at epoch 130) is replayed in short: two copies
of a network train on the same random batches in turn, one masked, one compacted at the best of few moments (a training
chooses about three times as many, since cutting costs less than a step). Between two compactions all steps cost the
same, so a few are timed and stand for their stretch of the schedule. Times are processor time on one thread; before the
first compaction both copies are equal, which gives the noise floor.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from chase.benchmarks.environment import environment
from chase.compaction import GRID, cheapest, evenly, macs_if_even
from chase.counting import Cost, cost, masked_macs
from chase.files import write_json
from chase.models import build
from chase.sparse import Chase, Event, Method, Sparsifier, plan

STEPS = 160 * 391
PRICE = 500
"""The price of a compaction, in steps, at which this schedule is left with three to six of them."""


@dataclass(frozen=True)
class Case:
    """A network and how its channels leave: by their scores ("umm"), or the same share of every layer ("even")."""

    model: str
    batch_size: int
    target: float
    allocation: str = "umm"
    channels_last: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        """Chase, as on CIFAR in the paper; weights stay where they are, since their events cost the same either way."""
        channels: dict[str, Any] = {"channel_sparsity": 0.5, "channel_every": 1000, "stop": 0.8125, "round_to": 1}
        return Chase(sparsity=0.9, update_every=0, **channels, **self.settings)


BY_LAYER = {"normalise": "layer"}
SKIP = {"prune_skip": True}
CASES = (
    *(Case("vgg19", 32, 0.48, channels_last=layout, settings=BY_LAYER) for layout in (False, True)),
    *(Case("vgg19", 32, 0.48, name, channels_last=True) for name in ("umm", "even")),
    *(Case("cifar-resnet18", 32, 0.70, channels_last=layout, settings=SKIP) for layout in (False, True)),
    Case("cifar-resnet18", 32, 0.70, channels_last=True, settings=SKIP | BY_LAYER),
    Case("cifar-resnet50", 8, 0.80, channels_last=True, settings={"min_channel_ratio": 0.5}),
    Case("cifar-resnet50", 8, 0.80, channels_last=True, settings=BY_LAYER),
)


class Copy:
    """A network in training, masked or compacted."""

    def __init__(self, model: nn.Module, method: Method) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
        example = torch.zeros(1, 3, 32, 32)
        self.sparsifier = Sparsifier(model, self.optimizer, method, steps=STEPS, example=example)
        self.sparsifier.events.clear()
        self.widths = self.sparsifier.masks.widths()

    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """Train on a batch; the processor seconds that it took."""
        start = time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.model(x), y).backward()
        self.optimizer.step()
        return time.process_time() - start

    def remove(self, channel_sparsity: float, allocation: str) -> None:
        """Let channels die, by an event after the next step or the same share everywhere."""
        sparsifier, masks = self.sparsifier, self.sparsifier.masks
        if allocation == "umm":
            step = sparsifier.step + 1
            sparsifier.events[step] = Event(step, channel_sparsity=channel_sparsity)
            return
        widths = {name: round(width * (1 - channel_sparsity)) for name, width in self.widths.items()}
        masks.alive |= evenly(masks.groups, sparsifier.method, widths)
        masks.bury()


def replay(case: Case, *, rounds: int) -> dict[str, Any]:
    """The time of each stretch of the schedule, compacted over masked, and of the whole."""
    torch.manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model = build(case.model, num_classes=100).to(memory_format=layout)
    spent = cost(model, torch.zeros(1, 3, 32, 32))
    masked, cut = Copy(copy.deepcopy(model), case.method), Copy(model, case.method)
    groups = cut.sparsifier.masks.groups
    sparsities = {event.step: event.channel_sparsity or 0.0 for event in plan(case.method, STEPS)}
    macs = macs_if_even(model, groups, spent, case.method, [1 - sparsity for sparsity in sparsities.values()])
    at = cheapest([*sparsities], [count / spent.macs for count in macs], steps=STEPS, price=PRICE)
    rows = [_stretch(masked, cut, spent, case, rounds=rounds)]
    for step in at:
        seconds = _compact(masked, cut, sparsities[step], case)
        row = _stretch(masked, cut, spent, case, rounds=rounds)
        rows.append({"step": step, "channel_sparsity": sparsities[step], "compaction_s": seconds, **row})
    return {**asdict(case), **_whole(at, rows), "rows": rows}


def _stretch(masked: Copy, cut: Copy, spent: Cost, case: Case, *, rounds: int) -> dict[str, Any]:
    """Steps of both copies in turn, after one of the compacted that meets its new shapes."""
    times: list[tuple[float, float]] = []
    cut.step(*_batch(case))
    for number in range(rounds):
        batch = _batch(case)
        first, second = (masked, cut) if number % 2 else (cut, masked)
        pair = first.step(*batch), second.step(*batch)
        times.append(pair if number % 2 else pair[::-1])
    return {
        "time_ratio": median(second / first for first, second in times),
        "macs_ratio": masked_macs(spent, cut.sparsifier.masks).gpu_supported / spent.macs,
        "masked_step_s": median(first for first, _ in times),
        "compacted_step_s": median(second for _, second in times),
    }


def _batch(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.randn(case.batch_size, 3, 32, 32), torch.randint(100, (case.batch_size,))
    return (x.contiguous(memory_format=torch.channels_last) if case.channels_last else x), y


def _compact(masked: Copy, cut: Copy, channel_sparsity: float, case: Case) -> float:
    """Let channels leave both copies and cut them out of one; the processor seconds of the cutting."""
    batch = _batch(case)
    for each in (masked, cut) if case.allocation == "umm" else (cut,):
        each.remove(channel_sparsity, case.allocation)
    for each in (masked, cut):
        each.step(*batch)
    start = time.process_time()
    cut.optimizer.zero_grad(set_to_none=True)
    cut.sparsifier.compact(round_to=GRID)
    return time.process_time() - start


def _whole(at: Sequence[int], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The schedule's steps, and what its compactions cost, as shares of the masked training."""
    ends = [*at, STEPS]
    compacted = sum(row["time_ratio"] * (end - start) for row, start, end in zip(rows[1:], at, ends[1:], strict=True))
    masked = STEPS * median(row["masked_step_s"] for row in rows)
    return {
        "compactions": len(at),
        "time_ratio": (at[0] + compacted) / STEPS,
        "compacting_share": sum(row["compaction_s"] for row in rows[1:]) / masked,
        "masked_over_masked": rows[0]["time_ratio"],
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=4, help="timed steps of each copy between two compactions")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [replay(case, rounds=args.rounds) for case in CASES]
    command = ["python", "-m", "chase.benchmarks.slimming_training", *(sys.argv[1:] if argv is None else argv)]
    write_json(args.out, {"environment": environment(), "command": command, "steps": STEPS, "rows": rows})


if __name__ == "__main__":
    main()
