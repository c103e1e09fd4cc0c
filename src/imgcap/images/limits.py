"""How large an image may be, checked against its header before any pixel is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import BinaryIO

from PIL import Image, ImageFile, TiffImagePlugin

from imgcap.images.errors import Refusal

MAX_PIXELS = 200_000_000
"""Most pixels of an image: those of the largest phone sensors."""

MAX_MEMORY = 450_000_000
"""Most bytes that decoding an image may take: 112 million pixels at 4 bytes each, fewer in many formats."""

MAX_SCANS = 100
"""Most scans of a JPEG. The decoder visits the whole image for each scan, even one of ten bytes."""

_COPIES = {"AVIF": 3, "HEIF": 2, "WEBP": 4}
"""Copies of the image, at 4 bytes a pixel, that a format's decoder holds at once, if more than one."""
_JPEG_MARKER = re.compile(rb"\xff([^\0\1\xd0-\xd7\xff])")
"""A marker that has a length or ends the image: no stuffed byte, no restart."""
_PILLOW_LIMIT = Lock()


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Raise `Refusal` if `image` has more than `max_pixels`."""
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} = {image.width * image.height:,} pixels"
        raise Refusal("too large", f"has {size}, more than the {max_pixels:,} that are allowed")


def check_memory(memory: int, size: str) -> None:
    """Raise `Refusal` if decoding an image of `size` takes more than `MAX_MEMORY`."""
    if memory > MAX_MEMORY:
        what = f"has {size} pixels and takes {memory / 1e6:,.0f} MB while it is decoded, more than the"
        raise Refusal("too large", f"{what} {MAX_MEMORY / 1e6:,.0f} MB allowed where no limit on pixels is given")


def decoder_memory(image: ImageFile.ImageFile) -> int:
    """Most bytes that decoding `image` takes, not counting what a JPEG of several scans keeps between them."""
    memory = 4 * image.width * image.height * _COPIES.get(image.format or "", 1) + 8 * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile and image.tile[0][0] == "libtiff":
        tags = image.tag_v2
        width = tags.get(TiffImagePlugin.TILEWIDTH, image.width)
        height = tags.get(TiffImagePlugin.TILELENGTH, tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height))
        if TiffImagePlugin.TILEWIDTH not in tags:
            height = min(height, image.height)
        memory += width * height * max(4, sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) // 8)
    return memory


def check_scans(image: ImageFile.ImageFile, file: BinaryIO) -> int:
    """Bytes that the decoder of a JPEG keeps between its scans. Raises `Refusal` for more than `MAX_SCANS` scans.

    Reading stops at the first scan if that one holds everything.
    """
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    at, scans, layers = 2, 0, getattr(image, "layers", 0)
    while scans <= MAX_SCANS and (marker := _JPEG_MARKER.search(content, at)):
        at = marker.end()
        if marker[1] == b"\xd9":  # the end
            break
        if marker[1] == b"\xda":  # a scan: length, number of components, and more
            scans += 1
            if not image.info.get("progressive") and content[at + 2 : at + 3] == bytes([layers]):
                return 0
        at += int.from_bytes(content[at : at + 2], "big")
    if scans > MAX_SCANS:
        raise Refusal("damaged", f"has more than the {MAX_SCANS} scans that a JPEG may have")
    return 2 * layers * image.width * image.height


@contextmanager
def pillow_allowing(max_pixels: int) -> Iterator[None]:
    """Let Pillow decode `max_pixels`; on its own it refuses more than twice `Image.MAX_IMAGE_PIXELS`.

    That limit is global, so use this only for an image that Pillow has refused. One thread at a time gets through.
    """
    with _PILLOW_LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
