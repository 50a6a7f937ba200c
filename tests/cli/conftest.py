"""One small run through the whole chain, shared by the tests of the commands."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Chase

from chase.cli import main
from chase.exporters import verification
from chase.exporters.child import answers

TINY = """
name: tiny
model: {name: vgg8, width: 0.25}
data: {name: synthetic, shape: [1, 8, 8], train: 192, test: 64, batch_size: 32, validation: 0.25}
method: {name: chase, sparsity: 0.8, channel_sparsity: 0.5, update_every: 2, channel_every: 3, stop: 0.7}
training: {epochs: 3, seed: 1}
"""


@pytest.fixture(scope="session", autouse=True)
def in_this_process() -> Iterator[None]:
    """Exported files are checked in this process; the fresh one, with tests of its own, would take seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        here: dict[str, Any] = {"isolated": False}
        patch.setattr(verification, "answers", lambda *args, **options: answers(*args, **(options | here)))
        yield


@pytest.fixture(scope="session")
def finished(in_this_process: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run `runs/tiny`: trained, slimmed and exported to ONNX and TorchScript."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for arguments in (["train", "--recipe", "tiny.yaml"], ["slim"], ["export", "--format", "onnx,torchscript"]):
            with pytest.raises(SystemExit) as stop:
                main([*arguments, "--quiet"])
            assert stop.value.code == 0
    return folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run that a test may change; the current directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory with the small recipe."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def chase(capsys: pytest.CaptureFixture[str]) -> Chase:
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(str(stop.value.code)), captured.out, captured.err

    return run
