"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from chase.errors import OutputError
from chase.files import atomic, sha256, staged, write_json


def write_half(target: Path, error: Exception) -> None:
    """A write that fails on the way."""
    with atomic(target) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_appears_whole_in_folders_that_are_made_for_it(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"

    with atomic(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()

    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("No space left on device")]
)
def test_a_full_disk_keeps_the_old_file_and_leaves_no_litter(tmp_path: Path, error: OSError) -> None:
    target = tmp_path / "b.txt"
    target.write_text("old")

    message = f"cannot write {target}: No space left on device; choose another output path"
    with pytest.raises(OutputError, match=message):
        write_half(target, error)

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_another_error_passes_through_and_leaves_no_litter(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "b.txt", ZeroDivisionError())

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="choose another output path"), atomic(tmp_path / "file" / "b.txt"):
        pass


def test_json_is_indented_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1]})

    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1\n  ]\n}\n'


def test_json_without_a_number_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))

    assert json.loads((tmp_path / "a.json").read_text()) == 1


def test_the_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "long").write_bytes(b"a" * 1_000_000)

    # both from FIPS 180-2, appendix B
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "long") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_the_hash_of_a_folder_changes_with_any_name_and_any_byte(tmp_path: Path) -> None:
    hashes = set()
    for name, content in (("a", "1"), ("b", "1"), ("b", "2")):
        folder = tmp_path / f"{name}{content}"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / name).write_text(content)
        hashes.add(sha256(folder))

    assert len(hashes) == 3
    assert sha256(tmp_path / "a1") == sha256(tmp_path / "a1")


def test_all_that_was_staged_arrives_and_the_stage_is_gone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model.xml"

    with staged(target) as temporary:
        temporary.write_text("graph")
        temporary.with_name("model.bin").write_text("weights")
        assert list(target.parent.glob("model.*")) == []

    assert {each.name: each.read_text() for each in target.parent.iterdir()} == {
        "model.xml": "graph",
        "model.bin": "weights",
    }


def test_a_staged_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "repository" / "old").mkdir(parents=True)

    with staged(tmp_path / "repository") as temporary:
        (temporary / "new").mkdir(parents=True)

    assert [each.name for each in (tmp_path / "repository").iterdir()] == ["new"]
    assert [each.name for each in tmp_path.iterdir()] == ["repository"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ZeroDivisionError()])
def test_a_stage_that_fails_leaves_what_was_there(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        with staged(tmp_path / "a") as temporary:
            temporary.write_text("half")
            temporary.with_name("b").write_text("half")
            raise error

    (tmp_path / "a").write_text("old")

    with pytest.raises((OutputError, ZeroDivisionError)):
        fail()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a", "old")]
