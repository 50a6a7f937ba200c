from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Chase

LONG = ["train", "--recipe", "tiny.yaml", "--epochs", "8", "-o", "data.train=512"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["training"]["state_dict"]
    return state


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from chase.cli import main; main()", *arguments]
    # started in the background, these tests would hand down that SIGINT is ignored
    default = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=default)


def wait_for_epoch(run: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if (run / "metrics.jsonl").is_file():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("no epoch was finished")


def test_a_killed_training_resumes_to_the_same_weights_bit_for_bit(chase: Chase, empty: Path) -> None:
    assert chase(*LONG, "--run", "runs/whole", "--quiet")[0] == 0
    process = start(empty, *LONG, "--run", "runs/killed", "--quiet")
    wait_for_epoch(empty / "runs/killed", process)
    process.kill()
    process.communicate()

    assert chase("train", "--resume", "--run", "runs/killed", "--quiet")[0] == 0

    whole, resumed = weights(empty / "runs/whole"), weights(empty / "runs/killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    epochs = [json.loads(line)["epoch"] for line in (empty / "runs/killed/metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_interrupt_signal_leaves_a_checkpoint_to_resume(empty: Path) -> None:
    process = start(empty, *LONG, "--epochs", "500", "--run", "runs/stopped", "--quiet")
    wait_for_epoch(empty / "runs/stopped", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.strip().endswith("a training continues where it stopped with `chase train --resume`")
    assert len(weights(empty / "runs/stopped")) > 0


def test_the_run_meets_its_targets_exactly_and_records_every_epoch(workspace: Path) -> None:
    lines = (workspace / "runs/tiny/metrics.jsonl").read_text().splitlines()
    facts = torch.load(workspace / "runs/tiny/checkpoint.pt", weights_only=True)["facts"]

    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert facts["channel_sparsity"] == 0.5
    assert facts["sparsity"] == pytest.approx(0.8, abs=1e-5)
    assert json.loads(lines[-1])["macs"] == facts["macs"]
    assert (workspace / "runs/latest").read_text() == "tiny\n"
    assert "checkpoint.pt" in json.loads((workspace / "runs/tiny/manifest.json").read_text())


def test_a_second_run_of_the_same_name_gets_a_folder_of_its_own(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase("train", "--recipe", "tiny.yaml", "--epochs", "1", "--json")

    assert code == 0
    assert json.loads(out)["run"] == "runs/tiny-2"
    assert (workspace / "runs/latest").read_text() == "tiny-2\n"


def test_the_dense_method_drops_the_settings_of_the_sparse_one(chase: Chase, empty: Path) -> None:
    code, out, _ = chase("train", "--recipe", "tiny.yaml", "--method", "dense", "--epochs", "1", "--json")

    assert (code, json.loads(out)["sparsity"], json.loads(out)["channel_sparsity"]) == (0, 0.0, 0.0)
    assert torch.load("runs/tiny/checkpoint.pt", weights_only=True)["kind"] == "dense"


def test_dry_run_tells_all_of_the_imagenet_recipe_without_data(chase: Chase, empty: Path) -> None:
    code, out, _ = chase("train", "--recipe", "imagenet-resnet50", "--dry-run", "--json")

    summary = json.loads(out)
    densities = {layer["weight"]: round(layer["density"], 4) for layer in summary["layers"]}
    floors = {group["name"]: group["floor"] for group in summary["groups"]}
    assert code == 0
    assert not (empty / "runs").exists()
    assert densities["conv1.weight"] == 0.42
    assert densities["layer4.2.conv2.weight"] == 0.0213
    assert densities["fc.weight"] == 0.0726
    assert [floors[f"layer{stage}.1.conv1"] for stage in (1, 2, 3, 4)] == [7, 15, 30, 61]
    assert summary["prunable_channels"] == 7552
    assert summary["events"][-1]["step"] == summary["stop_step"] == 200160
    assert summary["events"][-1]["channel_sparsity"] == 0.4
    assert summary["macs"]["dense"] == 4_089_184_256


def test_dry_run_shows_tables_to_people(chase: Chase, empty: Path) -> None:
    code, out, _ = chase("train", "--recipe", "tiny.yaml", "--dry-run")

    assert code == 0
    assert "features.17.weight" in out
    assert "is an output of the model" in out


def test_a_network_from_user_code_is_trained_and_slimmed_if_trusted(
    chase: Chase, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    (empty / "my_net.py").write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3),\n"
        "                         nn.ReLU(), nn.Flatten(), nn.Linear(256, num_classes))\n"
    )
    options = ["--model", "my_net:net", "--epochs", "1", "-o", "method.round_to=4", "--quiet"]
    assert chase("train", "--recipe", "tiny.yaml", *options)[0] == 0

    code, _, err = chase("slim")
    assert code == 2
    assert "'my_net:net' is code outside Chase" in err

    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    assert chase("slim", "--quiet")[0] == 0


def test_the_images_are_loaded_once(chase: Chase, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chase.data import Data, catalog

    loads: list[str] = []

    def load(name: str, **settings: Any) -> Data:
        loads.append(name)
        return original(name, **settings)

    original = catalog.load_data
    monkeypatch.setattr(catalog, "load_data", load)

    assert chase("train", "--recipe", "tiny.yaml", "--epochs", "1", "--quiet")[0] == 0
    assert loads == ["synthetic"]


def test_a_run_is_shown_elsewhere_without_a_change_of_its_result(
    chase: Chase, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chase.loggers import LOGGERS

    logged: list[tuple[int, dict[str, float]]] = []

    class Recorder:
        def __init__(self, folder: Path, recipe: Any) -> None:
            assert folder == Path("runs/shown")

        def log(self, step: int, values: dict[str, float]) -> None:
            logged.append((step, values))

        def close(self) -> None:
            logged.append((0, {}))

    monkeypatch.setitem(LOGGERS, "recorder", Recorder)
    code, _, err = chase("train", "--recipe", "tiny.yaml", "--log", "recorder", "--run", "runs/shown")

    plain, shown = weights(workspace / "runs/tiny"), weights(workspace / "runs/shown")
    losses = [values["loss"] for _, values in logged if "loss" in values]
    lines = [json.loads(line) for line in (workspace / "runs/shown/metrics.jsonl").read_text().splitlines()]
    assert code == 0
    assert all(torch.equal(plain[name], shown[name]) for name in plain)
    assert losses == [line["loss"] for line in lines]
    assert logged[-1] == (0, {})
    removed = lines[-1]["group_sparsity"]
    assert removed.keys() == {name.removeprefix("group_sparsity/") for name in logged[-2][1] if "group_sp" in name}
    assert 0 < max(removed.values()) < 1
    assert "epoch 1/3" in err
    assert re.search(r" \d+ images/s \([\d,]+\.\d GMAC/s dense-equivalent, [\d,]+\.\d executed\)", err)
    assert err.count("done about ") == 2


def test_a_logger_that_is_not_there_stops_the_training_before_it_begins(
    chase: Chase, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    code, _, err = chase("train", "--recipe", "tiny.yaml", "--log", "tensorboard")

    assert code == 4
    assert "pip install 'chase-sparse[tensorboard]'" in err
    assert not (empty / "runs").exists()
