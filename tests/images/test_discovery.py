"""Images are found in folders, in order, without what was not asked for, and past what cannot be read."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgcap.errors import ImgcapError, UsageError
from imgcap.images.discovery import (
    EVERYTHING,
    SUFFIXES,
    Selection,
    counted,
    expand,
    find_images,
    is_image_name,
    no_images,
)
from imgcap.images.errors import ImageError

posix = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and names of any case")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(folder: Path, selection: Selection | None = None) -> list[str]:
    found = find_images(folder, selection) if selection else find_images(folder)
    return [path.relative_to(folder).as_posix() for path in found]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.JPEG", True),
        ("a.b.Png", True),
        ("a.avif", True),
        ("a.HEIC", True),
        ("a.hif", True),
        ("a.jpg.1", False),
        ("a.txt", False),
        ("jpg", False),
        (".jpg", False),
        ("", False),
    ],
)
def test_images_are_known_by_the_end_of_their_name(name: str, expected: bool) -> None:
    assert is_image_name(name) is expected


def test_images_are_found_in_order_without_hidden_ones(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "10.jpg", "z/2.webp", "z/1.webp", "c/deep/er/x.gif", "notes.txt", "a.jpg.1")
    touch(tmp_path, ".hidden.jpg", ".git/x.jpg", "z/.cache/y.jpg", "z/._1.webp")
    (tmp_path / "folder.jpg").mkdir()
    assert names(tmp_path) == ["10.jpg", "a.JPG", "b.png", "c/deep/er/x.gif", "z/1.webp", "z/2.webp"]


def test_every_suffix_is_found(tmp_path: Path) -> None:
    touch(tmp_path, *(f"x{suffix}" for suffix in SUFFIXES))
    assert {path.suffix for path in find_images(tmp_path)} == SUFFIXES


def test_a_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".images/a.jpg")
    assert list(find_images(tmp_path / ".images")) == [tmp_path / ".images" / "a.jpg"]


@posix
def test_folders_of_any_depth_are_searched(tmp_path: Path) -> None:
    depth = 1200  # more than Python's stack has room for
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        assert [len(path.relative_to(tmp_path).parts) for path in find_images(tmp_path)] == [depth + 1]
    finally:
        deepest = max(find_images(tmp_path), key=lambda path: len(path.parts))
        deepest.unlink()
        for folder in deepest.parents[:depth]:
            folder.rmdir()


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "#recycle",
        ".thumbnails",
        "@__thumb",
        "$RECYCLE.BIN",
        "System Volume Information",
        "__MACOSX",
        "@Recycle",
    ],
)
def test_folders_of_network_drives_and_systems_are_skipped_unless_named(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "a.jpg", f"{folder}/a.jpg", f"album/{folder}/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "album/b.jpg")
    assert names(tmp_path) == ["a.jpg", "album/b.jpg"]
    assert names(tmp_path / folder) == ["a.jpg"]


def test_images_in_formats_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.CR2", "b.cr2", "c/d.jxl", "e.psd", ".f.cr2", "@eaDir/g.cr2", "notes.txt", "h/i.NEF")
    unreadable: Counter[str] = Counter()
    assert [str(path) for path in expand([tmp_path], Selection(exclude=("h",)), unreadable)] == [
        str(tmp_path / "a.jpg")
    ]
    assert unreadable == {".cr2": 2, ".jxl": 1, ".psd": 1}
    assert counted(unreadable) == "2 .cr2, 1 .jxl, 1 .psd"
    [error] = expand([tmp_path / "c"], EVERYTHING, unreadable)
    assert isinstance(error, ImageError)
    assert error.hint.endswith(" It holds images that imgcap cannot read: 1 .jxl.")
    assert unreadable[".jxl"] == 2


# --- what is no plain file


@posix
def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "album/a.jpg", "elsewhere/b.jpg")
    album = tmp_path / "album"
    (album / "link.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (album / "folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (album / "folder.jpg").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (album / "loop").symlink_to(album, target_is_directory=True)
    assert names(album) == ["a.jpg", "link.jpg"]
    assert names(album / "folder") == ["b.jpg"]
    assert names(album / "loop" / "loop") == ["a.jpg", "link.jpg"]


@posix
def test_broken_links_are_found_so_that_somebody_hears_of_them(tmp_path: Path) -> None:
    (tmp_path / "nothing.jpg").symlink_to("missing")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    assert names(tmp_path) == ["itself.jpg", "nothing.jpg"]


@posix
def test_pipes_and_devices_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/null")
    assert names(tmp_path) == []


# --- selection

ALBUM = ["a.jpg", "b.PNG", "holiday/a.jpg", "holiday/beach/c.jpg", "Work.2020/d.jpg", "Work.2020/holiday/e.gif"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 4, 5, 2, 3]),
        ({"recursive": False}, [0, 1]),
        ({"include": ("*.jpg",)}, [0, 4, 2, 3]),
        ({"include": ("*.JPG",)}, [0, 4, 2, 3]),
        ({"include": ("*.png",)}, [1]),
        ({"include": ("*.png", "*.gif")}, [1, 5]),
        ({"include": ("a.*",)}, [0, 2]),
        ({"include": ("?.jpg",)}, [0, 4, 2, 3]),
        ({"include": ("[ab].*",)}, [0, 1, 2]),
        ({"include": ("[!a].jpg",)}, [4, 3]),
        ({"include": ("/a.jpg",)}, [0]),
        ({"include": ("./a.jpg",)}, [0]),
        ({"include": ("holiday",)}, [5, 2, 3]),
        ({"include": ("holiday/",)}, [5, 2, 3]),
        ({"include": ("/holiday",)}, [2, 3]),
        ({"include": ("holiday/**",)}, [2, 3]),
        ({"include": ("holiday/*",)}, [2, 3]),
        ({"include": ("holiday/*.jpg",)}, [2]),
        ({"include": ("holiday/**/*.jpg",)}, [2, 3]),
        ({"include": ("**/holiday/*.*",)}, [5, 2]),
        ({"include": ("**/beach",)}, [3]),
        ({"include": ("*/holiday",)}, [5]),
        ({"include": ("Work.2020",)}, [4, 5]),
        ({"include": ("**",)}, [0, 1, 4, 5, 2, 3]),
        ({"include": ("*",)}, [0, 1, 4, 5, 2, 3]),
        ({"include": ("*.txt",)}, []),
        ({"exclude": ("*.jpg",)}, [1, 5]),
        ({"exclude": ("holiday",)}, [0, 1, 4]),
        ({"exclude": ("holiday/**",)}, [0, 1, 4, 5]),
        ({"exclude": ("holiday/*",)}, [0, 1, 4, 5]),
        ({"exclude": ("holiday/*.jpg",)}, [0, 1, 4, 5, 3]),
        ({"exclude": ("**/e.gif", "b.*")}, [0, 4, 2, 3]),
        ({"include": ("*.jpg",), "exclude": ("holiday/*",)}, [0, 4]),
    ],
)
def test_patterns_select(tmp_path: Path, options: dict[str, Any], expected: list[int]) -> None:
    touch(tmp_path, *ALBUM, "holiday/notes.txt")
    assert names(tmp_path, Selection(**options)) == [ALBUM[i] for i in expected]


@posix
def test_case_counts_but_not_in_the_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", "A.png", "B.Old/c.gif")
    for pattern, expected in {"a.jpg": ["a.JPG"], "A.*": ["A.png"], "b.old": [], "B.old": ["B.Old/c.gif"]}.items():
        assert names(tmp_path, Selection(include=(pattern,))) == expected


def test_an_excluded_folder_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *ALBUM)
    looked_into = recorded(monkeypatch)
    list(find_images(tmp_path, Selection(exclude=("holiday",))))
    assert looked_into == [tmp_path, tmp_path / "Work.2020"]


def recorded(monkeypatch: pytest.MonkeyPatch, forbidden: str = "") -> list[Path]:
    """Record the folders that are searched from now on; the one named `forbidden` cannot be read."""
    looked_into: list[Path] = []
    scandir = os.scandir

    def record(folder: Path) -> Any:
        looked_into.append(folder)
        if folder.name == forbidden:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", record)
    return looked_into


@pytest.mark.parametrize("pattern", ["", "/", "."])
def test_a_pattern_without_a_name_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a pattern for file names"):
        Selection(include=(pattern,))
    with pytest.raises(UsageError):
        Selection(exclude=("*.jpg", pattern))


def test_folders_are_read_one_by_one_as_images_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{i}/{j}.jpg" for i in range(9) for j in range(3)))
    looked_into = recorded(monkeypatch)
    found = find_images(tmp_path)
    assert [next(found) for _ in range(4)][-1] == tmp_path / "1" / "0.jpg"
    assert looked_into == [tmp_path, tmp_path / "0", tmp_path / "1"]


# --- folders that have nothing to give


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImgcapError) as caught:
        list(find_images(tmp_path / "missing"))
    assert str(caught.value) == f"The folder {tmp_path / 'missing'} cannot be read: no such file or directory."


def test_expand_skips_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    recorded(monkeypatch, forbidden="b")
    first, error, last = expand([tmp_path])
    assert (first, last) == (tmp_path / "a" / "1.jpg", tmp_path / "c" / "3.jpg")
    assert isinstance(error, ImageError)
    assert str(error) == f"The folder {tmp_path / 'b'} cannot be read: permission denied."
    assert (error.kind, error.path) == ("unreadable", str(tmp_path / "b"))
    with pytest.raises(ImageError, match="permission denied"):
        list(find_images(tmp_path))


def test_expand_replaces_folders_and_keeps_files_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "folder/b.png", "folder/a.png", "odd.name", ".hidden.jpg")
    given = [tmp_path / "missing.jpg", tmp_path / "folder", tmp_path / "odd.name", tmp_path / ".hidden.jpg"]
    expected = ["missing.jpg", "folder/a.png", "folder/b.png", "odd.name", ".hidden.jpg"]
    assert list(expand(given, Selection(exclude=("odd.name",)))) == [tmp_path / name for name in expected]


def test_expand_leaves_names_that_the_system_refuses_to_whoever_opens_them(tmp_path: Path) -> None:
    given = [tmp_path / ("x" * 300), tmp_path / "\0"]
    assert list(expand(given)) == given


@pytest.mark.parametrize(
    ("selection", "hint"),
    [
        (Selection(), "."),
        (Selection(include=("*.jpg", "a/*")), " among *.jpg, a/*."),
        (Selection(exclude=("*.jpg",)), " without *.jpg."),
        (Selection(False, ("*.jpg",), ("*.gif",)), " among *.jpg without *.gif, not in sub-folders."),
    ],
)
def test_a_folder_without_images_is_one_sentence_in_its_place(tmp_path: Path, selection: Selection, hint: str) -> None:
    touch(tmp_path, "empty/notes.txt", "empty/.hidden.jpg", "after.jpg")
    empty = tmp_path / "empty"
    error, after = expand([empty, tmp_path / "after.jpg"], selection)
    assert after == tmp_path / "after.jpg"
    assert isinstance(error, ImageError)
    assert str(error) == f"The folder {empty} holds no images."
    assert (error.kind, error.path) == ("empty folder", str(empty))
    assert error.hint == f"Looked for {', '.join(sorted(SUFFIXES))}{hint}"
    assert str(no_images(empty, selection)) == str(error)


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    def paths() -> Iterator[Path]:
        yield tmp_path / "a.jpg"
        raise AssertionError

    assert next(expand(paths())) == tmp_path / "a.jpg"


def test_an_error_is_one_printable_line_and_survives_pickling() -> None:
    error = ImageError("a\nb\udcff.jpg does not exist.", "Look.", "missing", "a\nb\udcff.jpg")
    assert str(error) == "a\\nb\\udcff.jpg does not exist."
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.hint, copy.kind, copy.path) == (str(error), "Look.", "missing", "a\nb\udcff.jpg")
