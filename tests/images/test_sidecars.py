"""Each image has a sidecar of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgcap.errors import ImgcapError, UsageError
from imgcap.images.sidecars import SidecarPaths, common_root, mirrored_root


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


def test_the_sidecar_that_is_written_is_the_one_that_is_found(tmp_path: Path) -> None:
    images = touch(tmp_path / "in", "a.jpg", "a.png", "b.jpg", "deep/c.webp")
    for paths in (SidecarPaths(), SidecarPaths(".caption", tmp_path / "out", tmp_path / "in")):
        assert [paths.find(image) for image in images] == [None] * 4
        touch(tmp_path, *(str(paths.of(image).relative_to(tmp_path)) for image in images))
        assert [paths.find(image) for image in images] == [paths.of(image) for image in images]


def test_a_stale_sidecar_is_not_found_for_another_image(tmp_path: Path) -> None:
    [first] = touch(tmp_path, "a.jpg")
    touch(tmp_path, "a.txt")
    assert SidecarPaths().find(first) == tmp_path / "a.txt"
    [second] = touch(tmp_path, "a.png")
    assert [SidecarPaths().find(image) for image in (first, second)] == [None, None]


def test_a_whole_name_is_found_when_the_other_image_is_gone(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "a.jpg", "a.png")
    touch(tmp_path, "a.jpg.txt", "a.png.txt")
    second.unlink()
    assert SidecarPaths().find(first) == tmp_path / "a.jpg.txt"


def test_the_root_is_that_of_the_sidecars_that_exist(tmp_path: Path) -> None:
    images = touch(tmp_path, "in/x/a.jpg", "in/x/b.jpg")
    out = tmp_path / "out"
    assert mirrored_root(".txt", out, images) == tmp_path / "in" / "x"
    touch(out, "x/a.txt", "x/b.txt")
    assert mirrored_root(".txt", out, images) == tmp_path / "in"


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
