"""One WebDataset tar shard: opened by the webdataset library, read here, so that nothing in it is ever unpickled."""

from __future__ import annotations

import contextlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlparse

from chase.errors import ChaseError, DataError, MissingDependency, RecipeError
from chase.packages import require
from chase.trust import HINT, trusted

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm")
LABELS = ("cls", "json")
PICKLES = ("pyd", "pkl", "pickle", "pth", "pt")  # what webdataset itself would unpickle
READ = (*IMAGES, *LABELS, *PICKLES)
BROKEN = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


class Sample(NamedTuple):
    """An image as it is encoded, and the members that may hold its label."""

    name: str
    image: bytes
    labels: dict[str, bytes]


@dataclass(frozen=True)
class Names:
    """The classes, and the key of the label in a .json member."""

    classes: tuple[str, ...]
    key: str

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    def label(self, sample: Sample) -> int:
        """The class of a sample: the content of its .cls, else the value in its .json; a number or a name.

        Raises:
            DataError: if it has neither, or one that is no class.
        """
        value = self._value(sample)
        text = str(value).strip()
        number = int(text) if text.isdecimal() else self._numbers.get(text, -1)
        if not 0 <= number < len(self.classes):
            raise DataError(f"{sample.name} has the label {text!r}, which is none of {len(self.classes)} classes")
        return number

    def _value(self, sample: Sample) -> Any:
        try:
            if "cls" in sample.labels:
                return sample.labels["cls"].decode()
            return json.loads(sample.labels["json"])[self.key]
        except (KeyError, TypeError, ValueError) as error:
            needed = f"a .cls, or a .json with the key {self.key!r} (data.label)"
            raise DataError(f"{sample.name} has no label; each image needs {needed}") from error


def samples(url: str) -> Iterator[Sample]:
    """What the shard at `url` holds, in order.

    Raises:
        MissingDependency: if webdataset is not installed.
        DataError: if the shard cannot be read to its end, or holds a pickle or a sample without exactly one image.
    """
    tariterators = _library("tariterators")
    with _reported(url), _opened(url) as stream:
        members = tariterators.tar_file_expander(
            [{"url": url, "stream": stream}], select_files=lambda name: _suffix(name) in READ
        )
        for group in tariterators.group_by_keys(members):
            yield _sample(url, group)
        while stream.read(1 << 16):  # what pads the archive, and then the exit status of a download
            pass


def _sample(url: str, group: dict[str, Any]) -> Sample:
    name = f"{group['__key__']} in {url}"
    suffixes = [suffix for suffix in group if not suffix.startswith("__")]
    if any(suffix in PICKLES for suffix in suffixes):
        raise DataError(f"{name} has a pickle, which may run code when it is read; write it as .cls or .json")
    found = [suffix for suffix in suffixes if suffix in IMAGES]
    if len(found) != 1:
        raise DataError(f"{name} has {len(found)} images ({', '.join(IMAGES)}); it must have one")
    labels = {suffix: group[suffix] for suffix in suffixes if suffix in LABELS}
    return Sample(name, group[found[0]], labels)


def count(path: str) -> int:
    """The images in a local shard, by the headers alone.

    Raises:
        DataError: if it cannot be read.
    """
    with _reported(path), tarfile.open(path) as archive:
        return sum(member.isreg() and _suffix(member.name) in IMAGES for member in archive)


def text(url: str) -> str | None:
    """The content of a small file; None if there is none."""
    if not is_remote(url) and not Path(url).exists():
        return None
    try:
        with _opened(url) as stream:
            return str(stream.read().decode())
    except ChaseError:
        raise
    except BROKEN:
        if is_remote(url):  # a failed download does not tell why it failed
            return None
        raise DataError(f"cannot read {url}; it must be a text file in UTF-8") from None


def expand(pattern: str) -> tuple[str, ...]:
    """The shards that `pattern` names, with braces as in {000..146}, and * where they are local.

    Raises:
        DataError: if there are none.
        RecipeError: if braces do not match, or it is a command and CHASE_TRUST_CODE is not 1.
    """
    try:
        urls = _library("shardlists").expand_urls(re.sub("^file:(//)?", "", pattern))
    except ValueError as error:
        raise RecipeError(f"data {pattern!r}: {error}; write braces as in train-{{000..146}}.tar") from error
    found = [path for url in urls for path in (sorted(glob(url)) if _has_wildcard(url) else [url])]
    if not found:
        raise DataError(f"no shards {pattern}; write them with webdataset.ShardWriter, or choose other ones")
    _refuse_commands(found[0])
    return tuple(found)


def is_remote(url: str) -> bool:
    """Whether it is a URL or a command, rather than a path."""
    return bool(urlparse(url).scheme)


def name_of(url: str) -> str:
    """The file name of a shard, without what a URL or a command has around it."""
    found: list[str] = re.findall(r"[^/\\\s?]+\.(?:tar|tgz)(?:\.\w+)?", url)
    return found[-1] if found else url.rpartition("/")[2]


def beside(url: str, name: str) -> str:
    """The file called `name` in the place of a shard."""
    before, _, after = url.rpartition(name_of(url))
    return before + name + after


def _has_wildcard(url: str) -> bool:
    return not is_remote(url) and any(sign in url for sign in "*?[")


def _suffix(name: str) -> str | None:
    """Everything behind the first dot of a member's name, in lower case; None if it belongs to no sample."""
    suffix: str | None = _library("tariterators").base_plus_ext(name)[1]
    return suffix and suffix.lower()


@contextlib.contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    _refuse_commands(url)
    gopen = _library("gopen")
    with _started(gopen, url) as stream:
        try:
            yield stream
        except GeneratorExit:  # nobody reads on: a download that fails for that has not failed
            gopen.set_options(stream, ignore_errors=True)
            raise


def _started(gopen: Any, url: str) -> Any:
    try:
        return gopen.gopen(url)
    except (FileNotFoundError, ImportError) as error:
        if not is_remote(url):
            raise
        needed = error.name if isinstance(error, ImportError) else error.filename
        raise MissingDependency(f"{url} is read with {needed}, which is not here; install it") from error


def _refuse_commands(url: str) -> None:
    """A recipe or a checkpoint from elsewhere must not be able to run a command.

    Raises:
        RecipeError: if `url` is one and CHASE_TRUST_CODE is not 1.
    """
    if urlparse(url).scheme == "pipe" and not trusted():
        raise RecipeError(f"data {url!r} runs a command; if you trust it, {HINT}")


@contextlib.contextmanager
def _reported(url: str) -> Iterator[None]:
    try:
        yield
    except ChaseError:  # some of them are ValueErrors
        raise
    except BROKEN as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error.args[0]
        raise DataError(f"cannot read the shard {url}: {' '.join(str(why).split())}") from error


def _library(module: str) -> Any:
    install = "'chase-sparse[webdataset]'"
    return require(f"webdataset.{module}", purpose="reading tar shards", install=install, package="webdataset")
