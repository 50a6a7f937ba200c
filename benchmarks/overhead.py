"""What the Sparsifier costs an ordinary training step: `python -m chase.benchmarks.overhead --out FILE`.

Three copies of one network are trained on the same batch in turn: dense, dense again (A/A, the noise floor), and
sparse between two events. The masking itself is also timed alone, since on a shared machine it is far smaller than the
noise of whole steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chase.benchmarks.environment import environment
from chase.benchmarks.statistics import speedup, summary
from chase.benchmarks.timing import interleave
from chase.files import write_json
from chase.models import build
from chase.sparse import Chase, Sparsifier

STEPS = 1_000_000  # no event is reached while measuring


def training_step(name: str, batch: int, *, sparse: bool) -> tuple[Callable[[], None], Sparsifier | None]:
    """One step on random images [batch, 3, 32, 32], with fused SGD and momentum."""
    torch.manual_seed(0)
    model = build(name, num_classes=100).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(100, (batch,))
    method = Chase(sparsity=0.9, update_every=STEPS - 1, stop=1.0)
    sparsifier = Sparsifier(model, optimizer, method, steps=STEPS) if sparse else None

    def step() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    step()  # leaves gradients behind, which the masking alone is timed on
    return step, sparsifier


def measure(name: str, batch: int, *, seconds: float) -> dict[str, Any]:
    """Ratios of whole steps, sparse to dense and dense to dense, and the masking alone over a dense step."""
    dense, _ = training_step(name, batch, sparse=False)
    again, _ = training_step(name, batch, sparse=False)
    sparse, sparsifier = training_step(name, batch, sparse=True)
    assert sparsifier is not None
    runners = {"dense": dense, "again": again, "sparse": sparse}
    steps = {name: found.host_ms for name, found in interleave(runners, warmup_s=0.5, budget_s=seconds).items()}
    alone = interleave({"masking": sparsifier.mask_gradients}, warmup_s=0.2, budget_s=seconds / 10)
    masking = alone["masking"].host_ms
    step_ms, masking_ms = summary(steps["dense"])["p50"], summary(masking)["p50"]
    return {
        "model": name,
        "batch_size": batch,
        "dense_step_ms": step_ms,
        "masking_ms": masking_ms,
        "masking_share": masking_ms / step_ms,
        "sparse_over_dense": _slowdown(steps["dense"], steps["sparse"]),
        "dense_over_dense": _slowdown(steps["dense"], steps["again"]),
        "samples_ms": steps,
    }


def _slowdown(base: list[float], other: list[float]) -> dict[str, Any]:
    """The ratio other / base with its interval."""
    found = speedup(other, base)
    return {"median": found["median"], "ci95": found["ci95"]}


def main(argv: list[str] | None = None) -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="per network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", action="append", metavar="MODEL:BATCH", help="repeatable")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cases = [case.split(":") for case in args.case or ["cifar-resnet18:128", "cifar-resnet50:8", "vgg19:32"]]
    rows = [measure(name, int(batch), seconds=args.seconds) for name, batch in cases]
    command = ["python", "-m", "chase.benchmarks.overhead", *(sys.argv[1:] if argv is None else argv)]
    write_json(args.out, {"environment": environment(), "command": command, "rows": rows})


if __name__ == "__main__":
    main()
