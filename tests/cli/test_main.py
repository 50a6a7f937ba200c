from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Chase

from chase.cli import COMMANDS, hoist
from chase.errors import RecipeError

PROBE = "import sys, chase.cli; print([m for m in ('torch', 'numpy', 'onnx', 'torchvision') if m in sys.modules])"


def test_the_command_line_loads_no_heavy_package() -> None:
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_help_names_every_command(chase: Chase) -> None:
    code, out, _ = chase("--help")

    assert code == 0
    assert all(name in out for name in COMMANDS)


def test_chase_alone_shows_the_same_page(chase: Chase) -> None:
    assert chase() == chase("--help") == chase("-h")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_names_the_options_of_all(name: str, chase: Chase) -> None:
    code, out, err = chase(name, "-h")

    assert (code, err) == (0, "")
    assert "--run DIR" in " ".join(out.split())


def test_a_usage_error_names_the_page_that_helps(chase: Chase) -> None:
    assert chase("verify")[2].endswith("; see `chase verify --help`\n")
    assert ".;" not in chase("verify")[2]
    assert chase("--frobnicate")[2].endswith("; see `chase --help`\n")


def test_version_is_that_of_the_package(chase: Chase) -> None:
    from importlib.metadata import version

    assert chase("--version")[:2] == (0, version("chase-sparse") + "\n")


def test_global_flags_may_stand_anywhere() -> None:
    arguments, flags, folder = hoist(["inspect", "--json", "vgg8", "--run", "runs/a", "--quiet"])

    assert (arguments, flags, folder) == (["inspect", "vgg8"], {"--json", "--quiet"}, Path("runs/a"))
    assert hoist(["--run=runs/b", "slim"])[2] == Path("runs/b")
    assert hoist(["slim", "--", "--json"])[:2] == (["slim", "--", "--json"], set())


def test_run_without_a_folder_is_refused(chase: Chase) -> None:
    with pytest.raises(RecipeError, match="--run needs a folder"):
        hoist(["slim", "--run"])

    assert chase("slim", "--run")[0] == 2


def test_json_is_the_only_thing_on_stdout(chase: Chase) -> None:
    code, out, _ = chase("recipes", "--json")

    assert code == 0
    assert "digits-demo" in json.loads(out)["recipes"]


def test_ctrl_c_leaves_with_130_and_says_how_to_go_on(
    chase: Chase, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chase.session.Session.rest_of_epoch", interrupted)

    code, _, err = chase("train", "--recipe", "tiny.yaml", "--quiet")

    assert code == 130
    assert "chase train --resume" in err
    assert (empty / "runs/tiny/checkpoint.pt").is_file()


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(chase: Chase, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("chase.recipe.shipped", broken)

    code, _, err = chase("recipes")
    assert (code, err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: a bug of two lines" in err
    assert "Traceback" in chase("recipes", "--debug")[2]


def test_a_broken_disk_is_one_line(chase: Chase, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("chase.recipe.shipped", full)

    code, _, err = chase("recipes")

    assert code == 1
    assert err.strip() == "chase: cannot read or write runs/x: No space left on device; check the path and the disk"
