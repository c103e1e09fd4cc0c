"""Small image files that ask for much time or memory, for `fuzz_images.py` to decode."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import isqrt
from pathlib import Path

from PIL import Image, features

from hostile_images import File, save, segments
from imgcap.images.limits import MAX_MEMORY


def write_bombs(folder: Path) -> None:
    """Write all bombs into `folder`."""
    folder.mkdir()
    for name, make in _bombs():
        (folder / name).write_bytes(make())


def _most(bytes_per_pixel: int) -> tuple[int, int]:
    """The largest square that imgcap decodes, at this memory per pixel. Odd sides, so that no JPEG is reduced."""
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
    """Small images with headers that claim large ones."""
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
    """The largest images of each kind that imgcap decodes, with all their pixels."""
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
    """The first chunk with this name, including header and padding."""
    return next(riff[start:stop] for start, stop in segments(riff) if riff[start : start + 4] == name)


def _iso_bombs(small: Image.Image) -> Iterator[File]:
    """Bombs in the formats that consist of boxes: AVIF and HEIC."""
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
    """`count` zeros, deflated block by block."""
    deflate, block = zlib.compressobj(1), bytes(1 << 20)
    parts = [deflate.compress(block[: count - start]) for start in range(0, count, len(block))]
    return b"".join(parts) + deflate.flush()


def png(
    size: tuple[int, int], bits: int, colour_type: int, count: int, chunks: list[tuple[bytes, bytes]] | None = None
) -> bytes:
    """A PNG with `count` zeros as its rows; the header may claim more."""

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
    """A deflated TIFF of `count` zeros in one strip, or in one square tile with sides of `tile`."""
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
    """A TIFF of empty directories; with `loop`, the last one points to the first."""
    starts = [8 + 6 * i for i in range(count)] + [8 if loop else 0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<HI", 0, after) for after in starts[1:])


def rle_bmp(size: tuple[int, int]) -> bytes:
    """A BMP with a palette whose run-length code jumps from corner to corner."""
    code = b"\0\2\xff\xff" * 1000 + b"\0\0" * 5000 + b"\0\1"
    start = 14 + 40 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(code), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(code), 0, 0, start) + header + bytes(1024) + code


def many_scans(size: tuple[int, int], scans: int, progressive: bool) -> bytes:
    """A JPEG with many scans of one component that hold no coefficients."""
    red = Image.new("RGB", (64, 48), (200, 10, 10))
    jpeg = save(red, "JPEG", progressive=progressive)
    frame = _after(jpeg, b"\xff\xc2" if progressive else b"\xff\xc0", 5)
    first = jpeg.index(b"\xff\xda")
    component = b"\xff\xda\0\x08\1\1\0" + (b"\0\0\0" if progressive else b"\0\x3f\0")
    return _replace(jpeg[:first], frame, struct.pack(">HH", *size[::-1])) + component * scans + b"\xff\xd9"
