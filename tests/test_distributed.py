"""Two processes train as one does, on the same batches; they stop together, and start again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from chase import checkpoint, distributed
from chase.errors import ChaseError, RecipeError
from chase.recipe import Recipe, read
from chase.run import Run
from chase.training import train

ROOT = Path(__file__).parents[1]
RECIPE = """
name: shared
model: {name: "net:net"}
data: {name: synthetic, shape: [1, 8, 8], train: 192, test: 63, batch_size: 16, validation: 0.25}
method: {name: chase, sparsity: 0.6, channel_sparsity: 0.5, update_every: 4, channel_every: 6, stop: 0.75}
training: {epochs: 4, seed: 3, compact: [0.3, 0.5], checkpoint_every: 5, accumulate: 2}
"""
NET = """
import os, signal
from small_training import Plain

FIRST = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"

class Hit(Plain):
    calls = 0

    def forward(self, x):
        Hit.calls += self.training
        if self.training and Hit.calls == {calls} and os.environ.get("RANK") == "{rank}" and FIRST:
            os.kill(os.getpid(), signal.{number})
        return super().forward(x)

net = Hit
"""
FORGED = """
import os
from chase.cli import main
from chase.sparse.masks import Masks

true, calls = Masks.digest, []

def forged(masks):
    calls.append(masks)
    if len(calls) == 2:  # the first event; before it, where the training began
        mask = next(iter(masks.weights.values())).view(-1)
        mask[0] = 1 - mask[0]
    return true(masks)

if os.environ["RANK"] == "1":
    Masks.digest = forged
main()
"""
ASTRAY = """
import os
from chase.cli import main
from chase.sparse.rewiring import Rewiring

true = Rewiring.revive

def astray(rewiring, count, step):
    true(rewiring, count, step + (step == 3 and os.environ["RANK"] == "1"))

Rewiring.revive = astray
main()
"""
ROUNDED = """
import os
from chase.cli import main
from chase.sparse.saliency import INITIAL

true = INITIAL["magnitude"]

def rounded(model, keep, **given):
    return {name: mask.flatten().roll(1).view_as(mask) for name, mask in true(model, keep, **given).items()}

if os.environ["RANK"] == "1":
    INITIAL["magnitude"] = rounded
main()
"""


def lay_out(folder: Path, *, calls: int = -1, rank: int = 0, number: str = "SIGTERM") -> Recipe:
    """A recipe, and a network that sends its own process a signal in a call of one rank, but not after a restart."""
    (folder / "shared.yaml").write_text(RECIPE)
    (folder / "net.py").write_text(NET.format(calls=calls, rank=rank, number=number))
    return Recipe.from_dict(read(str(folder / "shared.yaml")))


def environment(**variables: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests"), "."]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "CHASE_RUN": "run",
        "CHASE_TRUST_CODE": "1",
        **variables,
    }


def launched(folder: Path, *command: str) -> list[tuple[int, str]]:
    """The exit code and stderr of two processes that belong together, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment(RANK=rank, LOCAL_RANK=rank, **place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def assert_alike(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The same masks, and weights and losses to the precision of sums in another order."""
    for kind in ("weights", "alive"):
        assert all(torch.equal(ours["masks"][kind][name], bits) for name, bits in theirs["masks"][kind].items())
    for name, tensor in theirs["state_dict"].items():
        assert torch.allclose(ours["state_dict"][name], tensor, rtol=1e-4, atol=1e-6), name
    for name in ("epoch", "validation_accuracy", "test_accuracy", "sparsity", "channel_sparsity", "macs"):
        assert ours["facts"][name] == theirs["facts"][name]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of one process."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        path = train(lay_out(folder), Run(folder / "run"), device="cpu")
    return checkpoint.read(path)


def test_two_processes_give_the_network_that_one_gives(alone: dict[str, Any], tmp_path: Path) -> None:
    lay_out(tmp_path)

    found = launched(tmp_path, "-m", "chase.cli", "train", "--recipe", "shared.yaml")

    assert [code for code, _ in found] == [0, 0], found
    assert "epoch 4/4" in found[0][1]
    assert found[1][1] == ""
    assert_alike(checkpoint.read(tmp_path / "run/checkpoint.pt"), alone)
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "run/manifest.json").is_file()


def test_a_signal_to_one_stops_both_and_one_alone_resumes(
    alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = lay_out(tmp_path, calls=33, rank=1)  # two calls a step: in step 17

    found = launched(tmp_path, "-m", "chase.cli", "train", "--recipe", "shared.yaml", "--quiet")

    assert [code for code, _ in found] == [130, 130], found
    state = checkpoint.read(tmp_path / "run/checkpoint.pt")["training"]
    assert (state["epoch"], state["batch"], len(state["rng"])) == (2, 2, 2)  # step 20, where they ask each other
    monkeypatch.syspath_prepend(str(tmp_path))
    assert_alike(checkpoint.read(train(chosen, Run(tmp_path / "run"), device="cpu", resume=True)), alone)


def test_a_mask_that_differs_stops_both_and_names_both_hashes(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "forged.py").write_text(FORGED)

    found = launched(tmp_path, "forged.py", "train", "--recipe", "shared.yaml", "--quiet")

    for code, error in found:
        assert code == 1, error
        assert "the masks of step 4 differ between processes: " in error
        hashes = error.split("processes: ")[1].split(";")[0].replace(",", "").split()
        assert len(hashes[0]) == len(hashes[4]) == 16
        assert hashes[0] != hashes[4]
    assert found[0][1] == found[1][1]
    assert checkpoint.read(tmp_path / "run/checkpoint.pt")["training"]["epoch"] == 0


def test_weights_that_are_drawn_otherwise_between_two_events_stop_both(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "astray.py").write_text(ASTRAY)
    deep_r = ["-o", "method={name: deep-r, sparsity: 0.6, rewire_l1: 1.0}"]  # no events at all

    found = launched(tmp_path, "astray.py", "train", "--recipe", "shared.yaml", *deep_r, "--quiet")

    for code, error in found:
        assert code == 1, error
        assert "the masks of step 5 differ between processes: " in error
    assert checkpoint.read(tmp_path / "run/checkpoint.pt")["training"]["batch"] == 0  # none of it was saved


def test_initial_masks_are_those_of_the_first_process(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "rounded.py").write_text(ROUNDED)
    settings = ["-o", "method.initial=magnitude", "-o", "training.epochs=1"]

    found = launched(tmp_path, "rounded.py", "train", "--recipe", "shared.yaml", *settings, "--quiet")

    assert [code for code, _ in found] == [0, 0], found


@pytest.mark.slow
def test_torchrun_starts_again_what_was_killed(alone: dict[str, Any], tmp_path: Path) -> None:
    lay_out(tmp_path, calls=35, rank=1, number="SIGKILL")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [sys.executable, *launcher, "-m", "chase.cli", "train", "--recipe", "shared.yaml"]

    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    assert "(exitcode: -9)" in done.stderr
    assert done.stderr.count("epoch 1/4") == 1  # it went on from the last checkpoint
    assert_alike(checkpoint.read(tmp_path / "run/checkpoint.pt"), alone)


def test_alone_everything_is_as_it_is() -> None:
    tensor = torch.ones(2)

    with distributed.joined(), distributed.in_turn():
        assert (distributed.rank(), distributed.processes(), distributed.restarted()) == (0, 1, False)
        assert distributed.mean(tensor) is tensor
        assert distributed.any_of(True, False) == [True, False]
        assert distributed.from_first("a") == "a"
        distributed.check_same("masks", "a")
        distributed.wait()
        assert distributed.averaging(torch.nn.Linear(1, 1), torch.device("cpu")).weight.shape == (1, 1)


def test_what_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gathered", lambda digest: ["a", "a", "b"])

    with pytest.raises(ChaseError, match="the masks differ between processes: a on rank 0, b on rank 2; resume from"):
        distributed.check_same("the masks", "a")


def test_synchronised_norms_need_gpus(tmp_path: Path) -> None:
    chosen = Recipe.from_dict({"data": {"name": "synthetic"}, "training": {"sync_batchnorm": True}})

    with pytest.raises(RecipeError, match="sync_batchnorm needs GPUs, and this trains on cpu"):
        train(chosen, Run(tmp_path), device="cpu")
