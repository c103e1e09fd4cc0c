"""Each image has a sidecar of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgcap.errors import ImgcapError, UsageError
from imgcap.images.sidecars import SidecarPaths, common_root


def touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_a_sidecar_has_the_name_of_its_image_with_another_ending(tmp_path: Path) -> None:
    [image] = touch(tmp_path, "photo.jpg")
    assert SidecarPaths().of(image) == tmp_path / "photo.txt"
    assert SidecarPaths(".caption").of(image) == tmp_path / "photo.caption"


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
    assert [SidecarPaths().of(image) for image in images] == [tmp_path / name for name in sidecars]
    mirrored = SidecarPaths(folder=tmp_path / "out", root=tmp_path)
    assert [mirrored.of(image) for image in images] == [tmp_path / "out" / name for name in sidecars]


def test_the_common_root_is_the_deepest_folder_that_holds_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/a.jpg", "in/x/b.jpg", "in/y/c.jpg")
    assert common_root([tmp_path / "in"]) == tmp_path / "in"
    assert common_root([tmp_path / "in" / "a.jpg"]) == tmp_path / "in"
    assert common_root([tmp_path / "in" / "x", tmp_path / "in" / "y" / "c.jpg"]) == tmp_path / "in"
    assert common_root([tmp_path / "in" / "x" / ".." / "y"]) == tmp_path / "in" / "y"
    monkeypatch.chdir(tmp_path)
    assert common_root([Path("in")]) == tmp_path / "in"


def test_an_image_outside_the_root_has_no_sidecar(tmp_path: Path) -> None:
    [inside, outside] = touch(tmp_path, "in/a.jpg", "out/b.jpg")
    sidecars = SidecarPaths(folder=tmp_path / "to", root=tmp_path / "in")
    assert sidecars.of(inside) == tmp_path / "to" / "a.txt"
    with pytest.raises(ImgcapError, match="is not under"):
        sidecars.of(outside)


@pytest.mark.parametrize("ending", ["txt", "", ".", "/x.txt", "../x", ".jpg", ".PNG", ".a/b", "." + "x" * 99])
def test_an_unusable_ending_is_wrong_usage(ending: str) -> None:
    with pytest.raises(UsageError, match="cannot be the ending of sidecars"):
        SidecarPaths(ending)
