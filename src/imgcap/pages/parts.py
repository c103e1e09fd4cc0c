"""What the HTML pages share: templates that escape all text, visible text, and thumbnails."""

from __future__ import annotations

import base64
import io
import math
import re
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TypeGuard

from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

from imgcap.errors import ImgcapError
from imgcap.images.archived import ArchivedFile
from imgcap.images.decoding import open_image

THUMBNAIL_SIZE = 320
"""Longest side of a thumbnail in pixels."""

_QUALITY = 70
_EFFORT = 2  # of WebP's 0 to 6; more takes longer than decoding the image and saves less than 4 %
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def render(template: str, **values: object) -> str:
    """The template of this name in `imgcap.pages` with `values`: all text in them is escaped and visible."""
    return _environment().get_template(template).render(values)


def read_asset(*names: str) -> str:
    """Style sheets or scripts of `imgcap.pages`, one after the other."""
    return "\n".join(map(_read, names))


def visible(value: object) -> object:
    """`value`, if text, with escapes for invisible characters and those that change the direction of text."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match.group()):04x}", value)


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return value is not None and math.isfinite(value)


def number(value: float | None, places: int = 4, sign: bool = False) -> str:
    """`value` with `places` decimals, and with its `sign` also if it is positive; a dash if it is not finite."""
    return f"{value:{'+' if sign else ''}.{places}f}" if is_known(value) else "\u2014"


def thumbnail(image: str | PathLike[str] | ArchivedFile | bytes | Image.Image | None) -> str:
    """A WebP in base64, at most `THUMBNAIL_SIZE` wide and high; "" for None and for what cannot be decoded."""
    if image is None:
        return ""
    source = image if isinstance(image, (ArchivedFile, bytes, Image.Image)) else Path(image)
    try:
        small = open_image(source, at_least=THUMBNAIL_SIZE)
    except ImgcapError:
        return ""
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    encoded = io.BytesIO()
    small.save(encoded, "WEBP", quality=_QUALITY, method=_EFFORT)
    return base64.b64encode(encoded.getvalue()).decode("ascii")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters["number"] = number
    environment.tests["known"] = is_known
    return environment


def _read(name: str) -> str:
    return files("imgcap.pages").joinpath(name).read_text(encoding="utf-8")
