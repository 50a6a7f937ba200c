"""The answers of an artifact from a fresh process, where nothing is left of the one that wrote it.

A file that only loads beside the code of its model, or a runtime that crashes, is found here and not at the user's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import ChaseError, MissingDependency, ParityError, reason
from chase.runtimes import open_runtime


def answers(
    artifact: Artifact,
    batches: Sequence[Tensor],
    *,
    runtime: str | None = None,
    device: str = "cpu",
    isolated: bool = True,
) -> list[Tensor]:
    """What the artifact answers to each batch [b, ...], float32 [b, classes], from a process of its own or from this.

    Raises:
        ParityError: if it cannot run one of them, or its process dies.
        MissingDependency: if the runtime or the device is not here.
    """
    if not isolated:
        return _run(artifact, batches, runtime, device)
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
        torch.save(list(batches), given)
        program = f"from {__name__} import main; main()"
        command = [sys.executable, "-c", program, str(artifact.path), str(given), str(found), "--device", device]
        command += [] if runtime is None else ["--runtime", runtime]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, check=False, env=environment, text=True, errors="replace")
        if done.returncode:
            raise _error(artifact.path.name, done.returncode, done.stderr)
        outputs: list[Tensor] = torch.load(found, weights_only=True)
    return outputs


def _run(artifact: Artifact, batches: Sequence[Tensor], runtime: str | None, device: str) -> list[Tensor]:
    name = artifact.path.name
    found = []
    with open_runtime(artifact, runtime=runtime, device=device) as opened:
        for batch in batches:
            try:
                found.append(opened.run(batch.to(opened.device)).float().cpu())
            except MissingDependency:
                raise
            except (RuntimeError, ChaseError) as error:
                raise ParityError(f"{name} cannot run a batch of {len(batch)} ({reason(error)})") from error
    return found


def _error(name: str, code: int, stderr: str) -> ChaseError:
    """What a process that ended with `code` died of."""
    last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    if code == MissingDependency.exit_code:
        return MissingDependency(last)
    how = f"was killed by signal {-code}" if code < 0 else "failed"
    return ParityError(last if code == ParityError.exit_code else f"the process that ran {name} {how}: {last}")


def main(argv: Sequence[str] | None = None) -> None:
    """Answer the inputs in one file into another."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("artifact", "inputs", "outputs"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runtime")
    args = parser.parse_args(argv)
    try:
        batches = torch.load(args.inputs, weights_only=True)
        torch.save(_run(Artifact.load(args.artifact), batches, args.runtime, args.device), args.outputs)
    except ChaseError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
