"""Any Pillow image as upright, opaque, 8-bit sRGB."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

_LARGE = 1 << 25
"""Pixels above which an image is reduced before it is squashed."""
_LONG = 1 << 14
"""Side above which an image is reduced too, because resizing along one side takes memory."""
_TILE_PIXELS = 1 << 20
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
"""The turn that makes an image upright, by its EXIF orientation."""


def to_rgb(image: Image.Image, at_least: int | None = None) -> Image.Image:
    """Any Pillow image as a separate upright, opaque, 8-bit sRGB image; `image` itself does not change.

    With `at_least`, an image of many megapixels is reduced by integers that leave `at_least` pixels on each side.
    """
    image.load()  # raises if the image is damaged; also turns a TIFF upright
    scale = (1, 1) if at_least is None else _reduction(image.size, at_least)
    opaque = _to_8_bits(image, scale)
    if profile := image.info.get("icc_profile"):
        opaque = _to_srgb(opaque, profile)
    turn = _turn(image)
    if turn is not None:
        opaque = opaque.transpose(turn)
    rgb = opaque.convert("RGB") if opaque is image or opaque.mode != "RGB" else opaque
    rgb.info = {}  # orientation and colour profile have been applied
    return rgb


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that makes `image` upright, by its EXIF or XMP orientation."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata of any kind is no reason to refuse the image
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _reduction(size: tuple[int, int], at_least: int) -> tuple[int, int]:
    """The factors by which to reduce each side before squashing; 1 for an ordinary image."""
    width, height = size
    if width * height <= _LARGE and max(size) <= _LONG:
        return 1, 1
    return max(1, width // at_least), max(1, height // at_least)


def _to_8_bits(image: Image.Image, scale: tuple[int, int]) -> Image.Image:
    """Opaque L, CMYK or RGB, as the mode and so the colour profile of `image` requires; reduced by `scale`."""
    mode = image.mode if image.mode == "CMYK" else "L" if image.mode in _GREY_MODES or image.mode[0] in "IF" else "RGB"
    see_through = image.has_transparency_data and not _has_unused_alpha(image)
    plain = image.mode[0] not in "IF" and not see_through
    if plain and scale == (1, 1):
        return image if image.mode == mode else image.convert(mode)
    zero, step = _grey_range(image)
    across, down = scale
    opaque = Image.new(mode, (-(-image.width // across), -(-image.height // down)))
    for left, top, tile in _tiles(image, scale):
        grey = _stretch(tile, zero, step) if tile.mode[0] in "IF" else tile
        flat = _flatten(grey, mode) if see_through else grey.convert(mode)
        opaque.paste(flat.reduce(scale), (left // across, top // down))
    return opaque


def _has_unused_alpha(image: Image.Image) -> bool:
    """Whether `image` is a BMP whose alpha is 0 everywhere: many programs write that, and viewers show it as opaque."""
    return image.format == "BMP" and image.mode == "RGBA" and image.getextrema()[-1] == (0, 0)


def _tiles(image: Image.Image, scale: tuple[int, int]) -> Iterator[tuple[int, int, Image.Image]]:
    """`image` in parts with their positions, so that converting between modes takes little memory."""
    across, down = scale
    width = min(image.width, max(1, _LONG // across) * across)
    height = max(1, _TILE_PIXELS // width // down) * down
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            right, bottom = min(left + width, image.width), min(top + height, image.height)
            yield left, top, image.crop((left, top, right, bottom))


def _grey_range(image: Image.Image) -> tuple[float, float]:
    """The value of black, and the step of an 8-bit level, for 16- and 32-bit grey.

    A format's full range counts if the values fit into one.
    """
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
    with np.errstate(all="ignore"):  # NaN and infinity become 0
        return np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """The image, which has transparency, over white, in `mode`."""
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
