"""Data sets of tar shards."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jpegs import encoded, shard
from PIL import Image
from torch import Tensor

from chase.data import Data, load_data, shards, tar
from chase.data.shards import Shards
from chase.data.streamed import StreamedSplit
from chase.errors import DataError, RecipeError

pytest.importorskip("webdataset", reason="webdataset is not installed")

SIZES = (5, 3, 7, 4)
VALUES = [10 * number for number in range(sum(SIZES))]  # one grey value per training image


def members(first: int, count: int) -> dict[str, bytes]:
    """Images of one grey value each, ten apart, and their labels: number modulo 3."""
    found: dict[str, bytes] = {}
    for number in range(first, first + count):
        flat = Image.new("RGB", (12, 10), (10 * number,) * 3)
        found |= {f"{number:03d}.png": encoded(flat, "PNG"), f"{number:03d}.cls": str(number % 3).encode()}
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, first = tmp_path_factory.mktemp("shards"), 0
    for index, size in enumerate(SIZES):
        shard(folder / f"train-{index:03d}.tar", members(first, size))
        first += size
    for index in range(2):
        shard(folder / f"val-{index:03d}.tar", members(3 * index, 3))
    (folder / "classes.txt").write_text("ant\nbee\n\ncat\n")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "set"))


def load(folder: Path | str, **settings: Any) -> Data:
    return load_data(str(folder), **{"size": 8, "workers": 0, **settings})


def greys(split: Any, *arguments: Any, **settings: Any) -> list[int]:
    """The grey value of each image that `batches` hands out."""
    plain = split.normalised_with((0, 0, 0), (1 / 255,) * 3)
    return [round(float(image.mean())) for x, _ in plain.batches(*arguments, **settings) for image in x]


def source(split: Any) -> Shards:
    assert isinstance(split, StreamedSplit)
    assert isinstance(split.source, Shards)
    return split.source


def test_a_folder_of_shards_is_found_and_counted(folder: Path) -> None:
    data = load(folder)

    assert (data.classes, data.input_shape, len(data.train), len(data.test)) == (
        ("ant", "bee", "cat"),
        (3, 8, 8),
        19,
        6,
    )
    assert greys(data.train, 4) == VALUES
    assert data.train.labels.tolist() == [number % 3 for number in range(19)]
    assert torch.cat([y for _, y in data.test.batches(4)]).tolist() == [0, 1, 2, 0, 1, 2]
    assert json.loads((folder / "sizes.json").read_text()) == {
        **{f"train-{index:03d}.tar": size for index, size in enumerate(SIZES)},
        **{f"val-{index:03d}.tar": 3 for index in range(2)},
    }


def test_shards_are_counted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(folder)
    monkeypatch.setattr(tar, "count", lambda path: pytest.fail("counted again"))

    assert len(load(folder).train) == 19


def test_shards_in_a_folder_that_cannot_be_written_are_counted_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sizes.json").mkdir()  # nobody, root included, can replace it
    monkeypatch.setattr(tar, "text", lambda place: None if place.endswith("sizes.json") else Path(place).read_text())

    assert len(load(folder).train) == 19


def test_test_shards_come_before_validation_shards(folder: Path) -> None:
    shard(folder / "test-0.tar", members(0, 2))

    assert len(load(folder).test) == 2


def test_patterns_of_paths_name_the_parts(folder: Path) -> None:
    data = load(f"{folder}/train-{{001..002}}.tar", test=f"{folder}/val-*.tar", classes=3)

    assert (data.classes, greys(data.train, 4)) == (("0", "1", "2"), VALUES[5:15])


@pytest.mark.parametrize("buffer", [0, 3, 100])
def test_shuffling_follows_from_the_seed_and_keeps_every_image_near_its_shard(folder: Path, buffer: int) -> None:
    train = load(folder, buffer=buffer).train

    first, again, other = (source(train).shuffled(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert sorted(first.tolist()) == list(range(19))
    whole = source(train).in_random_shards(torch.Generator().manual_seed(1))
    moved = first.argsort() - whole.argsort()  # of each image, from its place in the stream
    assert moved.max() <= buffer
    assert moved.min() >= -buffer
    assert moved.any() == (buffer > 0)
    assert greys(train, 4, shuffle_seed=1) == [VALUES[index] for index in first[:16].tolist()]


def test_shards_are_read_in_another_order_each_time_but_as_they_lie(folder: Path) -> None:
    orders = {
        tuple(source(load(folder).train).in_random_shards(torch.Generator().manual_seed(seed)).tolist())
        for seed in range(30)
    }
    starts = {0, 5, 8, 15}

    assert {order[0] for order in orders} == starts
    for order in orders:
        assert all(after == before + 1 or after in starts for before, after in zip(order, order[1:], strict=False))


def test_an_epoch_starts_in_its_middle_and_opens_no_shard_in_vain(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = load(folder, buffer=2).train
    whole = greys(train, 3, shuffle_seed=4, augment=True)
    opened: list[str] = []
    read = tar.samples

    def noted(url: str) -> Iterator[tar.Sample]:
        opened.append(url)
        return read(url)

    monkeypatch.setattr(tar, "samples", noted)

    assert greys(train, 3, shuffle_seed=4, augment=True, start=5) == whole[15:]
    assert len(opened) < 4


def test_few_images_wait_in_memory(folder: Path) -> None:
    train = source(load(folder, buffer=4).train)
    order = train.shuffled(torch.Generator().manual_seed(0))
    read, most = 0, 0
    stream = train._stream

    def counted(wanted: Tensor) -> Iterator[Any]:
        nonlocal read
        for each in stream(wanted):
            read += 1
            yield each

    object.__setattr__(train, "_stream", counted)
    for handed_out, _ in enumerate(train.pictures(order)):
        most = max(most, read - handed_out)

    assert 1 < most <= 5


def test_a_subset_has_the_right_images_and_reads_their_shards_alone(folder: Path) -> None:
    (folder / "sizes.json").write_text(json.dumps({p.name: tar.count(str(p)) for p in folder.glob("*.tar")}))
    (folder / "train-002.tar").unlink()
    part = load(f"{folder}/train-{{000..003}}.tar", test=f"{folder}/val-000.tar").train.subset(torch.tensor([16, 2, 6]))

    assert greys(part.subset(torch.tensor([2, 0])), 2) == [60, 160]
    assert (len(part), greys(part, 2)) == (3, [160, 20, 60])


def test_whole_shards_are_held_out_and_no_label_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(folder)
    monkeypatch.setattr(shards.Series, "labels", property(lambda self: pytest.fail("read the labels")))

    rest, held = data.held_out(0.4, seed=0)

    assert (len(rest), len(held)) == (11, 8)
    assert sorted([*greys(rest, 4), *greys(held, 4)]) == VALUES
    touched = {int(shard) for shard in source(held)._shards(source(held).indices)}
    assert len(touched) <= 3  # whole ones, and part of one
    assert greys(data.held_out(0.4, seed=0)[1], 4) == greys(held, 4)
    assert any(greys(data.held_out(0.4, seed=seed)[1], 4) != greys(held, 4) for seed in (1, 2, 3))
    assert len(data.held_out(0.0, seed=0)[1]) == 0


@pytest.mark.parametrize(("claimed", "found"), [(6, "5"), (4, "more")])
def test_a_wrong_size_is_found_out(folder: Path, claimed: int, found: str) -> None:
    load(folder)
    sizes = json.loads((folder / "sizes.json").read_text())
    (folder / "sizes.json").write_text(json.dumps({**sizes, "train-000.tar": claimed}))

    with pytest.raises(DataError, match=f"train-000.tar should hold {claimed} images and holds {found}; correct"):
        list(load(folder).train.batches(4))


def test_a_shard_that_ends_between_two_images_is_found_out(folder: Path) -> None:
    load(folder)
    content = (folder / "train-000.tar").read_bytes()
    (folder / "train-000.tar").write_bytes(content[: content.index(b"003.png")])

    with pytest.raises(DataError, match="train-000.tar should hold 5 images and holds 3"):
        list(load(folder).train.batches(4))


@pytest.mark.parametrize("content", ["[1]", '{"a": "b"}', '{"a": -1}', "nonsense"])
def test_malformed_sizes_are_refused(folder: Path, content: str) -> None:
    (folder / "sizes.json").write_text(content)

    with pytest.raises(DataError, match=r"sizes.json (must be|is not valid JSON)"):
        load(folder)


def test_given_sizes_must_have_every_shard(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"train-000.tar": 5}')

    for name in ("mine.json", "gone.json"):
        with pytest.raises(DataError, match=f"{name} must say how many images each shard holds; write it: "):
            load(folder, sizes=str(tmp_path / name))


@pytest.mark.parametrize(("classes", "expected"), [(3, "012"), (["a", "b", "c"], "abc")])
def test_classes_are_a_number_or_names(folder: Path, classes: Any, expected: str) -> None:
    assert load(folder, classes=classes).classes == tuple(expected)


def test_missing_parts_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"names shards to train on; name those to test on too: -o data.test="):
        load(f"{folder}/train-000.tar")
    with pytest.raises(RecipeError, match="data 'webdataset' needs root"):
        load_data("webdataset")
    (folder / "classes.txt").unlink()
    with pytest.raises(
        DataError, match=r"no file .*/classes.txt with the names of the classes; .* -o data.classes=1000"
    ):
        load(folder)
    shard(tmp_path / "empty" / "train-0.tar", {"a.txt": b"", "a.cls": b"0"})
    shard(tmp_path / "empty" / "val-0.tar", {})
    with pytest.raises(DataError, match=r"empty/train-0.tar and the shards after it hold no images"):
        load(tmp_path / "empty", classes=2)
    shard(tmp_path / "alone" / "train-0.tar", {})
    with pytest.raises(DataError, match=r"no shards .*/val-\*.tar"):
        load(tmp_path / "alone")


@pytest.mark.parametrize(("setting", "value"), [("buffer", -1), ("buffer", 0.5), ("classes", 1), ("size", 0)])
def test_a_wrong_setting_is_named(folder: Path, setting: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"data.{setting} must be .*not"):
        load(folder, **{setting: value})


def test_a_command_in_a_recipe_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)

    for settings in ({"test": "pipe:cat x.tar"}, {"sizes": "pipe:cat x"}, {"classes": "pipe:cat x"}):
        with pytest.raises(RecipeError, match="runs a command"):
            load(folder, **settings)
    with pytest.raises(RecipeError, match="runs a command"):
        load_data("pipe:cat x.tar", test="y.tar")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    """The address of a server that has the folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset downloads with curl")
def test_shards_behind_a_url_are_streamed(served: str, folder: Path) -> None:
    pattern = f"{served}/train-{{000..003}}.tar"
    with pytest.raises(DataError, match=r"/sizes.json must say how many images each shard holds"):
        load(pattern, test=f"{served}/val-000.tar")
    here = load(folder)  # writes sizes.json

    there = load(pattern, test=f"{served}/val-000.tar")

    assert there.classes == ("ant", "bee", "cat")
    assert greys(there.train, 4, shuffle_seed=3) == greys(here.train, 4, shuffle_seed=3)
    next(there.train.batches(2))  # gives up early
    (folder / "train-001.tar").unlink()
    with pytest.raises(DataError, match=r"cannot read the shard http://.*/train-001.tar: .*exit 22"):
        list(there.train.batches(4))
