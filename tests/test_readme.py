"""The README and the documents beside it do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from chase.cli import COMMANDS, app, hoist

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, document: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), flags=re.S)


def commands(document: Path) -> list[list[str]]:
    lines = [line for block in blocks("sh", document) for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("chase ")]


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")

    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)

    assert (tmp_path / "bench.json").is_file()
    assert scope["sparse"].masks.channel_sparsity == 0.5  # type: ignore[attr-defined]


def test_the_four_commands_come_first() -> None:
    assert [command[1] for command in commands(README)[:4]] == ["train", "slim", "export", "bench"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_the_commands_exist(document: Path) -> None:
    group = typer.main.get_command(app)

    for command in commands(document):
        arguments, _, _ = hoist(command[2:])
        group.commands[command[1]].make_context(command[1], arguments, parent=None)  # type: ignore[attr-defined]
    assert all(name in COMMANDS for name in re.findall(r"`chase ([a-z]+)", document.read_text()))


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()

    for target in re.findall(
        r"^make ([a-z-]+)", README.read_text() + (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M
    ):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda document: document.stem)
def test_the_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", document.read_text()):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document

        assert target.exists(), link
        assert not heading or heading in headings(target), link


def headings(document: Path) -> list[str]:
    """As GitHub names them in links."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.M)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_document_is_named_in_the_readme() -> None:
    assert all(f"(docs/{document.name})" in README.read_text() for document in DOCUMENTS[1:])
