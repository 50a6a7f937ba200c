"""Sets larger than a disk: WebDataset tar shards, local or behind any URL that the webdataset library opens.

The main process reads the shards one after the other; workers decode. Each image has a position, so an epoch's order is
known before anything is read: it needs the number of images of each shard, which `sizes.json` beside them holds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from chase.data import tar
from chase.data.decoding import Picture
from chase.data.split import Data, Split
from chase.data.streamed import StreamedSplit, streamed_data
from chase.errors import DataError, OutputError, RecipeError
from chase.files import write_json

SIZES = "sizes.json"
CLASSES = "classes.txt"


@dataclass(frozen=True)
class Series:
    """The shards of one split in order: where they are, the images in each, and how their labels are read."""

    urls: tuple[str, ...]
    sizes: tuple[int, ...]
    names: tar.Names

    @cached_property
    def ends(self) -> Tensor:
        """Where each shard ends in the series, int64 [shards]."""
        return torch.tensor(self.sizes).cumsum(0)

    @cached_property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n]; takes a pass over all shards."""
        return torch.tensor([self.names.label(each) for number in range(len(self.urls)) for each in self.read(number)])

    def read(self, number: int) -> Iterator[tar.Sample]:
        """The samples of a shard, in order.

        Raises:
            DataError: if it cannot be read or holds more or fewer than it should.
        """
        url, expected, found = self.urls[number], self.sizes[number], 0
        for found, sample in enumerate(tar.samples(url), start=1):
            if found > expected:
                break
            yield sample
        if found != expected:
            more = "more" if found > expected else f"{found}"
            raise DataError(f"{url} should hold {expected} images and holds {more}; correct or remove its {SIZES}")


@dataclass(frozen=True)
class Shards:
    """The images at `indices` of a series: a `Source`. `buffer` is how far shuffling moves an image from its place."""

    series: Series
    indices: Tensor
    buffer: int

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [n]; takes a pass over all shards."""
        return self.series.labels[self.indices]

    def subset(self, indices: Tensor) -> Shards:
        """The images at `indices` (int64 [m]), none twice, in that order."""
        return replace(self, indices=self.indices[indices])

    def in_random_shards(self, generator: torch.Generator) -> Tensor:
        """An order that takes whole shards, int64 [n]: these in random order, their images as they lie there."""
        place = torch.randperm(len(self.series.urls), generator=generator)
        return place[self._shards(self.indices)].argsort(stable=True)

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Shards in random order, and each image moved by up to `buffer` places, int64 [n].

        So the shards are read once, and at most `buffer` encoded images wait in memory.
        """
        streamed = self.in_random_shards(generator)
        delay = self.buffer * torch.rand(len(self), generator=generator, dtype=torch.float64)
        return streamed[(torch.arange(len(self)) + delay).argsort(stable=True)]

    def pictures(self, order: Tensor) -> Iterator[Picture]:
        """The images at the positions `order` (int64 [m]), in that order; shards without any of them are not opened."""
        wanted = self.indices[order]
        waiting: dict[int, Picture] = {}
        stream = self._stream(wanted)
        for position in wanted.tolist():
            while position not in waiting:
                found, picture = next(stream)
                waiting[found] = picture
            yield waiting.pop(position)

    def _stream(self, wanted: Tensor) -> Iterator[tuple[int, Picture]]:
        """Each wanted image with its position in the series; shards come in the order in which they are needed."""
        needed = torch.zeros(int(self.series.ends[-1]), dtype=torch.bool)
        needed[wanted] = True
        for number in dict.fromkeys(self._shards(wanted).tolist()):
            first = int(self.series.ends[number]) - self.series.sizes[number]
            for position, sample in enumerate(self.series.read(number), start=first):
                if needed[position]:
                    yield position, Picture(sample.name, self.series.names.label(sample), sample.image)

    def _shards(self, positions: Tensor) -> Tensor:
        return torch.bucketize(positions, self.series.ends, right=True)


def by_shard(split: Split, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out whole shards (and part of one, to be exact): a look at the labels would take a pass; see `Divide`."""
    assert isinstance(split, StreamedSplit)
    assert isinstance(split.source, Shards)
    order = split.source.in_random_shards(torch.Generator().manual_seed(seed))
    rest, held = order.tensor_split([len(order) - max(round(fraction * len(order)), 1)])
    return rest.sort().values, held.sort().values


def load_shards(
    root: str | None = None,
    *,
    test: str | None = None,
    classes: int | str | Sequence[str] | None = None,
    sizes: str | None = None,
    label: str = "label",
    buffer: int = 4096,
    size: int = 224,
    workers: int | None = None,
) -> Data:
    """Tar shards: the folder `root` with train-*.tar and test-*.tar (val-*.tar, if there are no test-*.tar).

    Or `root` and `test` are paths or URLs, with braces for many: shards/train-{000000..000146}.tar. A sample is an
    image and its label of the same name: NAME.jpg and NAME.cls, or NAME.json with the key `label`; the label is a
    number or the name of a class.

    `classes` is their number, their names, or a file with a name per line: by default classes.txt beside the shards.
    `sizes` is a JSON file {shard: images}: by default sizes.json beside the shards, where local ones are counted once
    and it is written. `buffer` images are shuffled at a time; `size` and `workers` are as in `load_folder`.

    Raises:
        MissingDependency: if webdataset is not installed.
        DataError: if the shards or a file beside them are missing or malformed.
        RecipeError: if a setting is out of range, or `root` is a command (pipe:…) and CHASE_TRUST_CODE is not 1.
    """
    if root is None:
        raise RecipeError(
            "data 'webdataset' needs root, a folder with train-*.tar and val-*.tar, or a path or URL of shards"
        )
    if type(buffer) is not int or buffer < 0:
        raise RecipeError(f"data.buffer must be a number of images from 0 up, not {buffer!r}")
    train, held = _find(root, test)
    names = tar.Names(class_names(classes, train[0]), label)
    parts = [_whole(Series(urls, sizes_of(urls, sizes), names), buffer) for urls in (train, held)]
    return streamed_data(
        root, names.classes, train=parts[0], test=parts[1], size=size, workers=workers, divide=by_shard
    )


def _whole(series: Series, buffer: int) -> Shards:
    if not sum(series.sizes):
        raise DataError(f"{series.urls[0]} and the shards after it hold no images ({', '.join(tar.IMAGES)})")
    return Shards(series, torch.arange(int(series.ends[-1])), buffer)


def _find(root: str, test: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The shards for training and for testing."""
    if Path(root).is_dir():
        held = "test" if any(Path(root).glob("test-*.tar")) else "val"
        return _inside(root, "train"), tar.expand(test) if test else _inside(root, held)
    if test is None:
        raise RecipeError(
            f"data {root!r} names shards to train on; name those to test on too: -o data.test=PATH_OR_URL"
        )
    return tar.expand(root), tar.expand(test)


def _inside(folder: str, part: str) -> tuple[str, ...]:
    found = tuple(sorted(map(str, Path(folder).glob(f"{part}-*.tar"))))
    if not found:
        raise DataError(
            f"no shards {folder}/{part}-*.tar; write them with webdataset.ShardWriter, or choose another folder"
        )
    return found


def class_names(given: int | str | Sequence[str] | None, shard: str) -> tuple[str, ...]:
    """The names of the classes: `given`, as a number or names, or read from a file with one per line.

    Raises:
        DataError: if there is no such file.
        RecipeError: if there are fewer than two classes.
    """
    if given is None or isinstance(given, str):
        place = given or tar.beside(shard, CLASSES)
        text = tar.text(place)
        if text is None:
            raise DataError(f"no file {place} with the names of the classes; write it, or say -o data.classes=1000")
        given = [line.strip() for line in text.splitlines() if line.strip()]
    names = tuple(map(str, range(given) if isinstance(given, int) else given))
    if len(names) < 2:
        raise RecipeError(f"data.classes must be a number from 2 up, names or a file of them, not {given!r}")
    return names


def sizes_of(urls: Sequence[str], given: str | None) -> tuple[int, ...]:
    """The number of images in each shard: from `given` or sizes.json beside them, or counted if they are local.

    Raises:
        DataError: if there is no such file, it is malformed, or it lacks a shard that is not local.
    """
    place = given or tar.beside(urls[0], SIZES)
    known = _sizes(place)
    missing = [url for url in urls if tar.name_of(url) not in known]
    if missing and (given or any(map(tar.is_remote, missing))):
        example = f'{{"{tar.name_of(missing[0])}": NUMBER_OF_IMAGES, …}}'
        raise DataError(f"{place} must say how many images each shard holds; write it: {example}")
    if missing:
        known |= {tar.name_of(url): tar.count(url) for url in missing}
        with contextlib.suppress(OutputError):  # shards in a folder that cannot be written are counted each time
            write_json(place, known)
    return tuple(known[tar.name_of(url)] for url in urls)


def _sizes(place: str) -> dict[str, int]:
    text = tar.text(place)
    try:
        known = {} if text is None else json.loads(text)
    except ValueError as error:
        raise DataError(f"{place} is not valid JSON ({error}); correct or remove it") from error
    if not isinstance(known, dict) or not all(type(size) is int and size >= 0 for size in known.values()):
        raise DataError(f"{place} must be {{shard: number of images}}; correct or remove it")
    return known
