"""Splits that are decoded by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from jpegs import encoded, noise
from torch import Tensor

from chase.data import streamed
from chase.data.decoding import Picture, centre_crop, opened, pixels
from chase.data.folder import Files
from chase.data.streamed import StreamedSplit, Workers
from chase.errors import DataError, RecipeError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@dataclass(frozen=True)
class Encoded:
    """A source in memory."""

    contents: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.contents)

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self))

    def subset(self, indices: Tensor) -> Encoded:
        return Encoded(tuple(self.contents[index] for index in indices.tolist()))

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self), generator=generator)

    def pictures(self, order: Tensor) -> Iterator[Picture]:
        return (Picture(f"image {index}", index, self.contents[index]) for index in order.tolist())


POOL = Workers(8, 1)  # outlives the tests: torch takes 5 s to take down workers that an exception refers to
CONTENTS = tuple(encoded(noise(20, 18, seed)) for seed in range(11))


def split(workers: Workers, contents: tuple[bytes, ...] = CONTENTS) -> StreamedSplit:
    return StreamedSplit(source=Encoded(contents), workers=workers, mean=(0.5,) * 3, std=(0.25,) * 3)


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    same = (torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(one, other, strict=True))
    return all(same)


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    alone, helped = split(Workers(8, 0)), split(Workers(8, 2))

    for seed in (1, 2):
        expected = list(alone.batches(3, shuffle_seed=seed, augment=True))
        assert len(expected) == alone.num_batches(3, shuffled=True) == 3
        assert equal(expected, list(helped.batches(3, shuffle_seed=seed, augment=True)))
    assert equal(list(alone.batches(4)), list(helped.batches(4)))


def test_an_epoch_can_start_in_its_middle() -> None:
    mine = split(Workers(8, 0))
    whole = list(mine.batches(3, shuffle_seed=5, augment=True))

    assert equal(list(mine.batches(3, shuffle_seed=5, augment=True, start=2)), whole[2:])
    assert list(mine.batches(3, shuffle_seed=5, augment=True, start=3)) == []


def test_processes_divide_each_batch_among_them() -> None:
    mine = split(Workers(8, 0))
    whole = list(mine.batches(4, shuffle_seed=5, augment=True))

    parts = [list(mine.batches(4, shuffle_seed=5, augment=True, shard=(rank, 2))) for rank in (0, 1)]

    for (x, y), (x0, y0), (x1, y1) in zip(whole, *parts, strict=True):
        assert torch.equal(x, torch.stack([x0, x1], 1).flatten(0, 1))
        assert torch.equal(y, torch.stack([y0, y1], 1).flatten())


def test_the_processes_live_on_from_epoch_to_epoch_and_serve_every_split() -> None:
    mine = split(POOL)

    def process() -> int:
        ((loader, _),) = POOL._idle.values()
        return int(loader._iterator._workers[0].pid)  # type: ignore[union-attr]

    list(mine.batches(4, shuffle_seed=0, augment=True))
    first = process()
    list(mine.batches(4, shuffle_seed=1, augment=True))
    list(mine.subset(torch.tensor([2, 1])).batches(4))

    assert process() == first


def test_a_pass_that_was_given_up_leaves_nothing_behind() -> None:
    helped = split(POOL)
    next(helped.batches(1, shuffle_seed=0))

    assert equal(list(helped.batches(3)), list(split(Workers(8, 0)).batches(3)))


def test_two_passes_at_the_same_moment_do_not_meet() -> None:
    alone = list(split(Workers(8, 0)).batches(3))

    pairs = list(zip(split(POOL).batches(3), split(POOL).batches(3), strict=True))

    assert equal([one for one, _ in pairs], alone)
    assert equal([other for _, other in pairs], alone)


def test_after_a_broken_image_the_next_pass_works() -> None:
    with pytest.raises(DataError, match="^cannot read the image image 1: .*; remove or replace it$"):
        list(split(POOL, (CONTENTS[0], b"junk", CONTENTS[2])).batches(1))

    assert len(list(split(POOL).batches(4))) == 3


def test_the_values_are_those_of_the_pixels() -> None:
    mine = split(Workers(18, 0)).normalised_with((0, 0, 0), (1 / 255,) * 3)

    ((x, y),) = mine.subset(torch.tensor([7])).batches(1)

    with opened("it", CONTENTS[7]) as image:
        assert torch.equal(x[0].round().byte(), centre_crop(pixels(image), 18))
    assert y.tolist() == [0]


def test_files_are_read_where_they_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(CONTENTS[0])
    files = Files((str(tmp_path / "a.jpg"), "gone.jpg"), torch.tensor([4, 5]))

    assert list(files.pictures(torch.tensor([1, 0]))) == [Picture("gone.jpg", 5), Picture(str(tmp_path / "a.jpg"), 4)]


def test_the_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(32)), raising=False)
    assert streamed._cores() == 32
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert streamed._cores() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert streamed._cores() == 1


def test_batches_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(RecipeError, match="batches of 3 from 9 images cannot be divided among 2 processes"):
        split(Workers(8, 0)).batches(3, shuffle_seed=1, shard=(0, 2))
