"""Small images of one colour, and what they decode to."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Colour = tuple[int, int, int]
RED, WHITE, BLACK, PINK = (255, 0, 0), (255, 255, 255), (0, 0, 0), (255, 127, 127)
SIZE = (6, 4)


def plain(mode: str, colour: float | tuple[int, ...]) -> Image.Image:
    return Image.new(mode, SIZE, colour)


def grey(value: float, kind: str) -> Image.Image:
    return Image.fromarray(np.full(SIZE[::-1], value, kind))


def big_endian(value: int) -> Image.Image:
    return Image.frombytes("I;16B", SIZE, struct.pack(">H", value) * (SIZE[0] * SIZE[1]))


def palette(alpha: int | None = None) -> Image.Image:
    """A red image with a palette; with `alpha`, its palette has transparency (mode PA in memory and in TIFF)."""
    image = Image.new("P" if alpha is None else "PA", SIZE, 1 if alpha is None else (1, alpha))
    image.putpalette([0, 0, 255, 255, 0, 0])
    return image


def lab() -> Image.Image:
    srgb, cie = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(plain("RGB", RED), srgb, cie, outputMode="LAB")
    assert converted is not None
    return converted


def close(image: Image.Image, colour: Colour, tolerance: int = 2) -> bool:
    """Whether all pixels have a colour, and the image is plain RGB."""
    assert image.mode == "RGB"
    return bool((np.abs(np.asarray(image).astype(int) - colour) <= tolerance).all())


def corners() -> Image.Image:
    """An image that no rotation or flip maps to itself."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(pixels)


STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.rotate(-90, expand=True),
}
"""How a camera that writes an EXIF orientation stores an upright image."""


def with_orientation(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def plain_of(size: tuple[int, int], mode: str = "RGB", colour: tuple[int, ...] = RED) -> Image.Image:
    return Image.new(mode, size, colour)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """A profile whose red is sRGB's blue and the other way round."""
    return srgb_profile().replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def raising(error: Exception) -> Callable[[object], Image.Image]:
    def fail(_image: object) -> Image.Image:
        raise error

    return fail


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, name, **options)
    return content.getvalue()
