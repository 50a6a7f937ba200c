"""One tar shard."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from jpegs import shard

from chase.data import tar
from chase.data.tar import Names, Sample, samples
from chase.errors import DataError, MissingDependency, RecipeError

pytest.importorskip("webdataset", reason="webdataset is not installed")

NAMES = Names(("ant", "bee", "42"), "label")


def test_members_of_one_name_are_a_sample_in_the_order_of_the_shard(tmp_path: Path) -> None:
    members = {"n/b.jpg": b"B", "n/b.cls": b"1", "a.PNG": b"A", "a.json": b"{}", "a.txt": b"a caption"}
    url = str(shard(tmp_path / "x.tar", members))

    assert list(samples(url)) == [
        Sample(f"n/b in {url}", b"B", {"cls": b"1"}),
        Sample(f"a in {url}", b"A", {"json": b"{}"}),
    ]
    assert tar.count(url) == 2


def test_a_compressed_shard_is_read_too(tmp_path: Path) -> None:
    import gzip

    plain = shard(tmp_path / "x.tar", {"a.jpg": b"A", "a.cls": b"0"})
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))

    assert [sample.image for sample in samples(str(tmp_path / "y.tar.gz"))] == [b"A"]
    assert tar.count(str(tmp_path / "y.tar.gz")) == 1


def test_hidden_files_of_other_systems_are_no_images(tmp_path: Path) -> None:
    url = str(shard(tmp_path / "x.tar", {"a.jpg": b"A", "._a.jpg": b"junk", "a.cls": b"0", "README": b""}))

    assert tar.count(url) == len(list(samples(url))) == 1


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the pickle was read",)


@pytest.mark.parametrize("suffix", ["pyd", "pkl", "pickle", "pth", "pt"])
def test_a_pickle_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    url = str(shard(tmp_path / "x.tar", {"a.jpg": b"A", f"a.{suffix}": pickle.dumps(Trap())}))

    with pytest.raises(DataError, match=r"a in .*x.tar has a pickle, which may run code when it is read"):
        list(samples(url))


@pytest.mark.parametrize(("members", "found"), [({"a.cls": b"0"}, 0), ({"a.jpg": b"", "a.png": b"", "a.cls": b""}, 2)])
def test_a_sample_has_one_image(tmp_path: Path, members: dict[str, bytes], found: int) -> None:
    with pytest.raises(DataError, match=f"a in .* has {found} images .*; it must have one"):
        list(samples(str(shard(tmp_path / "x.tar", members))))


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {"a.jpg": bytes(400), "a.cls": b"0", "b.jpg": bytes(400)})
    path.write_bytes(path.read_bytes()[:700])

    with pytest.raises(DataError, match=r"cannot read the shard .*x.tar: unexpected end of data"):
        list(samples(str(path)))


def test_a_shard_that_is_missing_or_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no archive")

    with pytest.raises(DataError, match=r"cannot read the shard gone.tar: No such file or directory"):
        list(samples("gone.tar"))
    for read in (lambda url: list(samples(url)), tar.count):
        with pytest.raises(DataError, match="cannot read the shard .*text.tar: "):
            read(str(tmp_path / "text.tar"))
    with pytest.raises(DataError, match="cannot read the shard nowhere://x.tar: .*no gopen handler"):
        list(samples("nowhere://x.tar"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"cls": b"1"}, 1),
        ({"cls": b"2\n"}, 2),
        ({"cls": b"bee"}, 1),
        ({"json": b'{"label": 2}'}, 2),
        ({"json": b'{"label": "ant", "more": [1]}'}, 0),
        ({"cls": b"0", "json": b'{"label": 1}'}, 0),
    ],
)
def test_a_label_is_a_number_or_a_name(labels: dict[str, bytes], expected: int) -> None:
    assert NAMES.label(Sample("it", b"", labels)) == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "it has no label; each image needs a .cls, or a .json with the key 'label'"),
        ({"json": b"{}"}, "it has no label"),
        ({"json": b"[1]"}, "it has no label"),
        ({"json": b"nonsense"}, "it has no label"),
        ({"cls": b"\xff"}, "it has no label"),
        ({"cls": b"3"}, "it has the label '3', which is none of 3 classes"),
        ({"cls": b"-1"}, "it has the label '-1'"),
        ({"cls": b"wasp"}, "it has the label 'wasp'"),
        ({"json": b'{"label": 1.5}'}, "it has the label '1.5'"),
        ({"json": b'{"label": null}'}, "it has the label 'None'"),
    ],
)
def test_a_label_that_is_none_is_refused(labels: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        NAMES.label(Sample("it", b"", labels))


def test_patterns_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        shard(tmp_path / f"{name}.tar", {})

    assert tar.expand("s/x-{008..010}.tar") == ("s/x-008.tar", "s/x-009.tar", "s/x-010.tar")
    assert tar.expand(f"{tmp_path}/[ab].tar") == (f"{tmp_path}/a.tar", f"{tmp_path}/b.tar")
    assert tar.expand("file:///a/b.tar") == ("/a/b.tar",)
    assert tar.expand("https://h/{a,b}.tar?x=1") == ("https://h/a.tar?x=1", "https://h/b.tar?x=1")
    with pytest.raises(DataError, match="no shards nowhere/x-"):
        tar.expand("nowhere/x-*.tar")


@pytest.mark.parametrize(
    ("url", "name", "beside"),
    [
        ("s/x-000.tar", "x-000.tar", "s/sizes.json"),
        ("x.tar", "x.tar", "sizes.json"),
        ("https://h/s/x.tar?key=1/2", "x.tar", "https://h/s/sizes.json?key=1/2"),
        ("pipe:aws s3 cp s3://bucket/x.tar -", "x.tar", "pipe:aws s3 cp s3://bucket/sizes.json -"),
        ("s/x.tar.gz", "x.tar.gz", "s/sizes.json"),
        ("gs://bucket/shards/5", "5", "gs://bucket/shards/sizes.json"),
    ],
)
def test_a_shard_has_a_name_and_files_beside_it(url: str, name: str, beside: str) -> None:
    assert tar.name_of(url) == name
    assert tar.beside(url, "sizes.json") == beside


@pytest.mark.parametrize("url", ["pipe:touch owned", "PIPE:touch owned", " pipe:touch owned"])
def test_a_command_is_run_only_if_trusted(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)

    for read in (lambda url: list(samples(url)), tar.expand, tar.text):
        with pytest.raises(RecipeError, match="runs a command; if you trust it, pass --trust-code"):
            read(url)
    assert list(tmp_path.iterdir()) == []


def test_a_trusted_command_is_read_and_its_failure_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    path = shard(tmp_path / "x.tar", {f"{number}.jpg": bytes(200_000) for number in range(4)})

    assert len(list(samples(f"pipe:cat {path}"))) == 4
    assert next(samples(f"pipe:cat {path}")).image == bytes(200_000)  # gives up early, which is no failure
    with pytest.raises(DataError, match="cannot read the shard pipe:cat .*exit 3"):
        list(samples(f"pipe:cat {path}; exit 3"))


def test_a_program_that_a_url_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    for read in (lambda url: list(samples(url)), tar.text):
        with pytest.raises(MissingDependency, match=r"https://h/x.tar is read with curl, which is not here"):
            read("https://h/x.tar")


def test_small_files_are_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("ä\n")
    (tmp_path / "bytes").write_bytes(b"\xff")

    assert tar.text(str(tmp_path / "names")) == "ä\n"
    assert tar.text(str(tmp_path / "gone")) is None
    with pytest.raises(DataError, match="bytes; it must be a text file in UTF-8"):
        tar.text(str(tmp_path / "bytes"))


def test_webdataset_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    for module in ("shardlists", "gopen", "tariterators"):
        monkeypatch.delitem(sys.modules, f"webdataset.{module}", raising=False)

    with pytest.raises(MissingDependency, match=r"webdataset; run: pip install 'chase-sparse\[webdataset\]'"):
        tar.expand("x.tar")
