"""Find picture files, and decode any of them to upright RGB pixels."""

from __future__ import annotations

import io
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from imgcap.errors import ImgcapError
from imgcap.files import reason

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"})
"""File name endings, in lower case, that count as pictures when a folder is searched."""

Pixels = npt.NDArray[np.uint8]

RESIZE = "squash-bicubic"
"""Name of what `squash` does, kept with everything that was computed from its output."""

BATCH_SIZE = 32
"""Pictures that go through the encoder together."""

_DECODING_THREADS = 2
_BATCHES_AHEAD = 3
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
"""What makes a picture upright, by its EXIF orientation."""
_T = TypeVar("_T")


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (a Path is slow to make a million times)


def find_images(folder: Path) -> Iterator[Path]:
    """Picture files under `folder` and its sub-folders, sorted, without hidden ones. Raises `ImgcapError`."""
    problems: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=problems.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_image_name(name) and not name.startswith("."):
                yield Path(parent, name)
    if problems:
        raise ImgcapError(f"The folder {problems[0].filename} cannot be read: {reason(problems[0])}.")


def expand(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are given, folders replaced by the pictures in them. Raises `ImgcapError` for an empty folder."""
    for path in paths:
        if path.is_dir():
            found = False
            for file in find_images(path):
                found = True
                yield file
            if not found:
                raise no_pictures(path)
        else:
            yield path


def no_pictures(folder: Path) -> ImgcapError:
    """The error for a folder in which `find_images` finds nothing."""
    return ImgcapError(f"The folder {folder} holds no pictures.", f"Looked for {', '.join(sorted(SUFFIXES))}.")


def open_image(source: Path | Image.Image) -> Image.Image:
    """Decode a picture to upright 8-bit RGB: first frame, EXIF rotation applied, transparency over white, sRGB.

    Raises `ImgcapError` if the file is missing, unreadable, not a picture or damaged.
    """
    name = source if isinstance(source, Path) else getattr(source, "filename", "") or "The picture"
    try:
        with _SILENCE:
            if isinstance(source, Image.Image):
                return to_rgb(source)
            with Image.open(source) as image:
                return to_rgb(image)
    except FileNotFoundError:
        raise ImgcapError(f"{name} does not exist.") from None
    except UnidentifiedImageError:
        raise ImgcapError(f"{name} is not a picture that can be read.") from None
    except Image.DecompressionBombError:
        raise ImgcapError(f"{name} has too many pixels to be decoded safely.") from None
    except OSError as error:
        raise ImgcapError(f"{name} cannot be decoded: {reason(error)}.") from None
    except Exception as error:
        # On damaged files Pillow's decoders raise whatever they stumble over.
        why = " ".join(str(error).split()) or type(error).__name__
        raise ImgcapError(f"{name} cannot be decoded: {why}.") from None


class _Silence:
    """Drops Pillow's warnings (odd metadata, large pictures) while any thread is inside.

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


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow picture as an upright, opaque, 8-bit sRGB picture of its own; `image` itself is not changed."""
    image.load()  # what is damaged raises here; it also turns a TIFF upright
    upright = _upright(image)
    if upright.mode[0] in "IF":
        upright = _stretch(upright)
    profile = upright.info.get("icc_profile")
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*_WHITE, 255))
        upright = Image.alpha_composite(white, rgba).convert("RGB")
    elif upright.mode not in ("RGB", "CMYK", "L"):
        upright = upright.convert("RGB")
    if profile:
        upright = _to_srgb(upright, profile)
    rgb = upright.convert("RGB")
    rgb.info = {}  # orientation and colour profile are used up
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    """`image`, or if its EXIF or XMP orientation says so, a turned copy."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata, of any kind, is no reason to refuse the picture
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _stretch(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey (modes I;16, I, F) to 8 bits: by the format's full range if the values fit one."""
    with np.errstate(all="ignore"):  # odd floats become 0
        values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16"):
        scale = 255 / 65535
    elif low >= 0 and high <= 1 and image.mode == "F":
        scale = 255.0
    elif low >= 0 and high <= 255:
        scale = 1.0
    elif low >= 0 and high <= 65535:
        scale = 255 / 65535
    else:
        values, scale = values - low, 255 / ((high - low) or 1.0)
    return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile is no reason to refuse the picture
    return converted or image


def squash(image: Image.Image, size: int) -> Pixels:
    """RGB picture -> uint8 (size, size, 3): the whole picture, aspect ratio not kept, bicubic with antialiasing."""
    resample: Literal[Image.Resampling.BICUBIC] = Image.Resampling.BICUBIC
    return np.array(image.resize((size, size), resample))


def load_pixels(source: Path | Image.Image, size: int) -> Pixels | ImgcapError:
    """Pixels of one picture as `squash` gives them, or the error, so that one bad file never stops the rest."""
    try:
        return squash(open_image(source), size)
    except ImgcapError as error:
        return error


def load_batches(
    sources: Iterable[Path | Image.Image], size: int, batch_size: int = BATCH_SIZE
) -> Iterator[list[Pixels | ImgcapError]]:
    """Batches of decoded pictures in the order of `sources`, decoded in threads ahead of their use."""
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        waiting: deque[list[Future[Pixels | ImgcapError]]] = deque()
        for batch in batched(sources, batch_size):
            waiting.append([pool.submit(load_pixels, source, size) for source in batch])
            if len(waiting) > _BATCHES_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items, the last one perhaps shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
