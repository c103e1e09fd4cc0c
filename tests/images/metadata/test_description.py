"""Descriptions in images: they are read back, and neither pixels nor other metadata change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.described_images import (
    COMBINATIONS,
    EXTRAS,
    FOREIGN_PACKET,
    IMAGES,
    PERSONS,
    TEXT,
    frames,
    inserted,
    is_untouched,
    photo,
    refuses,
    save,
    webp_chunks,
    xmp_of,
)
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.metadata.description import read_description, write_description


@pytest.mark.parametrize(("name", "extra"), COMBINATIONS)
def test_the_description_is_read_back_and_pixels_and_metadata_are_as_before(
    tmp_path: Path, name: str, extra: str
) -> None:
    file = save(tmp_path, name, **EXTRAS[extra])
    before = frames(file)
    assert read_description(file) is None
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert frames(file) == before
    if "xmp" in EXTRAS[extra]:
        assert TEXT.split()[0].encode() in inserted(FOREIGN_PACKET, xmp_of(file))
    if file.suffix == ".webp":
        webp_chunks(file.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", [name for name in IMAGES if not name.endswith(".webp")])
@pytest.mark.parametrize("extra", ["bare", "exif", "icc"])
def test_one_segment_or_chunk_is_put_into_a_file_without_xmp(tmp_path: Path, name: str, extra: str) -> None:
    file = save(tmp_path, name, **EXTRAS[extra])
    before = file.read_bytes()
    write_description(file, TEXT)
    assert b"x:xmpmeta" in inserted(before, file.read_bytes())


@pytest.mark.parametrize("name", IMAGES)
def test_imgcap_replaces_its_own_description(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name)
    write_description(file, "A cat.")
    first = file.read_bytes()
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert write_description(file, "A cat.")
    assert file.read_bytes() == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("  white \n space\t", "white \n space"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a\x00b\x08c\x0bd\x1fe\ufffef\uffffg\ud800h", "abcdefgh"),
        ("]]> &amp; <!-- <?x?> {hash} %s \\", "]]> &amp; <!-- <?x?> {hash} %s \\"),
        ("ナイル川 \u202e עברית \U0001f469\u200d\U0001f680 e\u0301 \x85\u2028x", None),
        ("long " * 5000 + "end", None),
    ],
)
@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "simple.webp"])
def test_any_text_is_read_back_without_characters_that_xml_forbids(
    tmp_path: Path, name: str, text: str, expected: str | None
) -> None:
    file = save(tmp_path, name)
    for _ in range(2):  # the second time, it is known as imgcap's own
        assert write_description(file, text)
        assert read_description(file) == (expected or text)


@pytest.mark.parametrize("text", ["", " \n", "\x00\x07"])
def test_an_empty_text_is_wrong_usage(tmp_path: Path, text: str) -> None:
    file = save(tmp_path, "plain.png")
    assert isinstance(refuses(file, text), UsageError)


@pytest.mark.parametrize(("name", "other"), [("plain.jpg", "a.png"), ("plain.png", "a.webp"), ("simple.webp", "a")])
def test_the_content_decides_the_format(tmp_path: Path, name: str, other: str) -> None:
    file = save(tmp_path, name).rename(tmp_path / other)
    before = frames(file)
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert frames(file) == before


@pytest.mark.parametrize("name", ["plain.jpg", "progressive.jpg", "plain.png", "simple.webp", "animated.webp"])
def test_what_a_person_wrote_is_kept_in_each_format(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name, xmp=PERSONS["description"])
    assert is_untouched(file)
    assert read_description(file) == "mine"
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT


def test_a_text_that_is_written_for_a_person_is_a_persons(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    assert write_description(file, "made by imgcap")
    assert write_description(file, "checked by hand", by_person=True)
    assert read_description(file) == "checked by hand"
    assert not write_description(file, TEXT)
    assert read_description(file) == "checked by hand"


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tif", "avif"])
def test_other_formats_are_refused_with_those_that_can_be_written(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    photo().save(file)
    assert str(refuses(file)) == f"{file} is not a JPEG, PNG or WebP image."
    with pytest.raises(ImgcapError, match="not a JPEG"):
        read_description(file)


@pytest.mark.parametrize("content", [b"", b"\xff", b"RIFF", b"RIFF\0\0\0\0WAVE", b"\x89PNG\r\n", b"<html>" * 9])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert "is not a JPEG, PNG or WebP image" in str(refuses(tmp_path / "a.jpg"))


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    assert str(refuses(tmp_path / "a.jpg")) == f"{tmp_path / 'a.jpg'} does not exist."
    assert str(refuses(tmp_path)) == f"{tmp_path} is not a file."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "is not a file" in str(refuses(tmp_path / "a.jpg"))
