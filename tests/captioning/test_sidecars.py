"""Where sidecars stand, and that none replaces what was there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.data import draw
from imgcap.captioning.sidecars import Sidecars, common_root
from imgcap.errors import ImgcapError, UsageError


def touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_a_sidecar_has_the_name_of_its_image_with_another_ending(tmp_path: Path) -> None:
    [image] = touch(tmp_path, "photo.jpg")
    assert Sidecars().path(image) == tmp_path / "photo.txt"
    assert Sidecars(".caption").path(image) == tmp_path / "photo.caption"


@pytest.mark.parametrize(
    ("names", "sidecars"),
    [
        (["a.jpg", "b.jpg"], ["a.txt", "b.txt"]),
        (["a.jpg", "a.png"], ["a.jpg.txt", "a.png.txt"]),
        (["a.jpg", "A.png"], ["a.jpg.txt", "A.png.txt"]),
        (["a.jpg", "a.png", "a.jpg.webp"], ["a.jpg.txt", "a.png.txt", "a.jpg.webp.txt"]),
        (["a.jpg", "a.txt"], ["a.txt", "a.txt.txt"]),  # the second is an image with a wrong name, given by hand
        (["a.dat", "a.jpg"], ["a.dat.txt", "a.txt"]),
        (["a.dat", "a.dat.jpg"], ["a.dat.txt", "a.dat.jpg.txt"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a.txt", "y/a.txt"]),
    ],
)
def test_sidecars_never_collide(tmp_path: Path, names: list[str], sidecars: list[str]) -> None:
    images = touch(tmp_path, *names)
    assert [Sidecars().path(image) for image in images] == [tmp_path / name for name in sidecars]
    mirrored = Sidecars(folder=tmp_path / "out", root=tmp_path)
    assert [mirrored.path(image) for image in images] == [tmp_path / "out" / name for name in sidecars]


def test_a_folder_of_its_own_keeps_sub_folders(tmp_path: Path) -> None:
    images = touch(tmp_path, "in/a.jpg", "in/deep/er/b.jpg")
    sidecars = Sidecars(folder=tmp_path / "out", root=common_root([tmp_path / "in"]))
    for image in images:
        sidecars.write(image, "a dog")
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.txt"))
    assert written == [Path("a.txt"), Path("deep/er/b.txt")]
    assert not list((tmp_path / "in").rglob("*.txt"))


def test_the_common_root_is_the_deepest_folder_that_holds_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/a.jpg", "in/x/b.jpg", "in/y/c.jpg")
    assert common_root([tmp_path / "in"]) == tmp_path / "in"
    assert common_root([tmp_path / "in" / "a.jpg"]) == tmp_path / "in"
    assert common_root([tmp_path / "in" / "x", tmp_path / "in" / "y" / "c.jpg"]) == tmp_path / "in"
    assert common_root([tmp_path / "in" / "x" / ".." / "y"]) == tmp_path / "in" / "y"
    monkeypatch.chdir(tmp_path)
    assert common_root([Path("in")]) == tmp_path / "in"


def test_a_image_outside_the_root_has_no_place(tmp_path: Path) -> None:
    [inside, outside] = touch(tmp_path, "in/a.jpg", "out/b.jpg")
    sidecars = Sidecars(folder=tmp_path / "to", root=tmp_path / "in")
    assert sidecars.path(inside) == tmp_path / "to" / "a.txt"
    with pytest.raises(ImgcapError, match="is not under"):
        sidecars.path(outside)


def test_another_text_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "photo.png")
    (tmp_path / "photo.txt").write_text("mine\n")
    with pytest.raises(ImgcapError, match=r"photo\.txt is there already") as raised:
        Sidecars().write(tmp_path / "photo.png", "a wall")
    assert "--overwrite" in raised.value.hint
    assert (tmp_path / "photo.txt").read_text() == "mine\n"
    Sidecars(overwrite=True).write(tmp_path / "photo.png", "a wall")
    assert (tmp_path / "photo.txt").read_text() == "a wall\n"
    Sidecars().write(tmp_path / "photo.png", "a wall")  # the same text is no conflict


@pytest.mark.parametrize("ending", ["txt", "", ".", "/x.txt", "../x", ".jpg", ".PNG", ".a/b", "." + "x" * 99])
def test_an_ending_that_cannot_be_is_wrong_usage(ending: str) -> None:
    with pytest.raises(UsageError, match="cannot be the ending of sidecars"):
        Sidecars(ending)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    sidecars = Sidecars(folder=tmp_path / "file", root=tmp_path)
    for use in (sidecars.check, lambda: sidecars.write(tmp_path / "a.jpg", "a dog")):
        with pytest.raises(ImgcapError, match="cannot be created"):
            use()

    def refuse(dir: Path) -> None:  # noqa: A002 (as `TemporaryFile` names it)
        raise PermissionError(13, "Permission denied", str(dir))

    Sidecars(folder=tmp_path / "out" / "txt").check()
    assert list((tmp_path / "out" / "txt").iterdir()) == []
    Sidecars().check()
    monkeypatch.setattr("imgcap.captioning.sidecars.TemporaryFile", refuse)
    with pytest.raises(ImgcapError, match="cannot be written to: permission denied"):
        Sidecars(folder=tmp_path / "out").check()


def test_names_that_are_long_or_not_utf8_get_sidecars(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 251 + ".jpg")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    for image in (long, odd):
        image.touch()
        assert Sidecars().write(image, "a dog").read_text() == "a dog\n"
