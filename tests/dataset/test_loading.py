"""Data sets: captions find their images, and everything that cannot be used is listed with a reason."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from helpers.data import SHARED_DATA
from helpers.data_sets import contents, left_out, write, write_images
from imgcap.dataset.loading import read_dataset
from imgcap.errors import ImgcapError


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("sub/b.jpg", "sub/b.jpg"),
        ("sub\\b.jpg", "sub/b.jpg"),
        ("sub/b", "sub/b.jpg"),
        ("b.jpg", "sub/b.jpg"),
        ("b", "sub/b.jpg"),
        ("images/train/b.jpg", None),
        ("images/sub/b.jpg", "sub/b.jpg"),
        ("a.JPG", "a.jpg"),
        ("sub/a.jpg", None),
        ("/data/flickr/images/a.jpg", "a.jpg"),
        ("C:\\Users\\me\\a.jpg", "a.jpg"),
        ("../../a.jpg", "a.jpg"),
        ("../outside.jpg", None),
        ("../../outside.jpg", None),
        ("sub/../../outside.jpg", None),
        ("ABSOLUTE", None),
        ("/etc/passwd", None),
        ("..", None),
        ("", None),
        ("twice.jpg", None),
        ("one/twice.jpg", "one/twice.jpg"),
        ("a.png", None),
        (".hidden.jpg", None),
        ("notes.txt", None),
        ("notes", None),
    ],
)
def test_names_find_images_and_nothing_outside_their_folder(tmp_path: Path, name: str, path: str | None) -> None:
    name = name.replace("ABSOLUTE", str(tmp_path / "outside.jpg"))
    write(
        tmp_path, {"outside.jpg": b"", "ref.jsonl": [{"image": name, "caption": "x"}, {"image": "y", "caption": "y"}]}
    )
    image_folder = write_images(tmp_path / "images", "a.jpg", "sub/b.jpg", "y.jpg", "one/twice.jpg", "two/twice.jpg")
    write(image_folder, {".hidden.jpg": b"", "notes.txt": "x"})
    dataset = read_dataset(image_folder, tmp_path / "ref.jsonl")
    found = {record.path for record in dataset.records if record.captions == ("x",)}
    assert found == ({path} if path else set())
    assert (name in left_out(dataset)) == (path is None and bool(name))
    for record in dataset.records:
        assert (image_folder / record.path).resolve().is_relative_to(image_folder.resolve())


def test_an_exact_name_goes_before_a_stem(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "a.jpg.png", "sub/a.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n"})
    assert [record.path for record in read_dataset(image_folder, tmp_path / "all.csv").records] == ["a.jpg"]


def test_images_and_captions_without_each_other_are_left_out_with_a_reason(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg", "sub/c.jpg", "empty.jpg")
    rows = "image,caption\na.jpg,x\na.jpg,\nmissing.jpg,y\nmissing.jpg,z\nodd.jpg.1,y\nempty.jpg,...\n"
    write(tmp_path, {"all.csv": rows})
    dataset = read_dataset(image_folder, tmp_path / "all.csv")
    assert {path: captions for path, (captions, _) in contents(dataset).items()} == {"a.jpg": ["x"]}
    assert left_out(dataset) == {
        "all.csv, line 3": "has an empty caption for a.jpg",
        "missing.jpg": "has captions, but no image",
        "odd.jpg.1": "has captions, but its name does not end like an image's",
        "all.csv, line 7": "has an empty caption for empty.jpg",
        "b.jpg": "no caption names it",
        "empty.jpg": "no caption names it",
        "sub/c.jpg": "no caption names it",
    }


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    image_folder, empty = (
        write_images(tmp_path / "images", "a.jpg"),
        write_images(tmp_path / "empty", "notes.txt", ".hidden.jpg"),
    )
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n"})
    captions, missing = tmp_path / "all.csv", tmp_path / "missing"
    for call, sentence in (
        ((missing, captions), f"The image folder {missing} does not exist."),
        ((captions, captions), f"The image folder {captions} does not exist."),
        ((image_folder, missing), f"The caption file {missing} does not exist."),
        ((empty, captions), f"The folder {empty} holds no images."),
        ((image_folder, empty), f"No caption in {empty} belongs to an image in {image_folder}."),
    ):
        with pytest.raises(ImgcapError) as caught:
            read_dataset(*call)
        assert str(caught.value) == sentence


def test_captions_without_an_image_are_named_in_the_hint(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption\n" + "".join(f"x{i}.jpg,x\n" for i in range(5))})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv")
    assert caught.value.hint == "It names x0.jpg, x1.jpg, x2.jpg and 2 more."


@pytest.mark.parametrize("captions", ["all.csv", "images"])
def test_a_sub_folder_that_cannot_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: str
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "sub/b.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n", "images/a.txt": "x", "images/sub/b.txt": "y"})
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder) == image_folder / "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    dataset = read_dataset(image_folder, tmp_path / captions)
    assert [record.path for record in dataset.records] == ["a.jpg"]
    assert left_out(dataset) == {"sub": f"The folder {image_folder / 'sub'} cannot be read: permission denied."}


@pytest.mark.shared_data
def test_flickr8k_as_published() -> None:
    lists = {"train": "train", "val": "dev", "test": "test"}
    dataset = read_dataset(
        SHARED_DATA / "images",
        SHARED_DATA / "Flickr8k.token.txt",
        split_files={split: SHARED_DATA / f"Flickr_8k.{name}Images.txt" for split, name in lists.items()},
    )
    assert len(dataset.records) == 8086
    assert {len(record.captions) for record in dataset.records} == {5}
    missing = left_out(dataset)
    assert len(missing) == 6
    odd = missing.pop("2258277193_586949ec62.jpg.1")
    assert odd == "has captions, but its name does not end like an image's"
    assert set(missing.values()) == {"has captions, but no image"}
    assert all(name.endswith(".jpg") for name in missing)
    counts = Counter(record.split for record in dataset.records)
    assert counts["train"] == 6000 - 4
    assert counts["val"] == counts["test"] == 1000
    assert counts[None] == 8086 - 7996
