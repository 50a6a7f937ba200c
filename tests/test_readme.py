"""The README does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from chase.cli import COMMANDS, app, hoist

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")

    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)

    assert (tmp_path / "bench.json").is_file()
    assert scope["sparse"].masks.channel_sparsity == 0.5  # type: ignore[attr-defined]


def test_the_commands_exist() -> None:
    group = typer.main.get_command(app)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("chase ")]

    assert [command[1] for command in commands[:4]] == ["train", "slim", "export", "bench"]
    for command in commands:
        arguments, _, _ = hoist(command[2:])
        group.commands[command[1]].make_context(command[1], arguments, parent=None)  # type: ignore[attr-defined]
    assert all(name in COMMANDS for name in re.findall(r"`chase ([a-z]+)", README))


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()

    for target in re.findall(r"^make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_the_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).exists(), link
