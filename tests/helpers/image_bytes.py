"""Image files and colour profiles that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product

from PIL import Image, ImageCms

RED = (255, 0, 0)
SIZE = (6, 4)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    bits: int,
    colour_type: int,
    pixel: bytes,
    transparency: bytes = b"",
    other: bytes = b"",
    size: tuple[int, int] = SIZE,
) -> bytes:
    """A PNG whose pixels are all `pixel`, which is a whole row if a pixel has less than 8 bits.

    With another size than usual, the header lies: there is only one row.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0))
    row = b"\0" + pixel * (SIZE[0] if bits >= 8 else 1)
    pixels = chunk(b"IDAT", zlib.compress(row * (SIZE[1] if size == SIZE else 1)))
    clear = chunk(b"tRNS", transparency) if transparency else b""
    return b"\x89PNG\r\n\x1a\n" + header + other + clear + pixels + chunk(b"IEND", b"")


def interlaced_png() -> bytes:
    """8 x 8 red pixels in the seven passes of Adam7."""
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join((b"\0" + bytes(RED) * width) * height for width, height in passes)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(bits: int, samples: int, photometric: int, pixel: bytes, size: tuple[int, int] = SIZE) -> bytes:
    """An uncompressed little-endian TIFF of one strip whose pixels are all `pixel`; with another size it lies."""
    pixels = pixel * (SIZE[0] * SIZE[1])
    depths = 8 + 2 + 9 * 12 + 4
    start = depths + 2 * samples
    tags = [
        (256, 4, 1, size[0]),
        (257, 4, 1, size[1]),
        (258, 3, samples, depths if samples > 1 else bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, start),
        (277, 3, 1, samples),
        (278, 4, 1, size[1]),
        (279, 4, 1, len(pixels)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<H", bits) * samples + pixels


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG with many scans of one component that hold no coefficients."""
    jpeg = _progressive_jpeg()
    return jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xda\0\x08\1\1\0\0\0\0" * scans + b"\xff\xd9"


def without_segment(jpeg: bytes, marker: bytes) -> bytes:
    start = jpeg.index(marker)
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


ARITHMETIC_JPEG = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ6%5fc;@6%`B*7Z?^47!ni}6#v@"
    "*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6cqo-01*fP1ONsD0TBQK5di}c0sqVZ3IG"
    "rg1pyEd1^?Or3<CiG0ucid06zf#0NF_#R1%_q|Je"
)
"""6 x 4 red pixels with arithmetic coding, which no library at hand writes."""


def swapped_profile() -> bytes:
    """A profile whose red is sRGB's blue and the other way round."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def grey_profile() -> bytes:
    """Grey with gamma 1, so that 55 is sRGB's 128."""
    return profile(b"mntr", b"GRAY", b"XYZ ", b"kTRC", b"curv" + bytes(4) + struct.pack(">IH", 1, 0x0100))


def cmyk_profile() -> bytes:
    """Inks without colours: magenta over yellow is L* = 50, which is sRGB's 119, and black is black."""
    identity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x10000)
    straight = bytes(range(256))
    inks = b"".join(bytes([0 if k else 128 if m and y else 255, 128, 128]) for _, m, y, k in product((0, 1), repeat=4))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + straight * 4 + inks + straight * 3
    return profile(b"prtr", b"CMYK", b"Lab ", b"A2B0", table)


def profile(device: bytes, colours: bytes, space: bytes, tag: bytes, content: bytes) -> bytes:
    """An ICC profile, version 2.4, with one tag beside its white point (D50)."""
    d50 = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    content += bytes(-len(content) % 4)
    white = b"XYZ " + bytes(4) + d50
    start = 128 + 4 + 2 * 12
    table = struct.pack(">I4sII4sII", 2, b"wtpt", start, len(white), tag, start + len(white), len(content))
    size = start + len(white) + len(content)
    header = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x02400000, device, colours, space, b"acsp") + d50 + bytes(48)
    return header + table + white + content


def _progressive_jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", SIZE, RED).save(content, "JPEG", progressive=True)
    return content.getvalue()
