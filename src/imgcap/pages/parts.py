"""What the HTML pages share: their theme, text made safe, and thumbnails."""

from __future__ import annotations

import base64
import io
import re
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path

from PIL import Image

from imgcap.errors import ImgcapError
from imgcap.images.archives import ArchivedFile
from imgcap.images.decoding import open_image

THUMBNAIL_SIZE = 320
"""Longest side of a thumbnail in pixels."""

_QUALITY = 70
_EFFORT = 2  # of WebP's 0 to 6; more takes longer than decoding the image and saves less than 4 %
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def theme() -> str:
    """CSS that both pages begin with."""
    return files("imgcap.pages").joinpath("page.css").read_text(encoding="utf-8").rstrip()


def as_html(text: str) -> str:
    """`text` as ASCII that is safe between tags and in quoted attributes.

    What could not be seen (control characters, line ends, half characters) or would turn the text around is an escape.
    """
    seen = _INVISIBLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    return escape(seen).encode("ascii", "xmlcharrefreplace").decode("ascii")


def thumbnail(image: str | PathLike[str] | ArchivedFile | bytes | Image.Image | None) -> str:
    """A WebP in base64, at most `THUMBNAIL_SIZE` wide and high; "" for what is None or cannot be decoded."""
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
