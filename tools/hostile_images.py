"""Images that no camera has made: mutated samples of every format, and hand-made bombs.

For `fuzz_images.py`, which decodes them. Nothing here reads an image.
"""

from __future__ import annotations

import io
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import isqrt
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, features

from imgcap.images.discovery import SUFFIXES
from imgcap.images.limits import MAX_MEMORY

ROOT = Path(__file__).parents[1]
LARGEST_SAMPLE = 200_000
SAMPLE_SIZE = (80, 60)
PILLOW_LIMIT = 178_956_970
"""Pixels of which Pillow refuses more, unless it is told otherwise."""

Spans = list[tuple[int, int]]
File = tuple[str, Callable[[], bytes]]
"""A file's name and what makes its content."""


# --- samples


def write_samples(folder: Path) -> None:
    """One small image of every kind that Pillow writes, and the zoo of the tests where it is at hand."""
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
        # Pillow remembers in an image how it was saved, and stumbles over that when it saves it otherwise.
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


# --- mutations


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
        """Files whose content is made when their turn comes."""
        return [(self.file(number)[0], partial(lambda number: self.file(number)[1], number)) for number in numbers]


def _flip(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    for _ in range(random.randint(1, 16)):
        content[_place(random, content)] ^= 1 << random.randrange(8)


def _overwrite(random: Random, content: bytearray, _samples: list[bytes]) -> None:
    """A field anywhere gets a value that lengths and sizes stumble over."""
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
    """A segment's length, or one of the numbers that it begins with."""
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
    """Where the parts of a file lie: chunks, segments, boxes, or entries of a directory; none in GIF and BMP."""
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
    """Boxes of an ISO file, and those inside its boxes of boxes."""
    spans: Spans = []
    for at, stop in _chain(content, start, lambda at: int.from_bytes(content[at : at + 4], "big")):
        spans.append((at, stop))
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8}.get(bytes(content[at + 4 : at + 8]))
        if inside:
            spans += [(a, min(b, stop)) for a, b in _boxes(content[:stop], at + inside)]
    return spans


def repair_checksums(png: bytearray) -> None:
    """Give the chunks their right checksums, so that a decoder reads on."""
    for start, stop in segments(png):
        if stop - start >= 12:
            png[stop - 4 : stop] = struct.pack(">I", zlib.crc32(png[start + 4 : stop - 4]))


# --- bombs


def write_bombs(folder: Path) -> None:
    """Small files that ask for much."""
    folder.mkdir()
    for name, make in _bombs():
        (folder / name).write_bytes(make())


def _most(bytes_per_pixel: int) -> tuple[int, int]:
    """The largest square that is decoded of a format that takes so much; its sides are odd: no JPEG is reduced."""
    side = (isqrt(MAX_MEMORY // bytes_per_pixel) - 2) | 1
    return side, side


def _bombs() -> Iterator[File]:
    small = Image.new("RGB", (64, 48), (200, 10, 10))
    yield from _sizes(small)
    yield from _whole_images()
    yield from _png_bombs()
    yield from _jpeg_bombs(save(small, "JPEG"))
    yield from _tiff_bombs()
    yield from _animations(small)
    yield from _iso_bombs(small)
    icon = png(_most(4), 8, 6, 10_000)
    yield "png.ico", lambda: b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + struct.pack("<II", len(icon), 22) + icon
    yield "png.icns", lambda: struct.pack(">4sI4sI", b"icns", len(icon) + 16, b"ic10", len(icon) + 8) + icon
    yield "text.ppm", lambda: b"P3 3000 3000 255\n" + b"0 " * 27_000_000


def _sizes(small: Image.Image) -> Iterator[File]:
    """Small images whose headers say that they are large."""
    jpeg, progressive = save(small, "JPEG"), save(small, "JPEG", progressive=True)
    webp, lossless = save(small, "WEBP"), save(small, "WEBP", lossless=True)
    gif, bmp = save(small.convert("P"), "GIF"), save(small, "BMP")
    size = struct.pack
    for name, (width, height) in (
        ("huge", (60_000, 60_000)),
        ("most", _most(4)),
        ("wide", (65_500, 1_700)),
        ("tall", (2, 65_500)),
        ("thin", (1, MAX_MEMORY // 12 - 9)),
        ("flat", (MAX_MEMORY // 4 - 9, 1)),
    ):
        jpeg_size = size(">HH", min(height, 65_500), min(width, 65_500))
        yield f"{name}.jpg", partial(_replace, jpeg, _after(jpeg, b"\xff\xc0", 5), jpeg_size)
        yield f"{name}-progressive.jpg", partial(_replace, progressive, _after(progressive, b"\xff\xc2", 5), jpeg_size)
        yield f"{name}-cut.png", partial(png, (width, height), 8, 2, 10_000)
        yield f"{name}-cut.tif", partial(tiff, (width, height), 8, 3, 10_000)
        yield f"{name}.bmp", partial(_replace, bmp, 18, size("<ii", width, height))
        yield f"{name}-negative.bmp", partial(_replace, bmp, 18, size("<ii", width, -height))
        yield f"{name}-rle.bmp", partial(rle_bmp, (width, height))
        screen = size("<HH", min(width, 65_535), min(height, 65_535))
        yield f"{name}-screen.gif", partial(_replace, gif, 6, screen)
        yield f"{name}-frame.gif", partial(_replace, gif, _after(gif, b",\0\0\0\0", 5), screen)
    for name, (width, height) in (("huge", (16_383, 16_383)), ("most", _most(16)), ("thin", (2, 16_383))):
        webp_size = size("<HH", width, height)
        yield f"{name}.webp", partial(_replace, webp, _after(webp, b"\x9d\x01\x2a", 3), webp_size)
        bits = size("<I", width - 1 | height - 1 << 14)
        yield f"{name}-lossless.webp", partial(_replace, lossless, _after(lossless, b"VP8L", 9), bits)


def _whole_images() -> Iterator[File]:
    """The largest images of each kind that are decoded: every pixel is there."""
    width, height = _most(4)
    for name, bits, colour_type, samples in (
        ("rgb", 8, 2, 3),
        ("rgba", 8, 6, 4),
        ("grey-alpha", 8, 4, 2),
        ("grey-16", 16, 0, 2),
        ("rgb-16", 16, 2, 6),
    ):
        yield f"most-{name}.png", partial(png, (width, height), bits, colour_type, height * (samples * width + 1))
    clear = [(b"tRNS", bytes(6))]
    yield "most-rgb-clear.png", partial(png, (width, height), 8, 2, height * (3 * width + 1), clear)
    frame = (b"fcTL", struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 1, 2, 1))
    still = [(b"acTL", struct.pack(">II", 2, 0)), frame]
    yield "most-animated.png", partial(png, (width, height), 8, 6, height * (4 * width + 1), still)
    for thin in ((1, MAX_MEMORY // 12 - 9), (MAX_MEMORY // 4 - 9, 1)):
        yield f"{'thin' if thin[0] == 1 else 'flat'}.png", partial(png, thin, 8, 0, thin[1] * (thin[0] + 1))
    for name, bits, samples, tags in (
        ("rgb", 8, 3, {"photometric": 2}),
        ("rgb-16", 16, 3, {"photometric": 2}),
        ("cmyk", 8, 4, {"photometric": 5}),
        ("grey-32", 32, 1, {"photometric": 1}),
        ("float", 32, 1, {"photometric": 1, "sample_format": 3}),
    ):
        size = _most(4 + max(4, bits * samples // 8))
        count = size[0] * size[1] * bits * samples // 8
        yield f"most-{name}.tif", partial(tiff, size, bits, samples, count, **tags)
    square = Image.new("RGB", _most(16))
    yield "most-whole.webp", partial(save, square, "WEBP", method=0)
    yield "most-whole-lossless.webp", partial(save, square, "WEBP", lossless=True, method=0, quality=0)
    yield "most-whole.gif", lambda: save(Image.new("P", _most(4)), "GIF", transparency=0)


def _png_bombs() -> Iterator[File]:
    def with_chunks(*chunks: tuple[bytes, bytes]) -> Callable[[], bytes]:
        return lambda: png((4, 4), 8, 2, 52, list(chunks))

    text = zlib.compress(bytes(200_000_000), 9)
    for name, prefix in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        yield f"{name.decode()}.png", with_chunks((name, prefix + text))
    yield "many-zTXt.png", with_chunks(*[(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))] * 2000)
    yield "many-chunks.png", with_chunks(*[(b"abCd", b"")] * 200_000)
    yield "many-texts.png", with_chunks(*[(b"tEXt", b"k\0v")] * 200_000)
    yield "many-frames.png", with_chunks((b"acTL", struct.pack(">II", 1 << 31, 0)))


def _jpeg_bombs(jpeg: bytes) -> Iterator[File]:
    yield "many-comments.jpg", lambda: jpeg[:2] + b"\xff\xfe\0\2" * 300_000 + jpeg[2:]
    yield "fill-bytes.jpg", lambda: jpeg[:2] + b"\xff" * 5_000_000 + jpeg[2:]
    profile = b"\xff\xe2\xff\xffICC_PROFILE\0\1\xff" + bytes(65_519)
    yield "many-profiles.jpg", lambda: jpeg[:2] + profile * 255 + jpeg[2:]
    for scans in (100, 1_000, 20_000):
        yield f"{scans}-scans.jpg", partial(many_scans, _most(10), scans, True)
        yield f"{scans}-baseline-scans.jpg", partial(many_scans, _most(10), scans, False)


def _tiff_bombs() -> Iterator[File]:
    size = struct.pack
    yield "many-directories.tif", partial(directories, 50_000, loop=False)
    yield "looping-directories.tif", partial(directories, 3, loop=True)
    yield "many-entries.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + size("<HHII", 270, 2, 1 << 31, 8) * 65_535
    yield "long-tag.tif", lambda: b"II*\0\x08\0\0\0\1\0" + size("<HHIII", 273, 4, (1 << 32) - 1, 8, 0)
    yield "huge-tile.tif", partial(tiff, (64, 64), 8, 4, 20_000 * 20_000 * 4, tile=20_000)


def _animations(small: Image.Image) -> Iterator[File]:
    gif = save(small.convert("P"), "GIF")
    frame = gif[gif.index(b",\0\0\0\0") : -1]
    yield "many-frames.gif", lambda: gif[:-1] + frame * 65_000 + b";"
    yield "no-end.gif", lambda: gif[:-1] + b"!\xfe\xff" * 300_000
    webp = save(small, "WEBP", save_all=True, append_images=[small.rotate(90)])
    for name, (width, height) in (
        ("huge", (16_777_216, 255)),
        ("most", _most(16)),
        ("thin", (6, MAX_MEMORY // 104 - 9)),
        ("flat", (MAX_MEMORY // 64 - 9, 4)),
    ):
        canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        for frames in (1, 20_000):
            content = webp[: webp.index(b"ANMF")] + _chunk_of(webp, b"ANMF") * frames
            content = b"RIFF" + struct.pack("<I", len(content) - 8) + content[8:]
            yield f"{name}-canvas-{frames}.webp", partial(_replace, content, _after(webp, b"VP8X", 12), canvas)


def _chunk_of(riff: bytes, name: bytes) -> bytes:
    """The first chunk of this name, header and padding included."""
    return next(riff[start:stop] for start, stop in segments(riff) if riff[start : start + 4] == name)


def _iso_bombs(small: Image.Image) -> Iterator[File]:
    """Of the formats that are made of boxes: AVIF and HEIC."""
    size = struct.pack
    images: dict[str, bytes] = {}
    if features.check("avif"):
        images["avif"] = save(small, "AVIF")
        yield "most-whole.avif", partial(save, Image.new("RGB", _most(12)), "AVIF", speed=10, subsampling="4:4:4")
    with suppress(ImportError):
        from pillow_heif import from_pillow

        content = io.BytesIO()
        from_pillow(small).save(content)
        heic = images["heic"] = content.getvalue()
        deep = b"".join(size(">I4s4x", 12 * (2_000 - i), b"meta") for i in range(2_000))
        yield "deep.heic", lambda: heic[: int.from_bytes(heic[:4], "big")] + deep
    for suffix, image in images.items():
        for name, (width, height) in (("huge", (60_000, 60_000)), ("most", _most(12))):
            place = _after(image, b"ispe", 8)
            yield f"{name}.{suffix}", partial(_replace, image, place, size(">II", width, height))
        for share in (4, 3, 2):
            yield f"cut-{share}.{suffix}", partial(_start_of, image, (share - 1) / share)


def _after(content: bytes, marker: bytes, skipped: int) -> int:
    return content.index(marker) + skipped


def _replace(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def _start_of(content: bytes, part: float) -> bytes:
    return content[: int(len(content) * part)]


def zeros(count: int) -> bytes:
    """`count` zeros, deflated without ever being there."""
    deflate, block = zlib.compressobj(1), bytes(1 << 20)
    parts = [deflate.compress(block[: count - start]) for start in range(0, count, len(block))]
    return b"".join(parts) + deflate.flush()


def png(
    size: tuple[int, int], bits: int, colour_type: int, count: int, chunks: list[tuple[bytes, bytes]] | None = None
) -> bytes:
    """A PNG with `count` zeros as its rows, of which a header may say that they are more."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0))
    others = b"".join(chunk(*other) for other in chunks or [])
    return b"\x89PNG\r\n\x1a\n" + header + others + chunk(b"IDAT", zeros(count)) + chunk(b"IEND", b"")


def tiff(
    size: tuple[int, int],
    bits: int,
    samples: int,
    count: int,
    photometric: int = 2,
    sample_format: int = 1,
    tile: int | None = None,
) -> bytes:
    """A deflated TIFF of one strip, or of one square tile with sides of `tile`, with `count` zeros."""
    pixels = zeros(count)
    length = 8 + 2 + 12 * (11 if tile else 10) + 4
    first, depth = length + 2 * samples, length if samples > 2 else bits
    place = (
        [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, first), (325, 4, 1, len(pixels))]
        if tile
        else [(273, 4, 1, first), (278, 4, 1, size[1]), (279, 4, 1, len(pixels))]
    )
    tags = [
        (256, 4, 1, size[0]),
        (257, 4, 1, size[1]),
        (258, 3, samples, depth),
        (259, 3, 1, 8),
        (262, 3, 1, photometric),
        (277, 3, 1, samples),
        (339, 3, 1, sample_format),
        *place,
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<H", bits) * samples + pixels


def directories(count: int, loop: bool) -> bytes:
    """A TIFF of empty directories, the last one followed by none or by the first."""
    starts = [8 + 6 * i for i in range(count)] + [8 if loop else 0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<HI", 0, after) for after in starts[1:])


def rle_bmp(size: tuple[int, int]) -> bytes:
    """A BMP with a palette whose run-length code skips from corner to corner."""
    code = b"\0\2\xff\xff" * 1000 + b"\0\0" * 5000 + b"\0\1"
    start = 14 + 40 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(code), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(code), 0, 0, start) + header + bytes(1024) + code


def many_scans(size: tuple[int, int], scans: int, progressive: bool) -> bytes:
    """A grey JPEG of one component after the other, without a single coefficient, again and again."""
    red = Image.new("RGB", (64, 48), (200, 10, 10))
    jpeg = save(red, "JPEG", progressive=progressive)
    frame = _after(jpeg, b"\xff\xc2" if progressive else b"\xff\xc0", 5)
    first = jpeg.index(b"\xff\xda")
    component = b"\xff\xda\0\x08\1\1\0" + (b"\0\0\0" if progressive else b"\0\x3f\0")
    return _replace(jpeg[:first], frame, struct.pack(">HH", *size[::-1])) + component * scans + b"\xff\xd9"
