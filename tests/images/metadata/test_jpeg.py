"""Descriptions in JPEG files."""

from __future__ import annotations

from pathlib import Path

from helpers.described_images import (
    EXTRAS,
    FOREIGN_PACKET,
    TEXT,
    XMP_SEGMENT,
    alt,
    exif,
    frames,
    inserted,
    is_untouched,
    packet,
    refuses,
    save,
    segment,
    xmp_of,
)
from imgcap.images.metadata.description import read_description, write_description
from imgcap.images.metadata.jpeg import LARGEST_JPEG_PACKET


def markers(content: bytes) -> list[tuple[int, bytes]]:
    """Markers and the first bytes of the segments of a JPEG before its first scan."""
    found, start = [], 2
    while content[start + 1] != 0xDA:
        found.append((content[start + 1], content[start + 4 : start + 8]))
        start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    return found


def test_a_jpegs_xmp_follows_jfif_and_exif(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg", exif=exif(), icc_profile=EXTRAS["icc"]["icc_profile"])
    write_description(file, TEXT)
    assert markers(file.read_bytes())[:4] == [(0xE0, b"JFIF"), (0xE1, b"Exif"), (0xE1, b"http"), (0xE2, b"ICC_")]


def test_a_jpegs_fill_bytes_and_trailer_are_kept(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    content = file.read_bytes()
    before = content[:2] + b"\xff\xff\xff" + content[2:] + b"a trailer"
    file.write_bytes(before)
    write_description(file, TEXT)
    assert XMP_SEGMENT in inserted(before, file.read_bytes())


def test_xmp_that_would_not_fit_into_a_jpeg_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    write_description(file, "x")
    room = LARGEST_JPEG_PACKET - (len(xmp_of(file)) - 2)  # the text stands in it twice
    assert write_description(file, "x" * (room // 2))
    assert LARGEST_JPEG_PACKET - 1 <= len(xmp_of(file)) <= LARGEST_JPEG_PACKET
    assert "65,502 bytes" in str(refuses(file, "x" * (room // 2 + 1)))


def extended(folder: Path, properties: str) -> Path:
    """A JPEG with extended XMP, in two segments in the wrong order."""
    guid, rest = b"0123456789ABCDEF0123456789ABCDEF", packet(properties)
    note = 'xmlns:note="http://ns.adobe.com/xmp/note/" note:HasExtendedXMP="' + guid.decode() + '"'
    file = save(folder, "plain.jpg", xmp=packet(attributes=note))
    content = file.read_bytes()
    head = b"http://ns.adobe.com/xmp/extension/\0" + guid + len(rest).to_bytes(4, "big")
    pieces = [(0).to_bytes(4, "big") + rest[:99], (99).to_bytes(4, "big") + rest[99:]]
    place = content.index(b"\xff\xdb")
    parts = b"".join(segment(0xE1, head + piece) for piece in reversed(pieces))
    file.write_bytes(content[:place] + parts + content[place:])
    return file


def test_extended_xmp_stays_as_it_is(tmp_path: Path) -> None:
    file = extended(tmp_path, "<dc:title>long</dc:title>")
    before = file.read_bytes()
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert inserted(xmp_of(file), xmp_of(file)) == b""
    assert (
        file.read_bytes().split(b"http://ns.adobe.com/xmp/extension/")[1:]
        == before.split(b"http://ns.adobe.com/xmp/extension/")[1:]
    )


def test_a_description_in_extended_xmp_is_a_persons(tmp_path: Path) -> None:
    file = extended(tmp_path, f"<dc:description>{alt('mine')}</dc:description>")
    assert read_description(file) == "mine"
    assert is_untouched(file)
    assert "extended XMP" in str(refuses(file, overwrite=True))


def test_the_places_of_a_jpegs_further_images_stay_right_or_it_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path, "several.mpo")
    before = frames(file)
    assert len(before) == 3
    write_description(file, TEXT)
    assert frames(file) == before
    late = save(tmp_path, "several.mpo", xmp=FOREIGN_PACKET)  # which Pillow writes after the index
    assert "further images" in str(refuses(late))
