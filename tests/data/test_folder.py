"""Trees of image files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chase.data import load_data
from chase.data.memory import MemorySplit
from chase.data.streamed import IMAGENET_MEAN, StreamedSplit
from chase.errors import DataError, RecipeError

LARGE = (80, 70)


def picture(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def tree(root: Path, size: tuple[int, int], held: str = "val", count: int = 3) -> Path:
    for part, classes in (("train", ("ant", "bee", "cat")), (held, ("ant", "cat"))):
        for number, name in enumerate(classes):
            for index in range(count):
                picture(root / part / name / f"{index}.png", size, 10 * number + index)
    return root


@pytest.mark.parametrize("held", ["val", "test"])
def test_small_images_are_kept_in_memory(tmp_path: Path, held: str) -> None:
    data = load_data(str(tree(tmp_path, (8, 6), held)))

    assert isinstance(data.train, MemorySplit)
    assert data.input_shape == (3, 6, 8)
    assert data.classes == ("ant", "bee", "cat")
    assert len(data.train) == 9
    x = torch.cat([x for x, _ in data.train.batches(4)])
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), unbiased=False), torch.ones(3))


def test_a_class_without_test_images_does_not_shift_the_others(tmp_path: Path) -> None:
    data = load_data("folder", root=str(tree(tmp_path, (8, 8))))

    assert data.test.labels.tolist() == [0, 0, 0, 2, 2, 2]


def test_the_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    data = load_data("folder", root=str(tree(tmp_path, (8, 6))))
    ((x, _),) = data.test.subset(torch.tensor([4])).batches(1)

    pixels = x[0] * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)

    expected = np.array(Image.open(tmp_path / "val" / "cat" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(pixels.mul(255).round().numpy(), expected)


def test_large_images_are_read_when_asked_for(tmp_path: Path) -> None:
    data = load_data("folder", root=str(tree(tmp_path, LARGE)), size=32, workers=0)

    assert isinstance(data.train, StreamedSplit)
    assert (data.input_shape, data.mean) == ((3, 32, 32), IMAGENET_MEAN)
    batches = list(data.test.batches(4))
    assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    assert batches[0][0].dtype == torch.float32
    assert torch.cat([y for _, y in batches]).tolist() == [0, 0, 0, 2, 2, 2]


def test_without_augmentation_large_images_show_their_centre(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        image = Image.new("RGB", (200, 100), "black")
        image.paste("white", (50, 0, 150, 100))
        image.save(tmp_path / part / "a" / "0.png")
    data = load_data("folder", root=str(tmp_path), size=56, workers=0)

    ((x, _),) = data.test.batches(1)

    assert set(x[0, 0].mul(100).round().flatten().tolist()) == {225.0}  # (1 - .485) / .229


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_crops_of_large_images_follow_from_the_seed_not_from_the_workers(tmp_path: Path) -> None:
    root = str(tree(tmp_path, LARGE))
    alone = load_data("folder", root=root, size=16, workers=0).train
    helped = load_data("folder", root=root, size=16, workers=1).train
    state = torch.get_rng_state()

    first = list(alone.batches(4, shuffle_seed=3, augment=True))
    again = list(helped.batches(4, shuffle_seed=3, augment=True))
    other = list(alone.batches(4, shuffle_seed=4, augment=True))

    assert len(first) == alone.num_batches(4, shuffled=True) == 2
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    assert torch.equal(torch.get_rng_state(), state)


def test_large_images_can_be_entered_at_any_batch_and_shared(tmp_path: Path) -> None:
    split = load_data("folder", root=str(tree(tmp_path, LARGE)), size=16, workers=0).train

    _, (x, y) = split.batches(4, shuffle_seed=3, augment=True)
    ((first, _),) = split.batches(4, shuffle_seed=3, augment=True, start=1, shard=(0, 2))
    ((second, labels),) = split.batches(4, shuffle_seed=3, augment=True, start=1, shard=(1, 2))

    assert torch.equal(torch.stack([first, second], 1).flatten(0, 1), x)
    assert torch.equal(labels, y[1::2])


def test_each_large_image_has_its_own_crop(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for index in range(4):
            picture(tmp_path / part / "a" / f"{index}.png", LARGE, seed=0)
    data = load_data("folder", root=str(tmp_path), size=16, workers=0)

    ((x, _),) = data.train.batches(4, shuffle_seed=0, augment=True)

    assert len({tuple(image.flatten().tolist()) for image in x}) == 4


def test_a_subset_of_files_holds_the_right_ones(tmp_path: Path) -> None:
    train = load_data("folder", root=str(tree(tmp_path, LARGE)), size=16, workers=0).train

    part = train.subset(torch.tensor([8, 0]))

    assert part.labels.tolist() == [2, 0]
    assert len(part) == 2


def test_a_broken_image_is_named_in_one_line(tmp_path: Path) -> None:
    tree(tmp_path, LARGE)
    (tmp_path / "val" / "cat" / "1.png").write_bytes(b"no image")
    data = load_data("folder", root=str(tmp_path), size=16, workers=0)

    with pytest.raises(DataError) as caught:
        list(data.test.batches(4))

    assert str(caught.value).startswith(f"cannot read the image {tmp_path}/val/cat/1.png: ")
    assert "\n" not in str(caught.value)


def test_small_images_must_share_one_size(tmp_path: Path) -> None:
    tree(tmp_path, (8, 8))
    picture(tmp_path / "train" / "bee" / "1.png", (9, 8), seed=0)

    with pytest.raises(DataError, match=r"train/bee/1.png is 9x8 and the first image 8x8"):
        load_data("folder", root=str(tmp_path))


def test_a_tree_without_train_says_how_to_lay_it_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no folder {tmp_path}/train; lay the images out as .*/<class>/<image>"):
        load_data(str(tmp_path))


def test_a_folder_without_classes_says_so(tmp_path: Path) -> None:
    tree(tmp_path, (8, 8))
    (tmp_path / "test").mkdir()

    with pytest.raises(DataError, match="test has no images in class folders: .*expected <class>/<image>"):
        load_data(str(tmp_path))


def test_a_class_that_is_only_in_the_test_part_is_named(tmp_path: Path) -> None:
    tree(tmp_path, (8, 8))
    picture(tmp_path / "val" / "dog" / "0.png", (8, 8), seed=0)

    with pytest.raises(DataError, match="val has the class 'dog', which .*train has not"):
        load_data(str(tmp_path))


def test_a_folder_needs_a_root() -> None:
    with pytest.raises(RecipeError, match="data 'folder' needs root"):
        load_data("folder")


@pytest.mark.parametrize(("setting", "value"), [("size", 0), ("size", "big"), ("workers", -1), ("workers", 1.5)])
def test_a_wrong_setting_of_a_folder_is_named(tmp_path: Path, setting: str, value: object) -> None:
    tree(tmp_path, LARGE)

    with pytest.raises(RecipeError, match=f"data.{setting} must be .*, not {value!r}"):
        load_data("folder", root=str(tmp_path), **{setting: value})


def test_imagenet_is_a_tree_with_train_and_val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASE_DATA", str(tmp_path))
    tree(tmp_path / "imagenet", LARGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data("imagenet")

    assert (data.name, data.input_shape, len(data.test)) == ("imagenet", (3, 224, 224), 6)


def test_missing_imagenet_says_where_it_was_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHASE_DATA", raising=False)

    with pytest.raises(DataError, match="no folder data/imagenet/train; lay the images out"):
        load_data("imagenet")
