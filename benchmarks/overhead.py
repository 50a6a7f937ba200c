"""What the Sparsifier costs an ordinary training step: `python -m chase.benchmarks.overhead --out FILE`.

Three copies of one network are trained on the same batch in turn: dense, dense again (A/A, the noise floor), and
sparse between two events. The masking itself is also timed alone, since on a shared machine it is far smaller than the
noise of whole steps, and beside it the same masks in every form that torch could apply them in. Of events, one that
prunes and grows is timed as what it adds to the optimizer's part of a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from chase.benchmarks.environment import environment
from chase.benchmarks.mask_forms import forms_of
from chase.benchmarks.memory import GpuMemory
from chase.benchmarks.statistics import summary
from chase.benchmarks.steps import AUTOCAST, Trainee, Workload, best_ms, slowdown
from chase.benchmarks.timing import Runner, Series, interleave, watch_for
from chase.files import write_json
from chase.runtimes.base import resolve_device, torch_settings
from chase.sparse import Chase, Sparsifier

CASES = ("cifar-resnet18:128", "vgg19:32", "cifar-resnet50:8", "resnet50:8@224")
STEPS = 1_000_000  # no event is reached while measuring
EVENTS = 10_000  # more than will be timed
BETWEEN = Chase(sparsity=0.9, update_every=STEPS - 1, stop=1.0)
EVERY = Chase(sparsity=0.9, update_every=1, stop=1.0)


def measure(work: Workload, *, seconds: float) -> dict[str, Any]:
    """Ratios of whole steps, sparse to dense and dense to dense; the masking alone over a dense step; one event.

    fp32 is not TF32. Milliseconds are those of `best_ms`.
    """
    with torch_settings():
        if work.compiled:
            torch.compiler.reset()  # it compiles the same code a few times at most
        trainees = {name: _trained(work, sparse=name == "sparse") for name in ("dense", "again", "sparse")}
        found = _timed(trainees, work, seconds=seconds)
        sparse = trainees["sparse"].sparsifier
        masking = interleave({"masking": sparse.mask_gradients}, **_given(work, seconds / 10, 0.2))["masking"]
        forms = _forms_ms(sparse, work, seconds / 5)
        event_ms = _event_ms(dataclasses.replace(work, compiled=False), seconds / 5)
        peaks = {name: _peak_bytes(work, sparse=name == "sparse") for name in ("dense", "sparse")}
    step_ms, masking_ms = (summary(best_ms(each))["p50"] for each in (found["dense"], masking))
    return {
        "model": work.model,
        "batch_size": work.batch_size,
        "work": work.to_dict(),
        "dense_step_ms": step_ms,
        "masking_ms": masking_ms,
        "masking_share": masking_ms / step_ms,
        "mask_forms_ms": forms,
        "event_ms": event_ms,
        "peak_memory_bytes": peaks,
        "sparse_over_dense": slowdown(found["dense"], found["sparse"]),
        "dense_over_dense": slowdown(found["dense"], found["again"]),
        "samples_ms": {name: list(best_ms(series)) for name, series in found.items()},
    }


def _trained(work: Workload, *, sparse: bool) -> Trainee:
    """A network after its first step, which leaves gradients behind that the masking alone is timed on."""
    trainee = Trainee(work, BETWEEN, steps=STEPS) if sparse else Trainee(work)
    trainee.step()
    return trainee


def _timed(trainees: dict[str, Trainee], work: Workload, *, seconds: float) -> dict[str, Series]:
    return interleave({name: each.step for name, each in trainees.items()}, **_given(work, seconds, 0.5))


def _given(work: Workload, budget_s: float, warmup_s: float) -> dict[str, Any]:
    return {"watch": watch_for(resolve_device(work.device)), "warmup_s": warmup_s, "budget_s": budget_s}


def _forms_ms(sparsifier: Sparsifier, work: Workload, seconds: float) -> dict[str, float]:
    """What masking takes in every form, with the gradients that are there."""
    parameters = dict(sparsifier.model.named_parameters())
    pairs = [(parameters[name].grad, mask) for name, mask in sparsifier.masks.weights.items()]
    gradients, masks = zip(*((grad, mask) for grad, mask in pairs if grad is not None), strict=True)
    found = interleave(forms_of(gradients, masks), **_given(work, seconds, 0.2))
    return {name: summary(best_ms(series))["p50"] for name, series in found.items()}


def _event_ms(work: Workload, seconds: float) -> float:
    """What one event adds to the optimizer's part of a step: masks pruned and grown, gradients kept for it."""
    trainees = {"event": Trainee(work, EVERY, steps=EVENTS), "none": Trainee(work, BETWEEN, steps=STEPS)}
    runners = {name: _update(each) for name, each in trainees.items()}
    found = interleave(runners, **_given(work, seconds, 0.2))
    with_event, without = (summary(best_ms(series))["p50"] for series in found.values())
    return float(with_event - without)


def _update(trainee: Trainee) -> Runner:
    """The optimizer's part of a step, with the same dense gradients each time: masking changes them in place."""
    gradients = trainee.gradients()
    dense = [gradient.clone() for gradient in gradients]

    def run() -> None:
        torch._foreach_copy_(gradients, dense)
        trainee.update()

    return run


def _peak_bytes(work: Workload, *, sparse: bool) -> int | None:
    """What a training takes of the GPU at its worst moment; None on a CPU."""
    device = resolve_device(work.device)
    if device.type != "cuda":
        return None
    memory = GpuMemory(device)
    with memory.watched():
        trainee = _trained(work, sparse=sparse)
    with memory.watched():
        trainee.step()
    return memory.peak_bytes


def _workload(case: str, shared: dict[str, Any]) -> Workload:
    """From MODEL:BATCH or MODEL:BATCH@SIDE."""
    model, _, images = case.rpartition(":")
    batch_size, _, side = images.partition("@")
    given = {"settings": {"num_classes": 100}, **shared}
    return Workload(model=model, batch_size=int(batch_size), side=int(side or 32), **given)


def main(argv: list[str] | None = None) -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="per network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", action="append", metavar="MODEL:BATCH[@SIDE]", help="repeatable; images of 32x32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", *AUTOCAST), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    shared = {name: getattr(args, name) for name in ("device", "precision", "channels_last", "compiled")}
    works = [_workload(case, shared) for case in args.case or CASES]
    rows = [measure(work, seconds=args.seconds) for work in works]
    command = ["python", "-m", "chase.benchmarks.overhead", *(sys.argv[1:] if argv is None else argv)]
    write_json(args.out, {"environment": environment(torch.device(args.device)), "command": command, "rows": rows})


if __name__ == "__main__":
    main()
