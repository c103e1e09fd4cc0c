"""Damaged files: one sentence, and the file stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from helpers.described_images import (
    FOREIGN_PACKET,
    PERSONS,
    TEXT,
    XMP_SEGMENT,
    chunk,
    decoded_pixels,
    itxt,
    refuses,
    save,
    segment,
)
from imgcap.errors import ImgcapError
from imgcap.images.metadata.description import read_description, write_description


@pytest.mark.parametrize("name", ["plain.jpg", "palette.png", "simple.webp", "lossless.webp", "animated.webp"])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    content = save(tmp_path, name, xmp=FOREIGN_PACKET).read_bytes()
    for length in {*range(200), *range(0, len(content), 29), len(content) - 1}:
        (tmp_path / name).write_bytes(content[:length])
        assert "is damaged" in str(refuses(tmp_path / name)) or length < 12


def patched(content: bytes, place: int | bytes, new: bytes, skip: int = 0) -> bytes:
    start = skip + (content.index(place) if isinstance(place, bytes) else place)
    return content[:start] + new + content[start + len(new) :]


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a segment of no length": ("plain.jpg", lambda c: patched(c, 4, b"\0\1")),
    "a segment past the end": ("plain.jpg", lambda c: patched(c, b"\xff\xda", b"\xff\xff", 2)),
    "no marker": ("plain.jpg", lambda c: c[:20] + b"\0" + c[20:]),
    "an end before an image": ("plain.jpg", lambda c: c[:2] + b"\xff\xd9"),
    "nothing but fill bytes": ("plain.jpg", lambda c: c[:2] + b"\xff" * 100_000),
    "no end of image": ("plain.jpg", lambda c: c[:-2] + b"\0\0"),
    "two XMP segments": ("plain.jpg", lambda c: c[:2] + segment(0xE1, XMP_SEGMENT) * 2 + c[2:]),
    "a huge chunk": ("plain.png", lambda c: patched(c, b"IDAT", b"\xff\xff\xff\xff", -4)),
    "a wrong checksum": ("plain.png", lambda c: patched(c, len(c) - 4, b"\0")),
    "wrong pixels": ("plain.png", lambda c: patched(c, b"IDAT", b"\0\0\0\0", 20)),
    "no header": ("plain.png", lambda c: c[:8] + c[33:]),
    "two headers": ("plain.png", lambda c: c[:33] + c[8:]),
    "no pixels": ("plain.png", lambda c: c[:33] + chunk(b"IEND", b"")),
    "two XMP chunks": ("plain.png", lambda c: c[:33] + itxt(b"") * 2 + c[33:]),
    "a size past the end": ("simple.webp", lambda c: patched(c, 4, b"\xff\xff\xff\xff")),
    "a size of nothing": ("simple.webp", lambda c: patched(c, 4, b"\4\0\0\0")),
    "a huge WebP chunk": ("simple.webp", lambda c: patched(c, 16, b"\xf0\xff\xff\xff")),
    "a wrong start code": ("simple.webp", lambda c: patched(c, b"\x9d\x01\x2a", b"\0")),
    "an image without width": ("simple.webp", lambda c: patched(c, b"\x9d\x01\x2a", b"\0\0", 3)),
    "a wrong lossless signature": ("lossless.webp", lambda c: patched(c, 20, b"\0")),
    "an unknown first chunk": ("simple.webp", lambda c: patched(c, 12, b"ABCD")),
    "a header without an image": ("animated.webp", lambda c: c.replace(b"ANMF", b"ABCD")),
    "a short header": ("simple.webp", lambda c: c[:4] + b"\x0e\0\0\0WEBPVP8X\2\0\0\0\0\0"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_sentence_and_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    name, damage = DAMAGE[kind]
    file = save(tmp_path, name)
    file.write_bytes(damage(file.read_bytes()))
    message = str(refuses(file))
    assert ("more than one XMP packet" if "two XMP" in kind else "is damaged: ") in message
    with pytest.raises(ImgcapError):
        read_description(file)


def mutations(content: bytes, count: int) -> Iterable[bytes]:
    random = np.random.default_rng(0)
    for _ in range(count):
        changed = bytearray(content)
        for place in random.integers(0, len(changed), random.integers(1, 6)):
            changed[place] = random.choice([0, 1, 0x22, 0x3C, 0xFF, int(random.integers(256))])
        start, end = sorted(random.integers(0, len(changed), 2))
        if random.random() < 0.2:
            del changed[start:end]
        elif random.random() < 0.1:
            changed[start:start] = changed[start:end]
        yield bytes(changed)


def repaired(content: bytes) -> bytes:
    """`content` with correct checksums if it is a PNG, so that its chunks are read."""
    start, parts = 8, [content[:8]]
    while content.startswith(b"\x89PNG") and start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        parts.append(chunk(content[start + 4 : start + 8], content[start + 8 : start + 8 + size]))
        start += size + 12
    return b"".join(parts) if len(parts) > 1 else content


@pytest.mark.parametrize("name", ["plain.jpg", "palette.png", "simple.webp", "lossless-alpha.webp", "animated.webp"])
def test_damage_anywhere_is_a_sentence_or_a_file_that_is_as_readable_as_before(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name, xmp=PERSONS["second node"])
    written = 0
    for content in mutations(file.read_bytes(), 120):
        before = repaired(content)
        file.write_bytes(before)
        pixels = decoded_pixels(file)
        try:
            assert write_description(file, TEXT, overwrite=True)
        except ImgcapError as error:
            assert str(file) in str(error)
            assert file.read_bytes() == before
        else:
            written += 1
            assert read_description(file) == TEXT
            assert decoded_pixels(file) == pixels
    assert 10 < written < 120
