"""Which inputs are archives, and the patterns for several of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgcap.errors import UsageError
from imgcap.images.archives import images_in
from imgcap.images.locations import archive_locations, expand_braces, is_archive


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{0..2}.tar", ["0.tar", "1.tar", "2.tar"]),
        ("s/{098..101}.tar", ["s/098.tar", "s/099.tar", "s/100.tar", "s/101.tar"]),
        ("{0..0}{3..1}.tar", ["03.tar", "02.tar", "01.tar"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{8..010}", ["008", "009", "010"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("s3://b/{a,}.tar", ["s3://b/a.tar", "s3://b/.tar"]),
        ("{a}.tar", ["{a}.tar"]),
        ("{1..x}.tar", ["{1..x}.tar"]),
        ("{0..", ["{0.."]),
        ("", [""]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize("pattern", ["{0..999999999999}.tar", "{0..9999}{0..9999}.tar"])
def test_a_pattern_of_too_many_archives_is_refused_before_they_are_listed(pattern: str) -> None:
    with pytest.raises(UsageError, match="1,000,000"):
        expand_braces(pattern)


def test_what_counts_as_an_archive(tmp_path: Path) -> None:
    (tmp_path / "folder.tar").mkdir()
    assert not is_archive(str(tmp_path / "folder.tar"))
    assert not is_archive("a.jpg")
    assert not is_archive(str(tmp_path))
    assert all(map(is_archive, ("a.tar", "A.TAR", "a.tar.gz", "s3://bucket/a", "{0..9}.tar", "*.tar", "a.tar::b.tar")))


def test_a_folder_of_archives_is_all_of_them_and_one_with_an_image_is_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "deep/c.TAR", ".hidden.tar", "stats.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert is_archive(str(tmp_path))
    assert archive_locations(str(tmp_path)) == [str(tmp_path / name) for name in ("a.tar", "b.tar", "deep/c.TAR")]
    (tmp_path / "deep" / "photo.jpg").touch()
    assert not is_archive(str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tar", ["0.tar", "1.tar", "[x].tar"]),
        ("?.tar", ["0.tar", "1.tar"]),
        ("[1-9].tar", ["1.tar"]),
        ("[x].tar", ["[x].tar"]),  # as it exists
        ("{*,s/2}.tar", ["0.tar", "1.tar", "[x].tar", "s/2.tar"]),
        ("**/*.tar", ["0.tar", "1.tar", "[x].tar", "s/2.tar"]),
        ("9*.tar", ["9*.tar"]),
        ("1.tar::s/*.tar::gone.tar", ["1.tar", "s/2.tar", "gone.tar"]),
    ],
)
def test_wildcards_match_the_archives_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str]
) -> None:
    (tmp_path / "s").mkdir()
    for name in ("0.tar", "1.tar", "[x].tar", "s/2.tar", "1.json"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert archive_locations(pattern) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://a/{0..1}.tar::s3://b/2.tar", ["s3://a/0.tar", "s3://a/1.tar", "s3://b/2.tar"]),
        ("simplecache::s3://a/0.tar", ["simplecache::s3://a/0.tar"]),
        ("filecache::s3://a/0.tar::1.tar", ["filecache::s3://a/0.tar", "1.tar"]),
        ("zip://0.tar::https://host/a.zip", ["zip://0.tar::https://host/a.zip"]),
        ("https://host/a.tar?x=[1]&y=2", ["https://host/a.tar?x=[1]&y=2"]),
    ],
)
def test_colons_separate_archives_but_not_what_fsspec_chains(text: str, expected: list[str]) -> None:
    assert archive_locations(text) == expected


def test_a_pattern_that_nothing_matches_is_one_sentence(tmp_path: Path) -> None:
    [error] = images_in(f"{tmp_path}/*.tar")
    assert str(error) == f"No archive matches {tmp_path}/*.tar."
