"""Descriptions in WebP files."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.described_images import TEXT, exif, photo, save, webp_chunks
from imgcap.images.metadata.description import write_description


@pytest.mark.parametrize(
    ("name", "kinds", "flags"),
    [
        ("simple.webp", [b"VP8X", b"VP8 ", b"XMP "], 0x04),
        ("lossless.webp", [b"VP8X", b"VP8L", b"XMP "], 0x04),
        ("lossless-alpha.webp", [b"VP8X", b"VP8L", b"XMP "], 0x14),
        ("lossy-alpha.webp", [b"VP8X", b"ALPH", b"VP8 ", b"XMP "], 0x14),
        ("animated.webp", [b"VP8X", b"ANIM", b"ANMF", b"ANMF", b"ANMF", b"XMP "], 0x16),
    ],
)
@pytest.mark.parametrize("text", [TEXT, TEXT + "."])
def test_a_webp_gets_a_header_that_fits(tmp_path: Path, name: str, kinds: list[bytes], flags: int, text: str) -> None:
    file = save(tmp_path, name)
    old = webp_chunks(file.read_bytes())
    write_description(file, text)
    new = webp_chunks(file.read_bytes())
    assert [kind for kind, _ in new] == kinds
    sides = b"".join((side - 1).to_bytes(3, "little") for side in photo().size)
    assert new[0] == (b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    assert new[1:-1] == [entry for entry in old if entry[0] != b"VP8X"]


def test_xmp_follows_exif_and_precedes_unknown_chunks(tmp_path: Path) -> None:
    file = save(tmp_path, "simple.webp", exif=exif())
    content = file.read_bytes() + b"abcd\x03\0\0\0xyz\0"
    file.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    write_description(file, TEXT)
    assert [kind for kind, _ in webp_chunks(file.read_bytes())][-3:] == [b"EXIF", b"XMP ", b"abcd"]


def test_bytes_after_a_webps_end_are_kept(tmp_path: Path) -> None:
    file = save(tmp_path, "simple.webp")
    file.write_bytes(file.read_bytes() + b"a trailer")
    write_description(file, TEXT)
    content = file.read_bytes()
    assert content.endswith(b"a trailer")
    webp_chunks(content[:-9])
