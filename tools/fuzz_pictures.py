"""Does any picture crash, hang or flood imgcap? Mutated samples of every format and hand-made bombs, decoded.

    python tools/fuzz_pictures.py --files 20000 --out findings

Each file is decoded by the product's own `load_pixels` in a process that may die of it. Then some go as a folder
through `imgcap caption` and `imgcap prepare`, with a tiny model of random weights that is made here. A finding is

    crash      a signal, or an exception that is no `PictureError`
    hang       more than --seconds-each of CPU time, or ten times that of waiting
    memory     more than --memory-mb of resident memory, Python and libraries included
    noise      anything on stderr or a warning; from a command, more than a line for each bad file
    exit code  of a command, other than 0 and 3

File number N of a seed is always the same while Pillow and the samples are. Findings are kept in --out; exit code 1
says that there are some. Linux only.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, features
from PIL import __version__ as pillow_version

from imgcap.errors import ExitCode
from imgcap.images import MAX_PIXELS, load_pixels
from imgcap.picture_files import SUFFIXES, PictureError

ROOT = Path(__file__).parents[1]
PIXELS = 75
"""Side of what pictures are squashed to: the smallest that Inception V3 takes."""
BATCH = 250
"""Files that one worker process decodes before the next one begins."""
LARGEST_SAMPLE = 200_000
SAMPLE_SIZE = (80, 60)
WAITING = 10
"""How many times as long a file may take on the clock as on the CPU, since other programs run too."""

Spans = list[tuple[int, int]]
File = tuple[str, Callable[[], bytes]]
"""A file's name and what makes its content."""
Load = Callable[[Path], object]


@dataclass(frozen=True)
class Limits:
    """What one file may take."""

    seconds: float
    """Of CPU time."""
    memory_mb: int


@dataclass
class Report:
    """What came of all files so far."""

    findings: list[tuple[str, str, str]] = field(default_factory=list)
    """File, kind, and what was seen."""
    decoded: int = 0
    refused: int = 0
    slowest: tuple[float, str] = (0.0, "")
    """CPU seconds of a file."""
    largest: tuple[int, str] = (0, "")
    """Peak resident memory in MB, and the file that took it."""
    begun: float = field(default_factory=time.monotonic)

    def add(self, file: str, kind: str, what: str) -> None:
        self.findings.append((file, kind, what))
        print(f"FINDING {file}: {kind}: {what}", flush=True)


def in_a_process(function: Callable[[Path], None], argument: Path) -> None:
    """Call `function` elsewhere: libraries that it uses start threads, after which a fork could hang."""
    process = multiprocessing.get_context("fork").Process(target=function, args=(argument,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed.")


# --- samples


def write_samples(folder: Path) -> None:
    """One small picture of every kind that Pillow writes, and the zoo of the tests where it is at hand."""
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
        # Pillow remembers in a picture how it was saved, and stumbles over that when it saves it otherwise.
        picture = photograph.convert("L" if mode in ("F", "I;16") else "RGB").convert(mode)
        more = {"append_images": [photograph.rotate(angle) for angle in (90, 180)]} if "save_all" in options else {}
        (folder / name).write_bytes(save(picture, format_name, **options, **more))
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
        from picture_zoo import build_zoo
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
    number = random.choice((0, 1, 2, 255, 256, 65535, top // 2 - 1, top // 2, top - 1, len(content), MAX_PIXELS))
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


def _bombs() -> Iterator[File]:
    side = int(MAX_PIXELS**0.5)
    huge, most = (60_000, 60_000), (side, side)
    small = Image.new("RGB", (64, 48), (200, 10, 10))
    jpeg, progressive = save(small, "JPEG"), save(small, "JPEG", progressive=True)
    webp, lossless = save(small, "WEBP"), save(small, "WEBP", lossless=True)
    gif, bmp = save(small.convert("P"), "GIF"), save(small, "BMP")
    size = struct.pack
    for name, (width, height) in (("huge", huge), ("most", most), ("wide", (65_500, 2_700)), ("tall", (2, 65_500))):
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
        webp_size = size("<HH", min(width, 16_383), min(height, 16_383))
        yield f"{name}.webp", partial(_replace, webp, _after(webp, b"\x9d\x01\x2a", 3), webp_size)
        bits = min(width, 16_384) - 1 | min(height, 16_384) - 1 << 14
        yield f"{name}-lossless.webp", partial(_replace, lossless, _after(lossless, b"VP8L", 9), size("<I", bits))
    pixels = side * side
    yield "most-rgb.png", partial(png, most, 8, 2, side * (3 * side + 1))
    yield "most-rgba.png", partial(png, most, 8, 6, side * (4 * side + 1))
    yield "most-grey-alpha.png", partial(png, most, 8, 4, side * (2 * side + 1))
    yield "most-grey-16.png", partial(png, most, 16, 0, side * (2 * side + 1))
    yield "most-rgb-clear.png", partial(png, most, 8, 2, side * (3 * side + 1), [(b"tRNS", bytes(6))])
    yield "most-cmyk.tif", partial(tiff, most, 8, 4, 4 * pixels, photometric=5)
    yield "most-grey-32.tif", partial(tiff, most, 32, 1, 4 * pixels, photometric=1)
    yield "most-float.tif", partial(tiff, most, 32, 1, 4 * pixels, photometric=1, sample_format=3)
    text = zlib.compress(bytes(200_000_000), 9)
    for chunk, prefix in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        yield f"{chunk.decode()}.png", partial(png, (4, 4), 8, 2, 52, [(chunk, prefix + text)])
    megabyte = zlib.compress(bytes(1_000_000), 9)
    yield "many-zTXt.png", partial(png, (4, 4), 8, 2, 52, [(b"zTXt", b"k\0\0" + megabyte)] * 2000)
    yield "many-chunks.png", partial(png, (4, 4), 8, 2, 52, [(b"abCd", b"")] * 200_000)
    yield "many-texts.png", partial(png, (4, 4), 8, 2, 52, [(b"tEXt", b"k\0v")] * 200_000)
    yield "many-frames.png", partial(png, (4, 4), 8, 2, 52, [(b"acTL", size(">II", 1 << 31, 0))])
    yield "many-frames.gif", partial(_many_frames, gif, 65_000)
    yield "no-end.gif", lambda: gif[:-1] + b"!\xfe\xff" * 300_000
    yield "many-comments.jpg", lambda: jpeg[:2] + b"\xff\xfe\0\2" * 300_000 + jpeg[2:]
    yield "fill-bytes.jpg", lambda: jpeg[:2] + b"\xff" * 5_000_000 + jpeg[2:]
    profile = b"\xff\xe2\xff\xffICC_PROFILE\0\1\xff" + bytes(65_519)
    yield "many-profiles.jpg", lambda: jpeg[:2] + profile * 255 + jpeg[2:]
    for scans in (100, 1_000, 20_000):
        yield f"{scans}-scans.jpg", partial(many_scans, most, scans, True)
        yield f"{scans}-baseline-scans.jpg", partial(many_scans, most, scans, False)
    yield "many-directories.tif", partial(directories, 50_000, loop=False)
    yield "looping-directories.tif", partial(directories, 3, loop=True)
    yield "many-entries.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + size("<HHII", 270, 2, 1 << 31, 8) * 65_535
    yield "long-tag.tif", lambda: b"II*\0\x08\0\0\0\1\0" + size("<HHIII", 273, 4, (1 << 32) - 1, 8, 0)
    riff = b"VP8X\x0a\0\0\0\x02\0\0\0\xfe\x3f\0\xfe\x3f\0" + b"ANMF\x10\0\0\0" + bytes(16)
    yield "canvas.webp", lambda: b"RIFF" + size("<I", len(riff) + 4) + b"WEBP" + riff
    if features.check("avif"):
        avif = save(small, "AVIF")
        yield "huge.avif", partial(_replace, avif, _after(avif, b"ispe", 8), size(">II", *huge))
        yield "most.avif", partial(_replace, avif, _after(avif, b"ispe", 8), size(">II", *most))
        yield "cut.avif", lambda: avif[:-20]
    try:
        from pillow_heif import from_pillow
    except ImportError:
        return
    content = io.BytesIO()
    from_pillow(small).save(content)
    heic = content.getvalue()
    for share in (4, 3, 2):
        yield f"cut-{share}.heic", partial(lambda share: heic[: len(heic) * (share - 1) // share], share)
    yield "huge.heic", partial(_replace, heic, _after(heic, b"ispe", 8), size(">II", *huge))
    yield "most.heic", partial(_replace, heic, _after(heic, b"ispe", 8), size(">II", *most))
    deep = b"".join(size(">I4s4x", 12 * (2_000 - i), b"meta") for i in range(2_000))
    yield "deep.heic", lambda: heic[: int.from_bytes(heic[:4], "big")] + deep


def _after(content: bytes, marker: bytes, skipped: int) -> int:
    return content.index(marker) + skipped


def _replace(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


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
    size: tuple[int, int], bits: int, samples: int, count: int, photometric: int = 2, sample_format: int = 1
) -> bytes:
    """A deflated TIFF of one strip with `count` zeros."""
    pixels = zeros(count)
    tags = [
        (256, 4, 1, size[0]),
        (257, 4, 1, size[1]),
        (258, 3, samples, 0),
        (259, 3, 1, 8),
        (262, 3, 1, photometric),
        (273, 4, 1, 0),
        (277, 3, 1, samples),
        (278, 4, 1, size[1]),
        (279, 4, 1, len(pixels)),
        (339, 3, 1, sample_format),
    ]
    depths = 8 + 2 + 12 * len(tags) + 4
    values = {258: depths if samples > 2 else bits, 273: depths + 2 * samples}
    entries = b"".join(struct.pack("<HHII", *tag[:3], values.get(tag[0], tag[3])) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
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


def _many_frames(gif: bytes, count: int) -> bytes:
    frame = gif[gif.index(b",\0\0\0\0") : -1]
    return gif[:-1] + frame * count + b";"


# --- decoding


@dataclass(frozen=True)
class Decoded:
    """What a worker says of one file."""

    findings: list[tuple[str, str]]
    refused: bool
    seconds: float
    peak_mb: int


def squash_to_pixels(file: Path) -> object:
    """The decode path of every command."""
    return load_pixels(file, PIXELS)


def decode(
    files: Iterable[Sequence[File]],
    limits: Limits,
    out: Path,
    report: Report,
    jobs: int = 1,
    load: Load = squash_to_pixels,
    deadline: float = float("inf"),
) -> None:
    """Decode batches of files, each batch in a process of its own, `jobs` of them at a time."""
    waiting = iter(files)
    running: dict[Connection, _Worker] = {}

    def start(batch: Sequence[File]) -> None:
        worker = _Worker(batch, limits, load)
        running[worker.results] = worker

    while True:
        while len(running) < jobs and time.monotonic() < deadline and (batch := next(waiting, None)):
            start(batch)
        if not running:
            return
        for results in wait(list(running)):
            assert isinstance(results, Connection)
            worker = running[results]
            if not worker.take(report, out):
                del running[results]
                print(f"  {_summary(report)}", flush=True)
                if left := worker.left():
                    start(left)


class _Worker:
    """A process that decodes one batch, until it is through or dies."""

    def __init__(self, batch: Sequence[File], limits: Limits, load: Load) -> None:
        self.batch, self.limits = batch, limits
        self._folder = TemporaryDirectory()
        self._current = -1
        self.results, sender = multiprocessing.Pipe(duplex=False)
        fork = multiprocessing.get_context("fork")  # so that `load` and what makes the files need no pickling
        self._process = fork.Process(
            target=_work, args=(batch, Path(self._folder.name), limits, load, sender), daemon=True
        )
        self._process.start()
        sender.close()

    def take(self, report: Report, out: Path) -> bool:
        """Take one message; whether there will be more."""
        try:
            message = self.results.recv()
        except EOFError:
            self._process.join()
            self._end(report, out)
            return False
        if isinstance(message, int):
            self._current = message
            return True
        name = self.batch[self._current][0]
        report.decoded += 1
        report.refused += message.refused
        report.slowest = max(report.slowest, (message.seconds, name))
        report.largest = max(report.largest, (message.peak_mb, name))
        for kind, what in message.findings:
            self._keep(report, out, kind, what)
        return True

    def left(self) -> Sequence[File]:
        """The files after the one that ended the process."""
        return self.batch[self._current + 1 :] if self._process.exitcode else []

    def _end(self, report: Report, out: Path) -> None:
        code = self._process.exitcode
        if code:
            said = (Path(self._folder.name) / "stderr").read_text(errors="replace")[-500:]
            if -code in (signal.SIGPROF, signal.SIGALRM):
                self._keep(report, out, "hang", f"more than {self.limits.seconds:g} s {said}")
            else:
                self._keep(report, out, "crash", f"exit code {code} {said}")
        self._folder.cleanup()

    def _keep(self, report: Report, out: Path, kind: str, what: str) -> None:
        name = self.batch[self._current][0]
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(self._folder.name) / name, out / name)
        report.add(str(out / name), kind, what)


def _work(batch: Sequence[File], folder: Path, limits: Limits, load: Load, results: Connection) -> None:
    """Decode `batch`; of each file its number is sent before, and a `Decoded` after."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for alarm in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(alarm, signal.SIG_DFL)  # kills, wherever the process is
    warnings.simplefilter("always")
    log = (folder / "stderr").open("w+b", buffering=0)
    os.dup2(log.fileno(), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 (a descriptor)
    for number, (name, make) in enumerate(batch):
        file = folder / name
        file.write_bytes(make())
        results.send(number)
        decoded = _decode_one(file, limits, load, log)
        results.send(decoded)
        if not decoded.findings:  # else the other process copies it
            file.unlink()


def _decode_one(file: Path, limits: Limits, load: Load, log: io.FileIO) -> Decoded:
    findings: list[tuple[str, str]] = []
    found: object = None
    noise_before = os.fstat(log.fileno()).st_size
    _forget_peak()
    begun = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * limits.seconds)
    try:
        found = load(file)
    except Exception as error:  # of any kind: that is what is looked for
        findings.append(("crash", f"{type(error).__name__}: {error}"))
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, peak = time.process_time() - begun, _peak_mb()
    if peak > limits.memory_mb:
        findings.append(("memory", f"{peak} MB"))
    if noise := os.pread(log.fileno(), 500, noise_before):
        findings.append(("noise", noise.decode(errors="replace")))
    return Decoded(findings, isinstance(found, PictureError), seconds, peak)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> int:
    """The most resident memory of this process since `_forget_peak`, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


# --- commands


def run_commands(mutator: Mutator, numbers: range, limits: Limits, out: Path, report: Report) -> None:
    """Caption and prepare a folder of mutated files among good ones, with the commands that people call."""
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        encoder, model = make_model(work)
        pictures = work / "pictures"
        _write_good_pictures(pictures)
        for number in numbers:
            name, content = mutator.file(number)
            (pictures / name).write_bytes(content)
        names = sorted(file.name for file in pictures.iterdir())
        captions = _write_captions(work / "captions.csv", names)
        commands = {
            "caption": ["caption", pictures, "--model", model, "-o", work / "captions.jsonl"],
            "prepare": [
                "prepare",
                "--images",
                pictures,
                "--captions",
                captions,
                "-o",
                work / "prepared",
                "--encoder",
                encoder,
            ],
        }
        before = len(report.findings)
        for name, arguments in commands.items():
            begun = time.monotonic()
            kinds = list(run_command(arguments, limits, len(names)))
            print(f"imgcap {name}: {len(names)} files, {time.monotonic() - begun:.0f} s", flush=True)
            for kind, what in kinds:
                report.add(f"imgcap {name} {out / 'folder'}", kind, what)
        rows = (work / "captions.jsonl").read_text().count("\n") if (work / "captions.jsonl").exists() else 0
        if rows != len(names):
            report.add(f"imgcap caption {out / 'folder'}", "exit code", f"{rows} rows for {len(names)} files")
        if len(report.findings) > before:
            shutil.copytree(pictures, out / "folder", dirs_exist_ok=True)


def run_command(arguments: Sequence[object], limits: Limits, files: int) -> Iterator[tuple[str, str]]:
    """Run `imgcap` over a folder of `files` files; yields what is wrong with how it goes."""
    command = [sys.executable, "-W", "always", "-m", "imgcap", *map(str, arguments)]
    with TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w+b") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        end = time.monotonic() + WAITING * limits.seconds * (1 + files / 100)
        peak = 0
        while process.poll() is None and time.monotonic() < end:
            peak = max(peak, _peak_of(process.pid))
            time.sleep(0.05)
        if process.returncode is None:
            process.kill()
            process.wait()
            yield "hang", f"more than {WAITING * limits.seconds * (1 + files / 100):.0f} s"
        elif process.returncode < 0:
            yield "crash", f"signal {-process.returncode}"
        elif process.returncode not in (ExitCode.DONE, ExitCode.SOME_FAILED):
            yield "exit code", str(process.returncode)
        if peak > limits.memory_mb:
            yield "memory", f"{peak} MB"
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if "Traceback" in said:
        yield "crash", said[-1000:]
    if strange := [line for line in said.splitlines() if not _is_ours(line)]:
        yield "noise", f"{len(strange)} lines: " + " / ".join(strange[:3])
    if said.count("\n") > files + 20:
        yield "noise", f"{said.count(chr(10))} lines for {files} files"


def _is_ours(line: str) -> bool:
    """Whether a line of stderr is one that imgcap has for a person: an error, or a part of the summary."""
    return not line or line.startswith(("imgcap: ", "Captioned ", "Left out ", "  ")) or " pictures" in line


def _peak_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    except (OSError, IndexError):  # it has just ended
        return 0


def make_model(work: Path) -> tuple[Path, Path]:
    """An encoder of random weights for small pictures, and a model that has learnt nothing with it."""
    encoder, model = work / "encoder.safetensors", work / "model"
    in_a_process(_make_encoder, encoder)
    pictures = work / "for-the-model"
    names = _write_good_pictures(pictures)
    captions = _write_captions(work / "for-the-model.csv", names)
    for arguments in (
        ["prepare", "--images", pictures, "--captions", captions, "-o", work / "learnt", "--encoder", encoder],
        [
            "train",
            work / "learnt",
            "-o",
            model,
            "--epochs",
            1,
            "--embedding-size",
            16,
            "--hidden-size",
            16,
            "--min-count",
            1,
        ],
    ):
        subprocess.run([sys.executable, "-m", "imgcap", *map(str, arguments)], check=True, stderr=subprocess.PIPE)
    return encoder, model


def _make_encoder(file: Path) -> None:
    import torch

    from imgcap.encoder import EncoderConfig, save_encoder
    from imgcap.inception import InceptionV3

    torch.manual_seed(0)
    network = InceptionV3(count_padding=False)
    save_encoder(file, network.state_dict(), EncoderConfig(pixels=PIXELS, count_padding=False), torch.float16)


def _write_good_pictures(folder: Path, count: int = 24) -> list[str]:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", SAMPLE_SIZE, (i * 10, 100, 200)).save(folder / f"good-{i:02}.png")
    return sorted(file.name for file in folder.iterdir())


def _write_captions(file: Path, names: Iterable[str]) -> Path:
    file.write_text("image,caption\n" + "".join(f"{name},a dog on a wall\n" for name in names))
    return file


# --- the whole run


def batches(mutator: Mutator, count: int) -> Iterator[list[File]]:
    """The files 0 to `count` of `mutator`, made when their turn comes."""
    for start in range(0, count, BATCH):
        yield [
            (mutator.file(number)[0], partial(lambda number: mutator.file(number)[1], number))
            for number in range(start, min(start + BATCH, count))
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="mutated files to decode")
    parser.add_argument("--in-folder", type=int, default=500, help="more of them for the commands; 0 for no commands")
    parser.add_argument("--bombs", action=argparse.BooleanOptionalAction, default=True, help="hand-made files too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds-each", type=float, default=10, help="CPU seconds that a file may take")
    parser.add_argument("--memory-mb", type=int, default=1024, help="resident memory that a file may take")
    parser.add_argument("--jobs", type=int, default=1, help="processes that decode")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no batch after so long")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for the files that were found")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.files} files, Pillow {pillow_version}", flush=True)
    limits, report = Limits(args.seconds_each, args.memory_mb), Report()
    deadline = report.begun + 60 * args.minutes
    with TemporaryDirectory() as folder:
        samples = Path(folder) / "samples"
        in_a_process(write_samples, samples)
        mutator = Mutator(samples, args.seed)
        if args.bombs:
            in_a_process(write_bombs, Path(folder) / "bombs")
            bombs = [(file.name, file.read_bytes) for file in sorted((Path(folder) / "bombs").iterdir())]
            decode([bombs], limits, args.out, report, args.jobs)
            print(f"bombs: {_summary(report)}", flush=True)
        mutated = Report(report.findings)
        decode(batches(mutator, args.files), limits, args.out, mutated, args.jobs, deadline=deadline)
        print(f"mutated files: {_summary(mutated)}", flush=True)
        if args.in_folder and time.monotonic() < deadline:
            run_commands(mutator, range(args.files, args.files + args.in_folder), limits, args.out, report)
    counts = Counter(kind for _, kind, _ in report.findings)
    print("findings: " + (", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"))
    return 1 if report.findings else 0


def _summary(report: Report) -> str:
    seconds = time.monotonic() - report.begun
    return (
        f"{report.decoded} decoded or refused ({report.refused} refused) in {seconds:.0f} s, "
        f"{report.decoded / seconds:.1f} a second; slowest {report.slowest[0]:.2f} s CPU ({report.slowest[1]}), "
        f"most memory {report.largest[0]} MB ({report.largest[1]})"
    )


if __name__ == "__main__":
    sys.exit(main())
