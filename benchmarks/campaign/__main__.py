"""The command: a process that measures, and one that keeps the time and starts it again where a library kills it."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from chase.benchmarks.campaign.items import full, items, place_of, smoke
from chase.benchmarks.campaign.runner import Broken, Campaign, Deadline
from chase.errors import ChaseError, UnknownName
from chase.registry import did_you_mean
from chase.runtimes.base import resolve_device

AGAIN = 75
"""The exit code of a process that has to be replaced by a fresh one."""

RESTARTS = 20
WORKER, AFTER_A_DEATH = "--worker", "--after-a-death"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in child processes until all is done, on record as failed, or out of time; the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv)
    if args.worker is not None:
        return work(args, argv[: argv.index(WORKER)])
    return supervise([sys.executable, "-m", "chase.benchmarks.campaign", *argv], minutes=args.minutes)


def supervise(
    command: Sequence[str],
    *,
    minutes: float | None,
    run: Callable[..., subprocess.CompletedProcess[bytes]] = subprocess.run,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Run a worker, and a fresh one whenever it dies; none outlives the campaign's minutes.

    An item that a process died of is on record as failed, and is not tried again until the next campaign.
    """
    end = None if minutes is None else now() + 60 * minutes
    again: list[str] = []
    for _ in range(RESTARTS):
        left = None if end is None else max(1.0, end - now())
        try:
            code = run([*command, WORKER, str(left or math.inf), *again], timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            sys.stderr.write("the time is up; the same command goes on from here\n")
            return 0
        if code >= 0 and code != AGAIN:
            return code
        again = [AFTER_A_DEATH]
        sys.stderr.write(f"the process ended with {code}; a fresh one goes on\n")
    return 1


def work(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Measure in this process; the exit code."""
    try:
        torch.set_num_threads(args.threads)
        campaign = _campaign(args, argv)
        campaign.run(Deadline(args.worker), retry=not args.after_a_death)
    except Broken as error:
        sys.stderr.write(f"error: {error}\n")
        return AGAIN
    except ChaseError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _campaign(args: argparse.Namespace, argv: Sequence[str]) -> Campaign:
    device = resolve_device(args.device)
    scale = smoke(device) if args.smoke else full(device)
    known = items(scale, device, data=args.data)
    names = [item.name for item in known]
    for name in args.item or ():
        if name not in names:
            raise UnknownName(f"no item named {name!r}; {did_you_mean(name, names)}")
    chosen = [item for item in known if not args.item or item.name in args.item]
    sys.stderr.write(f"{len(chosen)} items on {place_of(device)}\n")
    command = ("python", "-m", "chase.benchmarks.campaign", *argv)
    return Campaign(chosen, args.out, device, command, left_out=scale.left_out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chase.benchmarks.campaign",
        description="Measure everything worth knowing of this machine, most valuable first.",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of the records; the same one goes on")
    parser.add_argument("--minutes", type=float, help="stop in time; default: when all is done")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path, help="CIFAR-100: torchvision's folder, an .npz archive or an image tree")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--item", action="append", help="only this one; repeatable")
    parser.add_argument("--smoke", action="store_true", help="all of it in little, in minutes on a CPU")
    parser.add_argument(WORKER, type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument(AFTER_A_DEATH, action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
