"""Training with and without in-training slimming: step times at growing channel sparsity, masked and cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chase.benchmarks.campaign.runner import Job, Rows
from chase.benchmarks.memory import GpuMemory
from chase.benchmarks.statistics import speedup
from chase.benchmarks.steps import Trainee, Workload, best_ms
from chase.benchmarks.timing import interleave, watch_for
from chase.counting import Cost, cost, masked_macs
from chase.runtimes.base import resolve_device, torch_settings
from chase.slimming.groups import Group
from chase.slimming.tracer import channel_groups
from chase.sparse import Chase, Method

STEPS = 1_000_000
VARIANTS = {"masked": None, "compacted": 1, "compacted-to8": 8}
"""What is timed beside the dense network: the grid of the widths that dead channels are cut to, None for no cut."""


def method(channel_sparsity: float, *, prune_skip: bool) -> Method:
    """Chase whose only event, after the first step, removes all channels at once."""
    return Chase(
        sparsity=0.9,
        channel_sparsity=channel_sparsity,
        prune_skip=prune_skip,
        update_every=0,
        stop=1 / STEPS,
        round_to=1,
    )


@dataclass(frozen=True)
class Variant:
    """A network whose steps are timed, and what is known of it."""

    name: str
    trainee: Trainee
    macs: Mapping[str, int]
    memory: GpuMemory | None
    compaction_ms: float | None = None


@dataclass(frozen=True)
class Slimming:
    """One network at several channel sparsities; a piece is one of them."""

    work: Workload
    sparsities: tuple[float, ...]
    prune_skip: bool
    seconds: float

    def settings(self) -> dict[str, Any]:
        """What decides the result."""
        facts = {"sparsities": list(self.sparsities), "prune_skip": self.prune_skip, "seconds": self.seconds}
        return {"work": self.work.to_dict()} | facts

    def run(self, job: Job) -> Iterator[Rows]:
        """Rows of the dense network and of each variant, timed in turn, one channel sparsity after the other."""
        with torch_settings():
            model, example = self.work.build(), self.work.example()
            spent, groups = cost(model, example), channel_groups(model, example)
            dense = self._dense(spent)
            for channel_sparsity in self.sparsities:
                job.check()
                variants = [dense, *(self._variant(name, channel_sparsity, spent, groups) for name in VARIANTS)]
                yield self._rows(variants, channel_sparsity)

    def _dense(self, spent: Cost) -> Variant:
        trainee, memory = self._made(lambda: Trainee(self.work))
        return Variant("dense", trainee, dict.fromkeys(("theoretical", "gpu_supported", "dense"), spent.macs), memory)

    def _variant(self, name: str, channel_sparsity: float, spent: Cost, groups: tuple[Group, ...]) -> Variant:
        chosen = method(channel_sparsity, prune_skip=self.prune_skip)
        watch, took = watch_for(resolve_device(self.work.device)), list[float]()

        def make() -> Trainee:
            trainee = Trainee(self.work, chosen, steps=STEPS, groups=groups)
            trainee.step()  # after which the channels are gone
            if (grid := VARIANTS[name]) is not None:
                took.append(1000 * watch.sample(lambda: trainee.sparsifier.compact(round_to=grid)).host)
            return trainee

        trainee, memory = self._made(make)
        masks = trainee.sparsifier.masks
        executed = spent.macs_of({weight: mask.numel() for weight, mask in masks.weights.items()})
        macs = masked_macs(spent, masks).to_dict() | {"gpu_supported": executed}
        return Variant(name, trainee, macs, memory, compaction_ms=took[0] if took else None)

    def _made(self, make: Callable[[], Trainee]) -> tuple[Trainee, GpuMemory | None]:
        """A network after its first step, and what it takes of a GPU."""
        device = resolve_device(self.work.device)
        if device.type != "cuda":
            trainee = make()
            trainee.step()
            return trainee, None
        memory = GpuMemory(device)
        with memory.watched():
            trainee = make()
        with memory.watched():
            trainee.step()
        return trainee, memory

    def _rows(self, variants: list[Variant], channel_sparsity: float) -> Rows:
        found = interleave(
            {variant.name: variant.trainee.step for variant in variants},
            watch=watch_for(resolve_device(self.work.device)),
            warmup_s=self.seconds / 4,
            budget_s=self.seconds * len(variants),
        )
        samples = {name: list(best_ms(series)) for name, series in found.items()}
        shared = {"channel_sparsity": channel_sparsity, "prune_skip": self.prune_skip, "work": self.work.to_dict()}
        return [
            {
                "variant": variant.name,
                "macs": dict(variant.macs),
                "mac_ratio": variant.macs["dense"] / variant.macs["gpu_supported"],
                "samples_ms": samples[variant.name],
                "speedup_vs_dense": None
                if variant.name == "dense"
                else speedup(samples["dense"], samples[variant.name]),
                "compaction_ms": variant.compaction_ms,
                "peak_memory_bytes": variant.memory.peak_bytes if variant.memory else None,
                **shared,
            }
            for variant in variants
        ]
