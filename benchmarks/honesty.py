"""Honesty: does the benchmark see differences where there are none, or miss one that is there?

    python -m chase.benchmarks.honesty --json honesty.json

Short runs of one network, the same network again, and a twin with a tenth more of the same layers, all opened anew in
each run and timed in turn as `chase bench` does. "The same" found to differ is a false alarm; the twin not found to
be slower is a miss. Verdicts by the host's clock are counted beside those by the clock that the benchmark chooses.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chase.benchmarks.candidates import Candidate, find_candidates
from chase.benchmarks.environment import environment, environment_after
from chase.benchmarks.measure import measure, open_entry
from chase.benchmarks.statistics import speedup
from chase.errors import ChaseError
from chase.exporters import export
from chase.files import write_json
from chase.runtimes.base import torch_settings

LAYERS, MORE = 20, 22
SIDE, WIDTH = 16, 32
SECONDS = 0.7
CPU = torch.device("cpu")


def network(layers: int) -> nn.Module:
    """Equal convolutions in a row, beside which the first and the last layer cost nothing."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, WIDTH, 1)]
    for _ in range(layers):
        parts += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10)).eval()


def candidates(runtime: str, folder: Path) -> list[Candidate]:
    """The network, itself again, and its slower twin, on one runtime."""
    example = torch.zeros(1, 3, SIDE, SIDE)
    models: list[Any] = [network(LAYERS), network(LAYERS), network(MORE)]
    if runtime == "onnxruntime":
        models = [
            export(model, folder / f"{position}.onnx", example=example, isolated=False)
            for position, model in enumerate(models)
        ]
    return find_candidates(list(zip(("first", "same", "slower"), models, strict=True)), example=example)


def one_run(tried: Sequence[Candidate], *, seconds: float, seed: int) -> dict[str, Any]:
    """The verdicts of one short run in which every candidate is opened anew."""
    with torch_settings(1), contextlib.ExitStack() as stack:
        entries = [open_entry(candidate, CPU, stack) for candidate in tried]
        first, same, slower = measure(entries, 1, budget_s=seconds, seed=seed)
    host = [speedup(first["samples_ms"], each["samples_ms"], seed=seed)["verdict"] for each in (same, slower)]
    facts = ("median", "ci95", "verdict", "clock")
    return {
        "rounds": len(first["samples_ms"]),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "same": {name: same["speedup_vs_dense"][name] for name in facts} | {"host_verdict": host[0]},
        "slower": {name: slower["speedup_vs_dense"][name] for name in facts} | {"host_verdict": host[1]},
    }


def counted(runtime: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of one runtime: false alarms and finds, by the chosen clock and by the host's."""
    alarms = [[run["same"][name] for run in runs] for name in ("verdict", "host_verdict")]
    finds = [[run["slower"][name] for run in runs] for name in ("verdict", "host_verdict")]
    return {
        "runtime": runtime,
        "runs": len(runs),
        "false_alarms": sum(each != "no difference" for each in alarms[0]),
        "found": sum(each == "slower" for each in finds[0]),
        "host_false_alarms": sum(each != "no difference" for each in alarms[1]),
        "host_found": sum(each == "slower" for each in finds[1]),
        "results": list(runs),
    }


def rows(runtimes: Sequence[str], *, runs: int, seconds: float) -> Iterator[dict[str, Any]]:
    """What became of all runs on each runtime."""
    for runtime in runtimes:
        with tempfile.TemporaryDirectory() as folder:
            tried = candidates(runtime, Path(folder))
            yield counted(runtime, [one_run(tried, seconds=seconds, seed=seed) for seed in range(runs)])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write JSON."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=100, help="on each runtime")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each candidate in a run")
    parser.add_argument("--runtime", action="append", choices=("eager", "onnxruntime"), help="repeatable; default both")
    args = parser.parse_args(argv)
    try:
        before = environment() | {"threads": 1}
        found = list(rows(args.runtime or ("eager", "onnxruntime"), runs=args.runs, seconds=args.seconds))
        command = ["python", "-m", "chase.benchmarks.honesty", *argv]
        settings = {"layers": [LAYERS, MORE], "width": WIDTH, "side": SIDE, "seconds": args.seconds}
        content = {"environment": environment_after(before), "command": command, "settings": settings, "rows": found}
        write_json(args.json, content)
    except ChaseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
