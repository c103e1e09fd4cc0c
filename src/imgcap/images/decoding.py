"""Decode any image to upright RGB pixels."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import stat
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from imgcap.files import reason
from imgcap.images.archived import ArchivedFile
from imgcap.images.discovery import HEIF_SUFFIXES
from imgcap.images.errors import ImageError, Refusal
from imgcap.images.limits import (
    MAX_PIXELS,
    check_memory,
    check_scans,
    check_size,
    decoder_memory,
    pillow_allowing,
)
from imgcap.images.rgb import to_rgb

Source = Path | ArchivedFile | Image.Image | bytes
"""An image: a file, a file in an archive, an opened image, or the content of a file."""

Pixels = npt.NDArray[np.uint8]

RESIZE = "squash-bicubic"
"""Name of the resize in `squash`, stored with everything that was computed from its output."""

BATCH_SIZE = 32
"""Images that the encoder takes together."""

SPARE = 2
"""A reduced image keeps at least this many times the wanted pixels along each side.

Then reduced decoding of JPEGs changes the squashed pixels less than a Lanczos instead of a bicubic resize would.
"""

_DECODING_THREADS = 2
_BATCHES_AHEAD = 3
_HEADER_BYTES = 64
_MUCH_MEMORY = 1 << 26
"""Bytes above which only one image is decoded at a time."""
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "EPS"]
"""The formats Pillow may detect. It has many more decoders, few of them well maintained."""
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_BRANDS = (b"WEBP", b"avif", b"avis")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
_LARGE_IMAGE = Lock()
_T = TypeVar("_T")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow's messages appear on stderr
with suppress(AttributeError, OSError):  # as do those of libtiff, where Pillow does not silence them
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def open_image(source: Source, max_pixels: int | None = None, at_least: int | None = None) -> Image.Image:
    """Decode an image to upright 8-bit RGB: first frame, EXIF rotation applied, transparency over white, sRGB.

    `source` is a file, its content, or an opened image. An image with more than `max_pixels` is refused before it is
    decoded; without `max_pixels`, one with more than `MAX_PIXELS`, or one that would take more than `MAX_MEMORY`. With
    `at_least`, a large image may be reduced by integers that leave `at_least` pixels on each side: a JPEG by 2, 4 or 8
    while it is decoded, others of many megapixels afterwards. Raises `ImageError` if the image cannot be decoded.
    """
    path = _path(source)
    try:
        with _SILENCE:
            if isinstance(source, Image.Image):
                check_size(source, max_pixels or MAX_PIXELS)
                return to_rgb(source, at_least)
            with _open_file(source) as file:
                return _decode(file, path, max_pixels, at_least)
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise all kinds of exceptions
        refusal = error if isinstance(error, Refusal) else _explain(error)
    raise ImageError(f"{path or 'The image'} {refusal.what}.", kind=refusal.kind, path=path)


def _path(source: Source) -> str:
    """The image's name; "" for one without a file."""
    if isinstance(source, ArchivedFile):
        return source.name
    return os.fspath(source) if isinstance(source, Path) else str(getattr(source, "filename", ""))


def _explain(error: Exception) -> Refusal:
    if isinstance(error, FileNotFoundError):
        return Refusal("missing", "does not exist")
    if isinstance(error, OSError) and error.errno:  # from the system, not from a decoder
        return Refusal("unreadable", f"cannot be read: {reason(error)}")
    if isinstance(error, Image.DecompressionBombError):
        return Refusal("too large", "has too many pixels to be decoded safely")
    if isinstance(error, MemoryError):
        return Refusal("too large", "cannot be decoded: there is not enough memory")
    why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return Refusal("damaged", f"cannot be decoded: {why}")


def _open_file(source: Path | ArchivedFile | bytes) -> BinaryIO:
    if not isinstance(source, Path):
        return io.BytesIO(source if isinstance(source, bytes) else source.read())
    mode = source.stat().st_mode
    if stat.S_ISDIR(mode):
        raise Refusal("not an image", "is a folder, not an image")
    if not stat.S_ISREG(mode):  # opening a pipe would block until somebody writes into it
        raise Refusal("not an image", "is a pipe or a device, not a file")
    return source.open("rb")


def _decode(file: BinaryIO, path: str, max_pixels: int | None, at_least: int | None) -> Image.Image:
    header = file.read(_HEADER_BYTES)
    if not header:
        raise Refusal("damaged", "is empty")
    if _is_heif(header, path):
        _register_heif()
    try:
        try:
            return _decode_first_frame(file, header, max_pixels, at_least)
        except Image.DecompressionBombError:
            with pillow_allowing(max_pixels or MAX_PIXELS):
                return _decode_first_frame(file, header, max_pixels, at_least)
    except UnidentifiedImageError:
        if header.startswith(_SIGNATURES) or header[8:12] in _BRANDS or _is_heif(header, path):
            raise Refusal("damaged", "is damaged, or a kind of image that cannot be read") from None
        raise Refusal("not an image", "is not an image that can be read") from None


def _decode_first_frame(file: BinaryIO, header: bytes, max_pixels: int | None, at_least: int | None) -> Image.Image:
    with Image.open(file, formats=[*_FORMATS, "HEIF"] if "HEIF" in Image.OPEN else _FORMATS) as image:
        if image.format == "EPS":  # Pillow would start Ghostscript
            raise Refusal("unsupported", "is a PostScript drawing, not an image that can be decoded")
        check_size(image, max_pixels or MAX_PIXELS)
        size, memory = f"{image.width} x {image.height}", 0
        if image.format in ("JPEG", "MPO"):
            memory = check_scans(image, file)
            if at_least is not None:
                _reduce_jpeg(image, at_least)
        memory += decoder_memory(image)
        if max_pixels is None:
            check_memory(memory, size)
        if image.format == "PNG" and image.mode != "P":
            _scale_transparent_colour(image, bits=header[24])
        if memory <= _MUCH_MEMORY:
            return to_rgb(image, at_least)
        with _LARGE_IMAGE:
            rgb = None
            try:
                rgb = to_rgb(image, at_least)
            finally:
                if rgb is not image:
                    image.close()
                _return_memory()
            return rgb


def _return_memory() -> None:
    """Return free memory to the system: glibc keeps an image's blocks for each thread that has decoded one."""
    if _MALLOC_TRIM:
        _MALLOC_TRIM(0)


def _scale_transparent_colour(image: Image.Image, bits: int) -> None:
    """Scale a PNG's transparent colour to the 8 bits of its pixels; Pillow keeps the file's depth."""

    def scaled(value: int) -> int:
        return value * 255 // (2**bits - 1) if bits < 8 else value >> (bits - 8)

    colour = image.info.get("transparency")
    if isinstance(colour, int):
        image.info["transparency"] = scaled(colour)
    elif isinstance(colour, tuple):
        image.info["transparency"] = tuple(map(scaled, colour))


def _reduce_jpeg(image: ImageFile.ImageFile, at_least: int) -> None:
    """Have a JPEG decoded by the largest reduction that divides its sides, so that no partial pixels are added."""
    for scale in (8, 4, 2):
        width, height = image.width // scale, image.height // scale
        if (width * scale, height * scale) == image.size and min(width, height) >= at_least:
            image.draft(None, (width, height))  # keeps the mode
            return


def _is_heif(header: bytes, path: str) -> bool:
    """Whether a file is HEIC or another HEIF except AVIF, by the brands in its header (ISO/IEC 23008-12)."""
    if header[4:8] != b"ftyp":
        return False
    brands = {header[i : i + 4] for i in range(8, min(int.from_bytes(header[:4], "big"), len(header)), 4)}
    return not brands.isdisjoint(_HEIF_BRANDS) or path.lower().endswith(tuple(HEIF_SUFFIXES))


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        what = "is a HEIC image, which needs pillow-heif (pip install pillow-heif)"
        raise Refusal("unsupported", what) from None
    register_heif_opener()


class _Silence:
    """Hides Pillow's warnings (odd metadata, large images) while any thread is inside.

    Images that cannot be decoded raise instead. With `warnings.catch_warnings` alone, one thread would restore the
    filters that another thread has set.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._filters = Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


def squash(image: Image.Image, size: int) -> Pixels:
    """RGB image -> uint8 (size, size, 3): the whole image, aspect ratio not kept, bicubic with antialiasing."""
    resample: Literal[Image.Resampling.BICUBIC] = Image.Resampling.BICUBIC
    return np.array(image.resize((size, size), resample))


def load_pixels(source: Source | ImageError, size: int, max_pixels: int | None = None) -> Pixels | ImageError:
    """One image -> uint8 (size, size, 3) as from `squash`, or its error, so that one bad file never stops the rest.

    An `ImageError` as `source` is returned as it is.
    """
    if isinstance(source, ImageError):
        return source
    try:
        return squash(open_image(source, max_pixels, SPARE * size), size)
    except ImageError as error:
        return error.with_traceback(None)  # the traceback would keep the decoded image alive


def load_batches(
    sources: Iterable[Source | ImageError], size: int, batch_size: int = BATCH_SIZE, max_pixels: int | None = None
) -> Iterator[list[Pixels | ImageError]]:
    """The results of `load_pixels` in batches, in the order of `sources`, decoded ahead in threads."""
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        waiting: deque[list[Future[Pixels | ImageError]]] = deque()
        for batch in batched(sources, batch_size):
            waiting.append([pool.submit(load_pixels, source, size, max_pixels) for source in batch])
            if len(waiting) > _BATCHES_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
