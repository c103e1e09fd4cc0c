"""Decode any image to upright RGB pixels."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import re
import stat
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError, _imaging

from imgcap.files import reason
from imgcap.images.archives import ArchivedFile
from imgcap.images.discovery import HEIF_SUFFIXES
from imgcap.images.errors import ImageError, Kind

Source = Path | ArchivedFile | Image.Image | bytes
"""An image: a file, one in an archive, an opened image, or what a file holds."""

Pixels = npt.NDArray[np.uint8]

RESIZE = "squash-bicubic"
"""Name of what `squash` does, kept with everything that was computed from its output."""

BATCH_SIZE = 32
"""Images that go through the encoder together."""

MAX_PIXELS = 200_000_000
"""Most pixels of an image: what the largest sensors of telephones give."""

MAX_MEMORY = 450_000_000
"""Most bytes that an image may take while it is decoded: 112 million pixels at 4 bytes each, less in many formats."""

MAX_SCANS = 100
"""Most scans of a JPEG. For each the decoder goes over the whole image, though it may be ten bytes long."""

SPARE = 2
"""What is decoded has at least this many times the pixels that are wanted, along each side.

Then reduced decoding of JPEGs changes the squashed pixels less than Lanczos instead of bicubic resizing would.
"""

_DECODING_THREADS = 2
_BATCHES_AHEAD = 3
_HEADER_BYTES = 64
_TILE_PIXELS = 1 << 20
_LARGE = 1 << 25
"""Pixels of an image that is reduced before it is squashed."""
_MUCH_MEMORY = 1 << 26
"""Bytes that one image at a time may take to be decoded."""
_LONG = 1 << 14
"""Side of an image that is reduced too: what `squash` makes of it along one side takes memory."""
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "EPS"]
"""What Pillow may take a file for, whatever its name: it has many more decoders, few of them looked after."""
_COPIES = {"AVIF": 3, "HEIF": 2, "WEBP": 4}
"""How many images of 4 bytes a pixel there are at once in a format's decoder, if more than one."""
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_JPEG_MARKER = re.compile(rb"\xff([^\0\1\xd0-\xd7\xff])")
"""Of what has a length, or ends the image: no stuffed byte, no restart."""
_BRANDS = (b"WEBP", b"avif", b"avis")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
_PILLOW_LIMIT = Lock()
_LARGE_IMAGE = Lock()
_GREY_MODES = ("1", "L", "LA", "La")
_WHITE = (255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""
_T = TypeVar("_T")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow's messages go to stderr where nobody asked
with suppress(AttributeError, OSError):  # and so do those of libtiff, where Pillow does not keep it to itself
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def open_image(source: Source, max_pixels: int | None = None, at_least: int | None = None) -> Image.Image:
    """Decode an image to upright 8-bit RGB: first frame, EXIF rotation applied, transparency over white, sRGB.

    `source` is a file, its content, or an image that a program has opened. More than `max_pixels` are refused before
    any is decoded; without it, files of more than `MAX_PIXELS` and those that would take more than `MAX_MEMORY`. With
    `at_least`, a large image may be reduced by integers that leave `at_least` pixels of each side: a JPEG by 2, 4 or
    8 while it is decoded, others of many megapixels afterwards. Raises `ImageError` for what cannot be decoded.
    """
    path = _path(source)
    try:
        with _SILENCE:
            if isinstance(source, Image.Image):
                _check_size(source, max_pixels or MAX_PIXELS)
                return to_rgb(source, at_least)
            with _open_file(source) as file:
                return _decode(file, path, max_pixels, at_least)
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise whatever they stumble over
        refusal = error if isinstance(error, _Refusal) else _explain(error)
    raise ImageError(f"{path or 'The image'} {refusal.what}.", kind=refusal.kind, path=path)


def _path(source: Source) -> str:
    """How an image is named; "" for one that has no file."""
    if isinstance(source, ArchivedFile):
        return source.name
    return os.fspath(source) if isinstance(source, Path) else str(getattr(source, "filename", ""))


class _Refusal(Exception):  # noqa: N818 (an answer, which `open_image` turns into the error)
    """Why an image is not decoded: `what` completes the sentence that begins with its name."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind: Kind = kind
        self.what = what


def _explain(error: Exception) -> _Refusal:
    if isinstance(error, FileNotFoundError):
        return _Refusal("missing", "does not exist")
    if isinstance(error, OSError) and error.errno:  # from the system, not from a decoder
        return _Refusal("unreadable", f"cannot be read: {reason(error)}")
    if isinstance(error, Image.DecompressionBombError):
        return _Refusal("too large", "has too many pixels to be decoded safely")
    if isinstance(error, MemoryError):
        return _Refusal("too large", "cannot be decoded: there is not enough memory")
    why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return _Refusal("damaged", f"cannot be decoded: {why}")


def _open_file(source: Path | ArchivedFile | bytes) -> BinaryIO:
    if not isinstance(source, Path):
        return io.BytesIO(source if isinstance(source, bytes) else source.read())
    mode = source.stat().st_mode
    if stat.S_ISDIR(mode):
        raise _Refusal("not an image", "is a folder, not an image")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for somebody to write into it
        raise _Refusal("not an image", "is a pipe or a device, not a file")
    return source.open("rb")


def _decode(file: BinaryIO, path: str, max_pixels: int | None, at_least: int | None) -> Image.Image:
    header = file.read(_HEADER_BYTES)
    if not header:
        raise _Refusal("damaged", "is empty")
    if _is_heif(header, path):
        _register_heif()
    try:
        try:
            return _decode_first_frame(file, header, max_pixels, at_least)
        except Image.DecompressionBombError:
            with _pillow_allowing(max_pixels or MAX_PIXELS):
                return _decode_first_frame(file, header, max_pixels, at_least)
    except UnidentifiedImageError:
        if header.startswith(_SIGNATURES) or header[8:12] in _BRANDS or _is_heif(header, path):
            raise _Refusal("damaged", "is damaged, or a kind of image that cannot be read") from None
        raise _Refusal("not an image", "is not an image that can be read") from None


def _decode_first_frame(file: BinaryIO, header: bytes, max_pixels: int | None, at_least: int | None) -> Image.Image:
    with Image.open(file, formats=[*_FORMATS, "HEIF"] if "HEIF" in Image.OPEN else _FORMATS) as image:
        if image.format == "EPS":  # Pillow would start Ghostscript
            raise _Refusal("unsupported", "is a PostScript drawing, not an image that can be decoded")
        _check_size(image, max_pixels or MAX_PIXELS)
        size, memory = f"{image.width} x {image.height}", 0
        if image.format in ("JPEG", "MPO"):
            memory = _check_scans(image, file)
            if at_least is not None:
                _reduce_jpeg(image, at_least)
        memory += _decoder_memory(image)
        if max_pixels is None and memory > MAX_MEMORY:
            what = f"has {size} pixels and takes {memory / 1e6:,.0f} MB while it is decoded, more than the"
            raise _Refusal("too large", f"{what} {MAX_MEMORY / 1e6:,.0f} MB allowed where no limit on pixels is given")
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
    """Give free memory back to the system: glibc keeps an image's blocks, for each thread that has decoded one."""
    if _MALLOC_TRIM:
        _MALLOC_TRIM(0)


def _decoder_memory(image: ImageFile.ImageFile) -> int:
    """Bytes that decoding `image` takes at most, but for what a JPEG of several scans keeps."""
    memory = 4 * image.width * image.height * _COPIES.get(image.format or "", 1) + 8 * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile and image.tile[0][0] == "libtiff":
        tags = image.tag_v2
        width = tags.get(TiffImagePlugin.TILEWIDTH, image.width)
        height = tags.get(TiffImagePlugin.TILELENGTH, tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height))
        if TiffImagePlugin.TILEWIDTH not in tags:
            height = min(height, image.height)
        memory += width * height * max(4, sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) // 8)
    return memory


def _scale_transparent_colour(image: Image.Image, bits: int) -> None:
    """Give a PNG's transparent colour the 8 bits of its pixels: Pillow leaves it as it is in the file."""

    def scaled(value: int) -> int:
        return value * 255 // (2**bits - 1) if bits < 8 else value >> (bits - 8)

    colour = image.info.get("transparency")
    if isinstance(colour, int):
        image.info["transparency"] = scaled(colour)
    elif isinstance(colour, tuple):
        image.info["transparency"] = tuple(map(scaled, colour))


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} = {image.width * image.height:,} pixels"
        raise _Refusal("too large", f"has {size}, more than the {max_pixels:,} that are allowed")


def _check_scans(image: ImageFile.ImageFile, file: BinaryIO) -> int:
    """Refuse a JPEG of more than `MAX_SCANS`; returns the bytes that its decoder keeps of one scan for the next.

    A file whose first scan holds everything is not read any further.
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
        raise _Refusal("damaged", f"has more than the {MAX_SCANS} scans that a JPEG may have")
    return 2 * layers * image.width * image.height


def _reduce_jpeg(image: ImageFile.ImageFile, at_least: int) -> None:
    """Have a JPEG decoded by the largest reduction that divides its sides, so that no part of a pixel is added."""
    for scale in (8, 4, 2):
        width, height = image.width // scale, image.height // scale
        if (width * scale, height * scale) == image.size and min(width, height) >= at_least:
            image.draft(None, (width, height))  # the mode stays as it is
            return


@contextmanager
def _pillow_allowing(max_pixels: int) -> Iterator[None]:
    """Lets Pillow decode `max_pixels`: it refuses images of more than twice `Image.MAX_IMAGE_PIXELS`.

    Only for an image that Pillow has refused, one at a time, because the limit holds for the whole program.
    """
    with _PILLOW_LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _is_heif(header: bytes, path: str) -> bool:
    """Whether a file is HEIC or another HEIF but AVIF, by the brands that it begins with (ISO/IEC 23008-12)."""
    if header[4:8] != b"ftyp":
        return False
    brands = {header[i : i + 4] for i in range(8, min(int.from_bytes(header[:4], "big"), len(header)), 4)}
    return not brands.isdisjoint(_HEIF_BRANDS) or path.lower().endswith(tuple(HEIF_SUFFIXES))


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        what = "is a HEIC image, for which pillow-heif is missing (pip install 'imgcap[heif]')"
        raise _Refusal("unsupported", what) from None
    register_heif_opener()


class _Silence:
    """Drops Pillow's warnings (odd metadata, large images) while any thread is inside.

    What cannot be decoded raises. `warnings.catch_warnings` alone would let one thread undo what another has set.
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


def to_rgb(image: Image.Image, at_least: int | None = None) -> Image.Image:
    """Any Pillow image as an upright, opaque, 8-bit sRGB image of its own; `image` itself is not changed.

    `at_least` is that of `open_image`.
    """
    image.load()  # what is damaged raises here; it also turns a TIFF upright
    scale = (1, 1) if at_least is None else _reduction(image.size, at_least)
    opaque = _to_8_bits(image, scale)
    if profile := image.info.get("icc_profile"):
        opaque = _to_srgb(opaque, profile)
    turn = _turn(image)
    if turn is not None:
        opaque = opaque.transpose(turn)
    rgb = opaque.convert("RGB") if opaque is image or opaque.mode != "RGB" else opaque
    rgb.info = {}  # orientation and colour profile are used up
    return rgb


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes `image` upright, by its EXIF or XMP orientation."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata, of any kind, is no reason to refuse the image
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _reduction(size: tuple[int, int], at_least: int) -> tuple[int, int]:
    """By what an image is reduced along each side before it is squashed: an ordinary one is not."""
    width, height = size
    if width * height <= _LARGE and max(size) <= _LONG:
        return 1, 1
    return max(1, width // at_least), max(1, height // at_least)


def _to_8_bits(image: Image.Image, scale: tuple[int, int]) -> Image.Image:
    """Opaque L, CMYK or RGB, whichever the mode and so the colour profile of `image` belongs to; reduced by `scale`."""
    mode = image.mode if image.mode == "CMYK" else "L" if image.mode in _GREY_MODES or image.mode[0] in "IF" else "RGB"
    plain = image.mode[0] not in "IF" and not image.has_transparency_data
    if plain and scale == (1, 1):
        return image if image.mode == mode else image.convert(mode)
    zero, step = _grey_range(image)
    across, down = scale
    opaque = Image.new(mode, (-(-image.width // across), -(-image.height // down)))
    for left, top, tile in _tiles(image, scale):
        grey = _stretch(tile, zero, step) if tile.mode[0] in "IF" else tile
        opaque.paste(_flatten(grey, mode).reduce(scale), (left // across, top // down))
    return opaque


def _tiles(image: Image.Image, scale: tuple[int, int]) -> Iterator[tuple[int, int, Image.Image]]:
    """`image` in parts with their places, so that what is computed between two modes takes little memory."""
    across, down = scale
    width = min(image.width, max(1, _LONG // across) * across)
    height = max(1, _TILE_PIXELS // width // down) * down
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            right, bottom = min(left + width, image.width), min(top + height, image.height)
            yield left, top, image.crop((left, top, right, bottom))


def _grey_range(image: Image.Image) -> tuple[float, float]:
    """What is black, and by what 16- and 32-bit grey becomes 8 bits: the format's full range if the values fit one."""
    if image.mode not in ("I", "F"):
        return 0.0, 1 / 256
    extremes = [(values.min(), values.max()) for values in (_finite(tile) for _, _, tile in _tiles(image, (1, 1)))]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if low >= 0 and high <= 1 and image.mode == "F":
        return 0.0, 255.0
    if low >= 0 and high <= 255:
        return 0.0, 1.0
    if low >= 0 and high <= 65535:
        return 0.0, 255 / 65535
    return low, 255 / ((high - low) or 1.0)


def _stretch(image: Image.Image, zero: float, step: float) -> Image.Image:
    """Mode I;16, I or F to L."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image) >> 8
    else:
        values = ((_finite(image) - zero) * step).round().clip(0, 255)
    grey = Image.fromarray(values.astype(np.uint8))
    grey.info = image.info
    return grey


def _finite(image: Image.Image) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):  # odd floats become 0
        return np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """The image over white, in `mode`."""
    if not image.has_transparency_data:
        return image.convert(mode)
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*_WHITE, 255)), rgba).convert(mode)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
            image = image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile, or one of another kind of image, is no reason to refuse the image
    return converted or image


def squash(image: Image.Image, size: int) -> Pixels:
    """RGB image -> uint8 (size, size, 3): the whole image, aspect ratio not kept, bicubic with antialiasing."""
    resample: Literal[Image.Resampling.BICUBIC] = Image.Resampling.BICUBIC
    return np.array(image.resize((size, size), resample))


def load_pixels(source: Source | ImageError, size: int, max_pixels: int | None = None) -> Pixels | ImageError:
    """Pixels of one image as `squash` gives them, or the error, so that one bad file never stops the rest.

    An error in the place of an image is passed on.
    """
    if isinstance(source, ImageError):
        return source
    try:
        return squash(open_image(source, max_pixels, SPARE * size), size)
    except ImageError as error:
        return error.with_traceback(None)  # which would keep what was decoded of the image


def load_batches(
    sources: Iterable[Source | ImageError], size: int, batch_size: int = BATCH_SIZE, max_pixels: int | None = None
) -> Iterator[list[Pixels | ImageError]]:
    """Batches of what `load_pixels` gives, in the order of `sources`, decoded in threads ahead of their use."""
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        waiting: deque[list[Future[Pixels | ImageError]]] = deque()
        for batch in batched(sources, batch_size):
            waiting.append([pool.submit(load_pixels, source, size, max_pixels) for source in batch])
            if len(waiting) > _BATCHES_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items, the last one perhaps shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
