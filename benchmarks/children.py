"""Sweeps: one child process a case, so that a crash, a hang or too little memory is one row and not the end."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chase.benchmarks.environment import environment
from chase.benchmarks.zoo import ZOOS
from chase.errors import ChaseError
from chase.files import atomic, write_json
from chase.packages import installed

Row = dict[str, Any]
STAGE = "stage: "
MEGABYTE = 1e6
PACKAGES = ("torchvision", "timm", "torch-pruning")  # where the networks and their rivals come from


@dataclass(frozen=True)
class Sweep:
    """A sweep over models: the module that a child runs, what it does with one case, and the table of the rows.

    A case is a model's name, with one of `variants` behind it if there are any: "torchvision:resnet18 raw". `check`
    raises what would make every case fail.
    """

    module: str
    title: str
    examine: Callable[[str], Row]
    table: Callable[[Sequence[Row]], str]
    variants: tuple[str, ...] = ("",)
    check: Callable[[], object] = bool

    def cases(self, models: Sequence[str]) -> list[str]:
        """Every model in every variant; a case that names its variant is left as it is."""
        every = [[name] if " " in name else [f"{name} {each}".strip() for each in self.variants] for name in models]
        return [case for cases in every for case in cases]


def at(row: Row, stage: str) -> None:
    """Note the stage that a row is at, also for a parent that may never hear from this process again."""
    row["stage"] = stage
    sys.stderr.write(f"{STAGE}{stage}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def recorded(row: Row) -> Iterator[None]:
    """Make `row` say how the block ended: ok, or the stage that failed and why in one line."""
    row |= {"ok": False, "stage": "start", "error": None}
    try:
        yield
        row |= {"ok": True, "stage": None}
    except Exception as error:  # a foreign network may fail in any way, and that is the finding
        text = " ".join(str(error).split())
        row["error"] = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


@contextlib.contextmanager
def cost(found: Row) -> Iterator[None]:
    """Write what the block cost this process: `cpu_s`, and `extra_mb` of memory at its peak (None outside Linux)."""
    gc.collect()
    before, started = _reset_peak(), time.process_time()
    yield
    found["cpu_s"] = round(time.process_time() - started, 3)
    found["extra_mb"] = None if before is None else round(max(0, _memory("VmHWM") - before) / MEGABYTE, 1)


def _reset_peak() -> int | None:
    """Bytes in use, from which the peak starts anew; what was freed goes back to the system first."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    return None


def _memory(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def run_child(module: str, case: str, *, seconds: float, memory_gb: float) -> Row:
    """The row of one case, from a process of its own with one thread; one of failure if that never answers."""
    options = ["--model", case, "--json", "-", "--memory-gb", str(memory_gb)]
    command = [sys.executable, "-m", module, *options]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        return _failure(case, error.stderr, f"ran past {seconds:g} s")
    if done.returncode == 0 and (lines := done.stdout.decode().splitlines()):
        row: Row = json.loads(lines[-1])
        return row
    reason = f"killed by signal {-done.returncode}" if done.returncode < 0 else _last_line(done.stderr)
    return _failure(case, done.stderr, reason)


def _failure(case: str, stderr: bytes | None, reason: str) -> Row:
    stages = [line for line in (stderr or b"").decode(errors="replace").splitlines() if line.startswith(STAGE)]
    stage = stages[-1].removeprefix(STAGE) if stages else "start"
    return {"case": case, "ok": False, "stage": stage, "error": reason}


def _last_line(stderr: bytes) -> str:
    return (stderr.decode(errors="replace").strip().splitlines() or ["the process said nothing"])[-1][:300]


def main(sweep: Sweep, argv: Sequence[str] | None = None) -> None:
    """Run a sweep from the command line: one case into stdout, or many into a file that is kept up to date."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(sweep).parse_args(argv)
    try:
        sweep.check()
        models = [*(name for zoo in args.zoo for name in ZOOS[zoo]()), *args.model]
        if str(args.json) == "-":
            _print_rows(sweep, models, args.memory_gb)
        else:
            _write_rows(sweep, models, args, [*argv])
    except ChaseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _print_rows(sweep: Sweep, cases: Sequence[str], memory_gb: float) -> None:
    _limit_memory(memory_gb)
    torch.set_num_threads(1)
    for case in cases:
        sys.stdout.write(json.dumps(sweep.examine(case)) + "\n")


def _write_rows(sweep: Sweep, models: Sequence[str], args: argparse.Namespace, argv: list[str]) -> None:
    rows = _rows(args.json)
    for case in sweep.cases(models):
        if args.again or case not in rows:
            rows[case] = run_child(sweep.module, case, seconds=args.seconds, memory_gb=args.memory_gb)
            sys.stderr.write(f"{case}: {'ok' if rows[case]['ok'] else rows[case]['stage']}\n")
            found = {
                "environment": environment() | dict.fromkeys(PACKAGES) | installed(PACKAGES),
                "command": ["python", "-m", sweep.module, *argv],
                "rows": list(rows.values()),
            }
            write_json(args.json, found)
    if args.markdown:
        with atomic(args.json.with_suffix(".md")) as temporary:
            temporary.write_text(sweep.table(list(rows.values())))


def _parser(sweep: Sweep) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {sweep.module}", description=sweep.title)
    parser.add_argument("--zoo", action="append", default=[], choices=sorted(ZOOS), help="repeatable")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="one more model; repeatable")
    parser.add_argument("--json", type=Path, required=True, help="where the rows go; - runs here and prints them")
    parser.add_argument("--again", action="store_true", help="run what the file has already, too")
    parser.add_argument("--markdown", action="store_true", help="also write a table beside the JSON")
    parser.add_argument("--seconds", type=float, default=1800.0, help="for each case")
    parser.add_argument("--memory-gb", type=float, default=0.0, help="for each case; 0: no limit")
    return parser


def _rows(path: Path) -> dict[str, Row]:
    """The rows that an earlier run wrote, by case."""
    return {row["case"]: row for row in json.loads(path.read_text())["rows"]} if path.is_file() else {}


def _limit_memory(gigabytes: float) -> None:
    if gigabytes:
        import resource  # there is none on Windows

        limit = int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
