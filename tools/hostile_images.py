"""Mutated images of every format, for `fuzz_images.py` to decode."""

from __future__ import annotations

import io
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, features

from imgcap.images.discovery import SUFFIXES

ROOT = Path(__file__).parents[1]
LARGEST_SAMPLE = 200_000
SAMPLE_SIZE = (80, 60)
PILLOW_LIMIT = 178_956_970
"""Most pixels that Pillow decodes by default."""

Spans = list[tuple[int, int]]
File = tuple[str, Callable[[], bytes]]
"""A file's name, and the function that makes its content."""


def write_samples(folder: Path) -> None:
    """Write one small image of every kind that Pillow can, and the zoo of the tests if it is available."""
    folder.mkdir()
    photograph = Image.open(min((ROOT / "examples").glob("*.jpg"))).convert("RGB").resize(SAMPLE_SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True}
    kinds: list[tuple[str, str, str, dict[str, Any]]] = [
        ("baseline.jpg", "JPEG", "RGB", {"exif": exif, "comment": b"a comment"}),
        ("progressive.jpg", "JPEG", "RGB", {"progressive": True}),
        ("restart.jpg", "JPEG", "RGB", {"restart_marker_blocks": 2}),
        ("grey.jpg", "JPEG", "L", {}),
        ("cmyk.jpg", "JPEG", "CMYK", {}),
        ("several.jpg", "MPO", "RGB", frames),
        *((f"{mode}.png", "PNG", mode, {"exif": exif}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("animated.png", "PNG", "RGB", frames),
        ("lossy.webp", "WEBP", "RGB", {"exif": exif}),
        ("lossless.webp", "WEBP", "RGBA", {"lossless": True}),
        ("animated.webp", "WEBP", "RGB", frames),
        ("plain.gif", "GIF", "P", {}),
        ("interlaced.gif", "GIF", "P", {"interlace": True, "transparency": 3}),
        ("animated.gif", "GIF", "RGB", frames),
        *((f"{mode}.bmp", "BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *((f"{mode}.tif", "TIFF", mode, {}) for mode in ("1", "L", "RGBA", "CMYK", "I;16", "F")),
        *(
            (f"{name}.tif", "TIFF", mode, {"compression": name, "exif": exif})
            for name, mode in (
                ("tiff_lzw", "RGB"),
                ("tiff_adobe_deflate", "RGB"),
                ("jpeg", "RGB"),
                ("packbits", "RGB"),
                ("lzma", "L"),
                ("zstd", "P"),
                ("group3", "1"),
                ("group4", "1"),
            )
        ),
        ("frames.tif", "TIFF", "RGB", frames),
    ]
    if features.check("avif"):
        kinds += [
            ("plain.avif", "AVIF", "RGB", {"exif": exif}),
            ("clear.avif", "AVIF", "RGBA", {}),
            ("animated.avif", "AVIF", "RGB", frames),
        ]
    for name, format_name, mode, options in kinds:
        # A fresh image each time: Pillow stores how it was saved, and fails to save it in another way.
        image = photograph.convert("L" if mode in ("F", "I;16") else "RGB").convert(mode)
        more = {"append_images": [photograph.rotate(angle) for angle in (90, 180)]} if "save_all" in options else {}
        (folder / name).write_bytes(save(image, format_name, **options, **more))
    try:
        from pillow_heif import from_pillow
    except ImportError:
        print("without HEIC: pillow-heif is not installed")
    else:
        for name, mode in (("plain.heic", "RGB"), ("clear.heic", "RGBA")):
            content = io.BytesIO()
            from_pillow(photograph.convert(mode)).save(content)
            (folder / name).write_bytes(content.getvalue())
    _add_zoo(folder)


def _add_zoo(folder: Path) -> None:
    sys.path.append(str(ROOT / "tests"))
    try:
        from helpers.image_zoo import build_zoo
    except ImportError:  # the tests are not in a wheel
        print("without the zoo of the tests")
        return
    with TemporaryDirectory() as zoo:
        build_zoo(Path(zoo))
        for number, file in enumerate(sorted(Path(zoo).iterdir())):
            plain = file.is_file() and file.resolve().is_relative_to(Path(zoo).resolve())
            if plain and file.suffix in SUFFIXES and 0 < file.stat().st_size < LARGEST_SAMPLE:
                shutil.copyfile(file, folder / f"zoo-{number:03}{file.suffix}")


def save(image: Image.Image, format_name: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, format_name, **options)
    return content.getvalue()


_SAME = {".jpe": ".jpg", ".jpeg": ".jpg", ".jfif": ".jpg", ".tiff": ".tif", ".heif": ".heic", ".hif": ".heic"}


class Mutator:
    """File N of a seed: a sample with one to four mutations."""

    def __init__(self, samples: Path, seed: int) -> None:
        self.seed = seed
        self._by_suffix: dict[str, list[bytes]] = {}
        for file in sorted(samples.iterdir()):
            suffix = _SAME.get(file.suffix, file.suffix)
            self._by_suffix.setdefault(suffix, []).append(file.read_bytes())

    def file(self, number: int) -> tuple[str, bytes]:
        """The file's name and content."""
        random = Random(f"{self.seed}/{number}")
        suffix = random.choice(sorted(self._by_suffix))
        samples = self._by_suffix[suffix]
        content = bytearray(random.choice(samples))
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            if content:
                random.choice(_MUTATIONS)(random, content, samples)
        if content.startswith(b"\x89PNG") and random.random() < 0.8:
            repair_checksums(content)
        return f"{number:06}{suffix}", bytes(content)

    def files(self, numbers: range) -> list[File]:
        """Files whose content is made when it is needed."""
        return [(self.file(number)[0], partial(lambda number: self.file(number)[1], number)) for number in numbers]


def _flip(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    for _ in range(random.randint(1, 16)):
        content[_place(random, content)] ^= 1 << random.randrange(8)


def _overwrite(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    """Give a field anywhere a value that is odd for a length or a size."""
    _write_odd_number(random, content, _place(random, content), random.choice((1, 2, 4, 8)))


def _cut(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    start = random.randrange(len(content))
    del content[start : start + random.choice((1, 2, 16, 256, len(content)))]


def _splice(random: Random, content: bytearray, samples: list[bytes]) -> None:
    other = random.choice(samples)
    content[random.randrange(len(content)) :] = other[random.randrange(len(other)) :]


def _repeat(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    start = _place(random, content)
    content[start:start] = content[start : start + random.randint(1, 256)] * random.randint(1, 50)


def _repeat_segment(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    if spans := segments(content):
        start, stop = random.choice(spans)
        place = random.choice(spans)[0]
        content[place:place] = content[start:stop] * random.choice((1, 1, 2, 10, 200))


def _remove_segment(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    if spans := segments(content):
        start, stop = random.choice(spans)
        del content[start:stop]


def _overwrite_in_segment(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    """Change a segment's length, or another number near its start."""
    if spans := segments(content):
        start, stop = random.choice(spans)
        place = min(start + random.randrange(24), stop - 1, len(content) - 1)
        _write_odd_number(random, content, place, random.choice((1, 2, 4)))


_MUTATIONS: list[Callable[[Random, bytearray, list[bytes]], None]] = [
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _cut,
    _splice,
    _repeat,
    _repeat_segment,
    _remove_segment,
    _overwrite_in_segment,
    _overwrite_in_segment,
]


_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Unsigned integers of so many bytes, as `struct` names them."""


def _place(random: Random, content: bytearray) -> int:
    """Half of all places are in the first 256 bytes, where headers are."""
    return random.randrange(len(content) if random.random() < 0.5 else min(256, len(content)))


def _write_odd_number(random: Random, content: bytearray, place: int, size: int) -> None:
    bits = 8 * size
    top = 1 << bits
    number = random.choice((0, 1, 2, 255, 256, 65535, top // 2 - 1, top // 2, top - 1, len(content), PILLOW_LIMIT))
    order = random.choice("<>")
    content[place : place + size] = struct.pack(f"{order}{_LETTERS[size]}", number % top)


def segments(content: bytes | bytearray) -> Spans:
    """The spans of chunks, segments, boxes or directory entries; none in GIF and BMP."""
    if content.startswith(b"\x89PNG"):
        return _chain(content, 8, lambda at: 12 + int.from_bytes(content[at : at + 4], "big"))
    if content.startswith(b"\xff\xd8"):
        return _chain(content, 2, lambda at: 2 + int.from_bytes(content[at + 2 : at + 4], "big"))
    if content.startswith(b"RIFF"):
        return _chain(content, 12, lambda at: 8 + (int.from_bytes(content[at + 4 : at + 8], "little") + 1) // 2 * 2)
    if content[4:8] == b"ftyp":
        return _boxes(content, 0)
    if content[:2] in (b"II", b"MM"):
        intel = content[:2] == b"II"

        def read(at: int, size: int) -> int:
            return int.from_bytes(content[at : at + size], "little" if intel else "big")

        start = read(4, 4)
        return [(at, at + 12) for at in range(start + 2, start + 2 + 12 * min(read(start, 2), 100), 12)]
    return []


def _chain(content: bytes | bytearray, start: int, length: Callable[[int], int]) -> Spans:
    spans: Spans = []
    while start + 4 <= len(content) and len(spans) < 1000:
        stop = min(start + max(length(start), 1), len(content))
        spans.append((start, stop))
        start = stop
    return spans


def _boxes(content: bytes | bytearray, start: int) -> Spans:
    """The boxes of an ISO file, nested ones too."""
    spans: Spans = []
    for at, stop in _chain(content, start, lambda at: int.from_bytes(content[at : at + 4], "big")):
        spans.append((at, stop))
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8}.get(bytes(content[at + 4 : at + 8]))
        if inside:
            spans += [(a, min(b, stop)) for a, b in _boxes(content[:stop], at + inside)]
    return spans


def repair_checksums(png: bytearray) -> None:
    """Correct the checksums of all chunks, so that a decoder does not stop at the first one."""
    for start, stop in segments(png):
        if stop - start >= 12:
            png[stop - 4 : stop] = struct.pack(">I", zlib.crc32(png[start + 4 : stop - 4]))
