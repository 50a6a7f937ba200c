"""Campaigns of scripted items: their order, stopping in time, going on, and items that fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from chase.benchmarks.campaign import records
from chase.benchmarks.campaign.records import SUMMARY, UNFINISHED, load, problems
from chase.benchmarks.campaign.runner import Broken, Campaign, Deadline, Item, Job, OutOfTime, Rows
from chase.benchmarks.schema import mismatches
from chase.errors import MissingDependency

CPU = torch.device("cpu")


class Script:
    """Items that only say that they were run, and let time pass."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.ran: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def item(self, name: str, *, pieces: int = 1, piece_s: float = 10.0, **settings: Any) -> Item:
        """An item of so many pieces, which yields a row for each."""

        def run(job: Job) -> Iterator[Rows]:
            self.ran.append(name)
            for piece in range(pieces):
                job.check()
                self.now_s += piece_s
                yield [row(piece)]

        return Item(name, "training", settings, run)

    def failing(self, name: str, error: BaseException) -> Item:
        """An item that fails after its first row."""

        def run(job: Job) -> Iterator[Rows]:
            self.ran.append(name)
            yield [row(0)]
            raise error

        return Item(name, "training", {}, run)

    def campaign(self, folder: Path, *items: Item, seconds: float = 1e9, **given: Any) -> dict[str, str]:
        """Run them; the outcomes in campaign.json."""
        campaign = Campaign(items, folder, CPU, ("python", "-m", "chase.benchmarks.campaign"))
        campaign.run(Deadline(seconds, self.clock), **given)
        return outcomes(folder)


def row(piece: int) -> dict[str, Any]:
    """A row of in-training slimming; nothing in it was measured."""
    macs = {"theoretical": 1, "gpu_supported": 2, "dense": 2}
    facts = {"variant": "dense", "channel_sparsity": 0.1 * piece, "prune_skip": False, "work": {}, "macs": macs}
    return (
        facts
        | dict.fromkeys(("speedup_vs_dense", "compaction_ms", "peak_memory_bytes"))
        | {
            "mac_ratio": 1.0,
            "samples_ms": [1.5],
        }
    )


def outcomes(folder: Path) -> dict[str, str]:
    return {each["item"]: each["outcome"] for each in read(folder, "campaign")["items"]}


def read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


@pytest.fixture
def script() -> Script:
    return Script()


def test_items_run_in_their_order_and_leave_records_of_one_form(script: Script, tmp_path: Path) -> None:
    found = script.campaign(tmp_path, script.item("b", pieces=2), script.item("a"))

    assert script.ran == ["b", "a"]
    assert found == {"b": "done", "a": "done"}
    for name, rows in (("b", 2), ("a", 1)):
        record = read(tmp_path, name)
        assert problems(record) == []
        assert (len(record["rows"]), record["complete"], record["error"]) == (rows, True, None)
        assert record["command"] == ["python", "-m", "chase.benchmarks.campaign"]
        assert record["environment"]["torch"] == torch.__version__
        assert record["seconds"] == 10.0 * rows
    assert list(mismatches("", read(tmp_path, "campaign"), SUMMARY)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "campaign.json"]


def test_no_piece_is_begun_that_would_not_end_in_time(script: Script, tmp_path: Path) -> None:
    items = [script.item("first", pieces=2), script.item("second", pieces=5), script.item("third")]

    found = script.campaign(tmp_path, *items, seconds=49)

    assert script.ran == ["first", "second"]
    assert script.now_s == 1040.0
    assert found == {"first": "done", "second": "partial", "third": "waiting"}
    assert len(read(tmp_path, "second")["rows"]) == 2
    assert problems(read(tmp_path, "second")) == []


def test_the_same_campaign_goes_on_where_it_stopped(script: Script, tmp_path: Path) -> None:
    items = [script.item("first", pieces=2), script.item("second", pieces=3), script.item("third")]
    script.campaign(tmp_path, *items, seconds=35)
    before = (tmp_path / "first.json").read_bytes()
    script.ran.clear()

    found = script.campaign(tmp_path, *items)

    assert script.ran == ["second", "third"]
    assert set(found.values()) == {"done"}
    assert (tmp_path / "first.json").read_bytes() == before


def test_other_settings_are_another_measurement(script: Script, tmp_path: Path) -> None:
    script.campaign(tmp_path, script.item("a", batch_sizes=(1, 2)), script.item("b"))
    script.ran.clear()

    script.campaign(tmp_path, script.item("a", batch_sizes=(1, 2)), script.item("b", batch_sizes=(1,)))

    assert script.ran == ["b"]
    assert read(tmp_path, "b")["settings"] == {"batch_sizes": [1]}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MissingDependency("no GPU here; choose device cpu"), "no GPU here; choose device cpu"),
        (torch.OutOfMemoryError("too large"), "OutOfMemoryError: too large"),
        (ValueError(), "ValueError: ValueError"),
    ],
    ids=["ours", "out of memory", "any other"],
)
def test_an_item_that_fails_is_on_record_and_ends_nothing_else(
    script: Script, tmp_path: Path, error: Exception, words: str
) -> None:
    found = script.campaign(tmp_path, script.failing("a", error), script.item("b"))

    assert found == {"a": "failed", "b": "done"}
    assert read(tmp_path, "a")["error"] == words
    assert len(read(tmp_path, "a")["rows"]) == 1
    assert read(tmp_path, "campaign")["left_out"] == [f"a: {words}"]
    assert problems(read(tmp_path, "a")) == []


def test_what_failed_is_tried_again_after_all_else_or_not_at_all(script: Script, tmp_path: Path) -> None:
    first = [script.failing("a", ValueError("no")), script.item("b")]
    script.campaign(tmp_path, *first)
    script.ran.clear()
    items = [script.item("a"), script.item("b"), script.item("c")]

    campaign = Campaign(items, tmp_path, CPU, ("x",))
    assert [item.name for item in campaign.pending(retry=False)] == ["c"]

    assert script.campaign(tmp_path, *items) == {"a": "done", "b": "done", "c": "done"}
    assert script.ran == ["c", "a"]


def test_an_item_without_any_row_says_why_and_is_not_done(script: Script, tmp_path: Path) -> None:
    def run(job: Job) -> Iterator[Rows]:
        job.left_out.append("no TensorRT")
        yield []

    found = script.campaign(tmp_path, Item("a", "shapes", {}, run))

    assert found == {"a": "left out"}
    assert read(tmp_path, "campaign")["left_out"] == ["a: no TensorRT"]


def test_a_process_that_dies_leaves_the_item_as_failed(script: Script, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        script.campaign(tmp_path, script.failing("a", KeyboardInterrupt()), script.item("b"))

    record = load(tmp_path, "a", {})
    assert record is not None
    assert (record.outcome, record.error, len(record.rows)) == ("failed", UNFINISHED, 1)


def test_a_gpu_that_no_longer_answers_ends_the_process(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(device: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    monkeypatch.setattr("chase.benchmarks.campaign.runner.environment", lambda device: {})
    monkeypatch.setattr("chase.benchmarks.campaign.runner.gpu_of", lambda device: (None, None))
    items = [script.failing("a", RuntimeError("CUDA error")), script.item("b")]

    with pytest.raises(Broken, match="illegal memory access"):
        Campaign(items, tmp_path, torch.device("cuda", 0), ("x",)).run(Deadline(now=script.clock))

    assert script.ran == ["a"]
    assert read(tmp_path, "a")["error"] == "RuntimeError: CUDA error"


def test_the_last_piece_may_end_late(script: Script, tmp_path: Path) -> None:
    assert script.campaign(tmp_path, script.item("a", piece_s=30), seconds=25) == {"a": "done"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_record_is_made_again(script: Script, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)

    assert script.campaign(tmp_path, script.item("a")) == {"a": "done"}


def test_a_deadline_knows_the_longest_piece_of_a_kind() -> None:
    script = Script()
    deadline = Deadline(100.0, script.clock)
    deadline.begin("long")
    deadline.check()
    script.now_s += 40
    deadline.check()
    script.now_s += 30  # 70 of 100
    with pytest.raises(OutOfTime):
        deadline.check()

    deadline.begin("long")
    with pytest.raises(OutOfTime):
        deadline.check()
    deadline.begin("another")
    deadline.check()
    assert deadline.passed == 70.0


def test_foreign_rows_are_found_out() -> None:
    sound = {
        "item": "a",
        "kind": "training",
        "settings": {},
        "command": ["x"],
        "environment": {},
        "seconds": 1.0,
        "complete": True,
        "error": None,
        "left_out": [],
        "clocks": [],
        "rows": [row(0)],
    }
    changes: list[tuple[Callable[[dict[str, Any]], object], str]] = [
        (lambda record: record.update(kind="speed"), "kind cannot be speed"),
        (lambda record: record["rows"][0].pop("macs"), "rows[0].macs is missing"),
        (lambda record: record["rows"][0].update(samples_ms=[]), "rows[0].samples_ms cannot be []"),
        (lambda record: record["rows"][0].update(fps=3), "rows[0].fps is not a field of this version"),
    ]

    assert records.problems(sound) == []
    for change, words in changes:
        broken = json.loads(json.dumps(sound))
        change(broken)
        assert words in records.problems(broken)
