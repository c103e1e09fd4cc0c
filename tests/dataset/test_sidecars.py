"""Sidecars as captions: what `imgcap caption` writes is read, by the same rule, and never for another image."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.data_sets import contents, left_out, write, write_images
from helpers.tars import write_tar
from imgcap.dataset.loading import read_dataset
from imgcap.images.sidecars import SidecarPaths


def captions_of(images: Path, captions: Path) -> dict[str, list[str]]:
    return {path: captions for path, (captions, _) in contents(read_dataset(images, captions)).items()}


@pytest.mark.parametrize("suffix", [".txt", ".caption"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_sidecars_are_read_where_they_are_written(tmp_path: Path, suffix: str, mirrored: bool) -> None:
    names = ["a.jpg", "a.png", "b.jpg", "sub/a.jpg", "sub/c.JPG"]
    images = write_images(tmp_path / "images", *names)
    folder = tmp_path / "captions" if mirrored else images
    places = SidecarPaths(suffix, folder, images) if mirrored else SidecarPaths(suffix)
    for name in names:
        sidecar = places.of(images / name)
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        sidecar.write_text(f"A caption of {name}\n")
    assert captions_of(images, folder) == {name: [f"A caption of {name}"] for name in names}


def test_a_text_file_is_preferred_to_a_caption_file(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(images, {"a.txt": "x", "a.caption": "y", "b.caption": "z"})
    assert captions_of(images, images) == {"a.jpg": ["x"], "b.jpg": ["z"]}


def test_a_sidecar_that_could_be_of_several_images_is_given_to_none(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "a.jpg", "a.png", "b.jpg")
    write(images, {"a.txt": "from a run before a.png was there", "b.txt": "x"})
    dataset = read_dataset(images, images)
    assert {record.path for record in dataset.records} == {"b.jpg"}
    assert left_out(dataset) == {
        "a.txt": "could be of several images: rename it, for example to a.jpg.txt",
        "a.jpg": "no caption names it",
        "a.png": "no caption names it",
    }


def test_a_sidecar_with_the_whole_name_is_read_after_the_other_image_has_gone(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "a.jpg")
    write(images, {"a.jpg.txt": "x"})
    assert captions_of(images, images) == {"a.jpg": ["x"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("caf\xe9\n".encode("cp1252"), "line 1 is not UTF-8 text"),
        ("x\ncaf\xe9\n".encode("cp1252"), "line 2 is not UTF-8 text"),
        ("x\n".encode("utf-16"), "line 1 is not UTF-8 text"),
        (b"x\0\n", "line 1 holds a NUL character"),
        (b" \n\n", "is empty"),
    ],
)
def test_a_sidecar_that_cannot_be_used_is_left_out(tmp_path: Path, content: bytes, reason: str) -> None:
    images = write_images(tmp_path / "images", "a.jpg", "sub/b.jpg")
    write(images, {"a.txt": "x", "sub/b.txt": content})
    dataset = read_dataset(images, images)
    assert {record.path for record in dataset.records} == {"a.jpg"}
    assert left_out(dataset) == {"sub/b.txt": reason, "sub/b.jpg": "no caption names it"}


def test_an_empty_line_of_punctuation_is_left_out_by_its_line(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "a.jpg")
    write(images, {"a.txt": "x\n...\n"})
    dataset = read_dataset(images, images)
    assert dataset.records[0].captions == ("x",)
    assert left_out(dataset) == {"a.txt, line 2": "has an empty caption for a.jpg"}


def test_sidecars_of_a_sub_folder_belong_to_its_images(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "a.jpg", "album/a.jpg")
    write(images, {"a.txt": "outside", "album/a.txt": "inside"})
    assert captions_of(images, images / "album") == {"album/a.jpg": ["inside"]}


def test_captions_beside_copies_of_the_images_are_found_by_name(tmp_path: Path) -> None:
    images, copies = write_images(tmp_path / "images", "a.jpg"), write_images(tmp_path / "copies", "a.jpg")
    write(copies, {"a.txt": "x"})
    assert captions_of(images, copies) == {"a.jpg": ["x"]}


def test_captions_in_archives_follow_the_same_rule(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.txt", "b.jpg", "b.seg.png", "b.txt", "c.jpg", "c.png", "c.jpg.txt", "c.png.txt"]
    write_tar(tmp_path / "x.tar", [(name, name.encode() if name.endswith(".txt") else b"") for name in names])
    dataset = read_dataset(str(tmp_path / "x.tar"))
    assert {record.path: record.captions for record in dataset.records} == {
        "x.tar/b.jpg": ("b.txt",),
        "x.tar/c.jpg": ("c.jpg.txt",),
        "x.tar/c.png": ("c.png.txt",),
    }
    assert left_out(dataset)["x.tar/a"] == "has captions that could be of several images"
