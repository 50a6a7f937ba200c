"""Peak memory: of a GPU by its counters, of main memory in a process that does nothing else.

    python -m chase.benchmarks.memory slim.onnx --batch-size 1 --batch-size 32

prints how many bytes the peak grew by at each batch size. In the process that measures all candidates in turn, what
one of them takes would be hidden by what another has freed, so main memory is looked at in a child.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from chase.artifact import Artifact
from chase.benchmarks.children import MEGABYTE, cost
from chase.runtimes import load_source, open_runtime

CALLS = 3
SECONDS = 600.0


class GpuMemory:
    """What one candidate takes of a GPU that it shares with others in this process: `peak_bytes` is what it keeps,
    what torch held for it at the worst moment of the last block, and what libraries took beside torch.

    Other programs that take or free memory of this GPU in the meantime would be counted as well.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak_bytes = 0
        self._device = device
        self._kept = 0  # by torch
        self._beside = 0  # by other libraries

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count what the block takes."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        allocated, beside = self._now()
        yield
        torch.cuda.synchronize(self._device)
        worst = torch.cuda.max_memory_allocated(self._device) - allocated
        after, beside_after = self._now()
        self._beside += max(0, beside_after - beside)
        self.peak_bytes = self._kept + worst + self._beside
        self._kept += after - allocated

    def _now(self) -> tuple[int, int]:
        """Bytes that torch has allocated, and bytes in use that are not torch's."""
        free, total = torch.cuda.mem_get_info(self._device)
        reserved = torch.cuda.memory_reserved(self._device)
        return torch.cuda.memory_allocated(self._device), total - free - reserved


def resident_peaks(path: Path, *, runtime: str, batch_sizes: Sequence[int], threads: int) -> dict[int, int]:
    """By how many bytes the peak of main memory grows when a process opens a file and runs it, by batch size.

    Nothing where it fails, and where the system does not tell (outside Linux).
    """
    command = [sys.executable, "-m", "chase.benchmarks.memory", str(path), "--runtime", runtime]
    command += [f"--threads={threads}", *(f"--batch-size={size}" for size in batch_sizes)]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, env=env)
        if done.returncode == 0:
            last = done.stdout.splitlines()[-1]
            return {int(size): found for size, found in json.loads(last).items() if found is not None}
    return {}


def grown(path: Path, *, runtime: str | None, batch_sizes: Sequence[int], threads: int) -> dict[int, int | None]:
    """By how many bytes the peak of this process grows, by batch size; None where the system does not tell.

    The library is loaded before, and so not counted.
    """
    torch.set_num_threads(threads)
    source = load_source(path)
    found: dict[int, int | None] = {}
    for size in (min(batch_sizes), *batch_sizes):
        x = torch.randn(size, *source.input_shape, generator=torch.Generator().manual_seed(0))
        x = source.encode(x) if isinstance(source, Artifact) else x
        spent: dict[str, Any] = {}
        with cost(spent), open_runtime(source, runtime=runtime, threads=threads) as opened:
            for _ in range(CALLS):
                opened.run(x)
        found[size] = None if spent["extra_mb"] is None else round(spent["extra_mb"] * MEGABYTE)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line of JSON: bytes by batch size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--runtime")
    parser.add_argument("--batch-size", type=int, action="append", required=True, help="repeatable")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    found = grown(args.file, runtime=args.runtime, batch_sizes=args.batch_size, threads=args.threads)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
