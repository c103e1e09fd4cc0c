"""Sidecars are written, and replace nothing unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.data import draw
from imgcap.captioning.sidecars import Sidecars
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.sidecars import SidecarPaths, common_root


def touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_a_folder_of_its_own_keeps_sub_folders(tmp_path: Path) -> None:
    images = touch(tmp_path, "in/a.jpg", "in/deep/er/b.jpg")
    sidecars = Sidecars(SidecarPaths(folder=tmp_path / "out", root=common_root([tmp_path / "in"])))
    for image in images:
        sidecars.write(image, "a dog")
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.txt"))
    assert written == [Path("a.txt"), Path("deep/er/b.txt")]
    assert not list((tmp_path / "in").rglob("*.txt"))


def test_another_text_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "photo.png")
    (tmp_path / "photo.txt").write_text("mine\n")
    with pytest.raises(ImgcapError, match=r"photo\.txt already exists") as raised:
        Sidecars().write(tmp_path / "photo.png", "a wall")
    assert "--overwrite" in raised.value.hint
    assert (tmp_path / "photo.txt").read_text() == "mine\n"
    Sidecars(overwrite=True).write(tmp_path / "photo.png", "a wall")
    assert (tmp_path / "photo.txt").read_text() == "a wall\n"
    Sidecars().write(tmp_path / "photo.png", "a wall")  # the same text is no conflict


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    sidecars = Sidecars(SidecarPaths(folder=tmp_path / "file", root=tmp_path))
    for use in (sidecars.check, lambda: sidecars.write(tmp_path / "a.jpg", "a dog")):
        with pytest.raises(ImgcapError, match="cannot be created"):
            use()

    def refuse(dir: Path) -> None:  # noqa: A002 (as `TemporaryFile` names it)
        raise PermissionError(13, "Permission denied", str(dir))

    Sidecars(SidecarPaths(folder=tmp_path / "out" / "txt")).check()
    assert list((tmp_path / "out" / "txt").iterdir()) == []
    Sidecars().check()
    monkeypatch.setattr("imgcap.captioning.sidecars.TemporaryFile", refuse)
    with pytest.raises(ImgcapError, match="cannot be written to: permission denied"):
        Sidecars(SidecarPaths(folder=tmp_path / "out")).check()


def test_names_that_are_long_or_not_utf8_get_sidecars(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 251 + ".jpg")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    for image in (long, odd):
        image.touch()
        assert Sidecars().write(image, "a dog")
        assert SidecarPaths().of(image).read_text() == "a dog\n"


def test_a_caption_is_appended_to_the_lines_of_a_sidecar(tmp_path: Path) -> None:
    image, target = tmp_path / "photo.png", tmp_path / "photo.txt"
    draw("red", 0).save(image)
    sidecars = Sidecars(append=True)
    for text in ("a wall", "a red wall", "a wall"):
        assert sidecars.write(image, text)
    assert target.read_bytes() == b"a wall\na red wall\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"a wall\n"),
        (b"by hand", b"by hand\na wall\n"),
        (b"one\r\ntwo\r\n", b"one\r\ntwo\r\na wall\r\n"),
        (b"\xef\xbb\xbfa wall\r\n", b"\xef\xbb\xbfa wall\r\n"),
        (b"caf\xc3\xa9\n", b"caf\xc3\xa9\na wall\n"),
    ],
)
def test_appending_changes_no_other_byte(tmp_path: Path, before: bytes, after: bytes) -> None:
    (tmp_path / "photo.txt").write_bytes(before)
    Sidecars(append=True).write(tmp_path / "photo.png", "a wall")
    assert (tmp_path / "photo.txt").read_bytes() == after


def test_nothing_is_appended_to_text_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "photo.txt").write_bytes(b"a wall\ncaf\xe9\n")
    with pytest.raises(ImgcapError, match=r"photo\.txt, line 2 is not UTF-8 text\."):
        Sidecars(append=True).write(tmp_path / "photo.png", "a dog")
    assert (tmp_path / "photo.txt").read_bytes() == b"a wall\ncaf\xe9\n"


def test_appending_and_overwriting_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--append cannot be combined with --overwrite"):
        Sidecars(append=True, overwrite=True)
