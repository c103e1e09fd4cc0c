"""Descriptions in PNG files."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from helpers.described_images import (
    FOREIGN_PACKET,
    PERSONS,
    TEXT,
    chunk,
    inserted,
    is_untouched,
    itxt,
    refuses,
    save,
    xmp_of,
)
from imgcap.images.metadata.description import read_description, write_description


def png(folder: Path, *, before: bytes = b"", after: bytes = b"") -> Path:
    """A PNG with chunks before and after its pixels."""
    file = save(folder, "plain.png")
    content = file.read_bytes()
    place = content.index(b"IDAT") - 4
    file.write_bytes(content[:place] + before + content[place:-12] + after + content[-12:])
    return file


def png_chunks(content: bytes) -> list[bytes]:
    kinds, start = [], 8
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        assert chunk(content[start + 4 : start + 8], content[start + 8 : start + 8 + size]) in content
        kinds.append(content[start + 4 : start + 8])
        start += size + 12
    return kinds


def test_compressed_xmp_is_read_and_replaced_by_plain_xmp(tmp_path: Path) -> None:
    file = png(tmp_path, before=itxt(zlib.compress(PERSONS["description"]), b"\1\0"))
    assert read_description(file) == "mine"
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT
    assert b"x:xmpmeta" in file.read_bytes()


@pytest.mark.parametrize("flags", [b"\1\0", b"\1\7"])
@pytest.mark.parametrize("body", [b"nonsense", zlib.compress(FOREIGN_PACKET)[:-9], zlib.compress(bytes(17 << 20))])
def test_xmp_that_cannot_be_unpacked_or_is_a_bomb_is_refused(tmp_path: Path, flags: bytes, body: bytes) -> None:
    assert "it cannot be unpacked" in str(refuses(png(tmp_path, before=itxt(body, flags))))


def test_xmp_after_the_pixels_moves_before_them(tmp_path: Path) -> None:
    file = png(tmp_path, after=itxt(FOREIGN_PACKET) + chunk(b"tIME", bytes(7)))
    before = png_chunks(file.read_bytes())
    assert write_description(file, TEXT)
    after = png_chunks(file.read_bytes())
    assert after.index(b"iTXt") < after.index(b"IDAT")
    assert sorted(after) == sorted(before)
    assert b"kept &#38; safe" in xmp_of(file)


def test_bytes_after_a_pngs_end_and_unknown_chunks_are_kept(tmp_path: Path) -> None:
    file = png(tmp_path, before=chunk(b"abCd", b"x"), after=chunk(b"abCd", b"y"))
    before = file.read_bytes() + b"a trailer"
    file.write_bytes(before)
    write_description(file, TEXT)
    assert inserted(before, file.read_bytes()).count(b"iTXt") == 1


def test_xmp_in_a_raw_profile_is_refused(tmp_path: Path) -> None:
    file = png(tmp_path, before=chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"xmp")))
    assert "raw profile" in str(refuses(file))
