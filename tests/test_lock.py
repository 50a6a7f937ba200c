"""One process at a time trains in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_recipes import recipe

from chase.errors import OutputError, RecipeError
from chase.lock import NAME, _signature, alone
from chase.run import Run
from chase.training import train


def test_a_folder_is_held_until_the_block_ends_also_by_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with alone(tmp_path / "run"):
            assert (tmp_path / "run" / NAME).is_file()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not [*tmp_path.iterdir()]

    (tmp_path / "run").mkdir()
    with pytest.raises(KeyError):
        fail()
    assert not [*(tmp_path / "run").iterdir()]  # it was there before


def test_a_second_training_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / NAME).write_text(_signature(other.pid))

        with pytest.raises(RecipeError, match=f"process {other.pid} is training in .*; wait for it, or choose another"):
            train(recipe(), Run(tmp_path))

        assert [file.name for file in tmp_path.iterdir()] == [NAME]
        other.kill()

    with alone(tmp_path):  # what was killed holds nothing
        assert (tmp_path / NAME).read_text() == _signature(os.getpid())


@pytest.mark.parametrize(
    "left", ["", "junk", "elsewhere {pid} {start}", "{host} {pid} 1", "{host} 4194305 {start}", "{host} x {start}"]
)
def test_what_another_machine_or_an_earlier_process_left_holds_nothing(left: str, tmp_path: Path) -> None:
    host, pid, start = _signature(os.getppid()).split()
    (tmp_path / NAME).write_text(left.format(host=host, pid=pid, start=start))

    with alone(tmp_path):
        assert (tmp_path / NAME).read_text() == _signature(os.getpid())


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(OutputError, match="cannot write .*training.lock: Not a directory"),
        alone(tmp_path / "file/run"),
    ):
        pass
