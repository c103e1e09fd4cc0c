"""Splits: from lists, from the caption file, or by a hash of the name."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from helpers.data_sets import FLICKR8K, contents, csv_text, left_out, write, write_images
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.splits import SPLITS, known_split, split_note
from imgcap.errors import ImgcapError


def flickr8k(tmp_path: Path) -> tuple[Path, Path, dict[str, Path]]:
    """Flickr8k in small, with an odd entry, a missing image and one that is in no split."""
    write(
        tmp_path,
        {
            "tokens.txt": FLICKR8K,
            "train.txt": "1000_a.jpg\n1002_c.jpg\n",
            "dev.txt": "\ufeff1001_b.jpg\r\n\r\n",
            "test.txt": " 1003_d ",
        },
    )
    image_folder = write_images(tmp_path / "images", "1000_a.jpg", "1001_b.jpg", "1003_d.jpg", "1004_e.jpg")
    splits = {"train": tmp_path / "train.txt", "val": tmp_path / "dev.txt", "test": tmp_path / "test.txt"}
    return image_folder, tmp_path / "tokens.txt", splits


def test_split_lists_override_and_missing_images_are_named(tmp_path: Path) -> None:
    image_folder, tokens, splits = flickr8k(tmp_path)
    dataset = read_dataset(image_folder, tokens, split_files=splits)
    assert {path: split for path, (_, split) in contents(dataset).items()} == {
        "1000_a.jpg": "train",
        "1001_b.jpg": "val",
        "1003_d.jpg": "test",
        "1004_e.jpg": None,
    }
    assert left_out(dataset) == {
        "2258277193_586949ec62.jpg.1": "has captions, but its name does not end like an image's",
        "1002_c.jpg": "has captions, but no image",
    }


def test_split_lists_override_the_splits_of_the_caption_file(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption,split\na.jpg,x,test\nb.jpg,y,test\n", "train.txt": "a.jpg\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={"train": tmp_path / "train.txt"})
    assert {record.path: record.split for record in dataset.records} == {"a.jpg": "train", "b.jpg": None}


def test_names_in_a_split_list_that_belong_to_nothing_are_left_out(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n", "train.txt": "a.jpg\nb.jpg\nmissing.jpg\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={"train": tmp_path / "train.txt"})
    assert left_out(dataset) == {
        "missing.jpg": "is in the train list, but has no image",
        "b.jpg": "is in a split list, but has no caption",
        "c.jpg": "no caption names it",
    }


def test_naming_an_image_twice_in_one_list_is_allowed(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n", "train.txt": "a.jpg\na\n./a.jpg\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={"train": tmp_path / "train.txt"})
    assert [record.split for record in dataset.records] == ["train"]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"train": "nothing.jpg\nat all\n"}, "The split list TRAIN names none of the images."),
        ({"train": ""}, "The split list TRAIN names none of the images."),
        ({"train": b"\xe4.jpg\n"}, "TRAIN, line 1 is not UTF-8 text."),
        ({"train": None}, "TRAIN cannot be read: no such file or directory."),
    ],
)
def test_split_lists_that_do_not_fit_are_one_sentence(
    tmp_path: Path, lists: dict[str, str | bytes | None], sentence: str
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\nb.jpg,y\n"})
    write(tmp_path, {f"{name}.txt": content for name, content in lists.items() if content is not None})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv", split_files={name: tmp_path / f"{name}.txt" for name in lists})
    assert str(caught.value) == sentence.replace("TRAIN", str(tmp_path / "train.txt"))


def test_an_image_in_two_split_lists_is_left_out(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    lists = {"train": "a.jpg\nb.jpg\n", "val": "c.jpg\na.jpg\n", "test": "a.jpg\n"}
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\nb.jpg,y\nc.jpg,z\n"})
    write(tmp_path, {f"{name}.txt": content for name, content in lists.items()})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={n: tmp_path / f"{n}.txt" for n in lists})
    assert {record.path: record.split for record in dataset.records} == {"b.jpg": "train", "c.jpg": "val"}
    assert left_out(dataset) == {"a.jpg": "is in two split lists, train and val"}


@pytest.mark.parametrize(
    ("splits", "note"),
    [
        (["train", "val"], ""),
        (["train"] * 199 + ["test", None], ""),  # a fixed number of epochs needs no val split
        (["train"] * 200 + ["test", None], "no images in the split 'val', whose score chooses"),
        (["test", "val"], "no images in the split 'train'"),
        ([None], "no images in the split 'train'"),
    ],
)
def test_a_note_says_which_split_training_would_miss(splits: list[str | None], note: str) -> None:
    assert note in split_note(splits)
    assert bool(note) == bool(split_note(splits))


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("restval", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("VALIDATION", "val"),
        (" dev\n", "val"),
        ("test", "test"),
    ],
)
def test_split_names_that_people_use(text: str, split: str) -> None:
    assert known_split(text) == split


@pytest.mark.parametrize("text", ["", "holdout", "train2014"])
def test_other_names_are_of_no_split(text: str) -> None:
    assert known_split(text) is None


def automatic(tmp_path: Path, names: list[str]) -> dict[str, str | None]:
    folder = tmp_path / hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    image_folder = write_images(folder, *names)
    write(tmp_path, {"all.csv": csv_text(["image", "caption"], *([n, f"{n} {i}"] for n in names for i in range(2)))})
    return {record.path: record.split for record in read_dataset(image_folder, tmp_path / "all.csv").records}


def test_automatic_splits_are_by_image_and_always_the_same(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(500)]
    splits = automatic(tmp_path, names)
    assert splits == automatic(tmp_path, names)
    assert splits == automatic(tmp_path, names[::-1])
    counts = Counter(splits.values())
    assert set(counts) == set(SPLITS)
    assert counts["train"] == pytest.approx(400, abs=30)
    assert counts["val"] == pytest.approx(50, abs=25)
    assert counts["test"] == pytest.approx(50, abs=25)
    assert [splits[f"{i}.jpg"] for i in range(12)] == [automatic(tmp_path, names[:250])[f"{i}.jpg"] for i in range(12)]


def test_adding_images_leaves_the_others_in_their_split(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(400)]
    before, after = automatic(tmp_path, names[:200]), automatic(tmp_path, names)
    assert {name: after[name] for name in before} == before


def test_no_split_is_empty_from_three_images_on(tmp_path: Path) -> None:
    for count in (3, 4, 5, 10, 20):
        for start in range(20):
            splits = automatic(tmp_path, [f"{start}-{i}.jpg" for i in range(count)])
            assert set(splits.values()) == set(SPLITS), (count, start)


def test_one_or_two_images_are_in_train(tmp_path: Path) -> None:
    for count in (1, 2):
        for start in range(20):
            splits = automatic(tmp_path, [f"{start}-{i}.jpg" for i in range(count)])
            assert set(splits.values()) == {"train"}, (count, start)


def test_all_captions_of_an_image_are_in_one_split(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption,split\na.jpg,x,\na.jpg,y,test\na.jpg,z,train\nb.jpg,x,train\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv")
    assert contents(dataset) == {"a.jpg": (["x", "y", "z"], "test"), "b.jpg": (["x"], "train")}
