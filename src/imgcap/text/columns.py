"""Names of the columns that hold an image and its captions: one table for every reader of captions.

The names serve as column names of tables and as keys of JSON objects, in any case.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

FILE_NAMES = (
    *("image", "file_name", "filename", "image_name", "image_path", "path", "file", "filepath", "file_path"),
    *("image_file", "image_filename", "img", "img_path", "img_name", "img_file"),
)
"""Columns of file names, the preferred ones first."""
IMAGE_IDS = ("image_id", "img_id", "id")
"""Columns of ids, which are often numbers. `id` may as well number the rows."""
CAPTIONS = (
    *("caption", "captions", "text", "texts", "comment", "comments", "reference", "references", "raw"),
    *("sentence", "sentences", "sentences_raw", "description", "descriptions", "alt_text", "title"),
)
"""Columns of captions, the preferred ones first; each may be numbered, as in `caption_0`, `caption_1`."""

_NUMBER = r"[ _-]?\d+"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What JSON can escape, but no text contains: NUL and surrogates."""


@dataclass(frozen=True)
class Columns:
    """Columns that the user names; None detects a column by its name."""

    image: str | None = None
    caption: str | None = None

    def find_image(self, names: Sequence[str], *, id_first: bool = False) -> str | None:
        """The name in `names` that holds the image, or None.

        File names are preferred to ids. With `id_first`, `image_id` is preferred to file names.
        """
        known = ("image_id", *FILE_NAMES, *IMAGE_IDS) if id_first else (*FILE_NAMES, *IMAGE_IDS)
        return _first(tuple(names), (self.image,) if self.image and _has(names, self.image) else known)

    def find_captions(self, names: Sequence[str]) -> list[str]:
        """The names in `names` that hold captions, in their order; several if they are numbered."""
        if self.caption and (chosen := _matching(tuple(names), self.caption)):
            return chosen
        return next((found for known in CAPTIONS if (found := _matching(tuple(names), known))), [])

    def missing_from(self, names: Sequence[str]) -> list[str]:
        """The columns that the user names and `names` lacks."""
        image = [self.image] if self.image and not _has(names, self.image) else []
        return image + ([self.caption] if self.caption and not _matching(tuple(names), self.caption) else [])


DETECTED = Columns()


def caption_texts(value: object) -> list[str | None]:
    """The captions in one JSON value: a text, an object with a text (`{"raw": "..."}`), or a list of these.

    None stands for null. Raises `ValueError` for anything else.
    """
    if isinstance(value, str):
        return [value]
    values = value if isinstance(value, list) else [value]
    return [_caption_text(each) for each in values]


def why_no_text(caption: str) -> str | None:
    """What is wrong with a caption that no UTF-8 file can hold; None if nothing is."""
    broken = _NO_TEXT.search(caption)
    return f"has a caption with U+{ord(broken[0]):04X} in it, which no text can hold" if broken else None


def cell_captions(cell: str) -> list[str | None]:
    """The captions in one cell of a table: its text, or those of the list in it, written as JSON or by Python."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return [cell]
    try:
        return caption_texts(json.loads(text))
    except (ValueError, RecursionError):
        return _python_strings(text) or [cell]


def _caption_text(value: object) -> str | None:
    if isinstance(value, dict):
        by_name = {str(key).casefold(): each for key, each in value.items()}
        value = next((by_name[name] for name in ("raw", *CAPTIONS) if isinstance(by_name.get(name), str)), value)
    if value is not None and not isinstance(value, str):
        raise ValueError("A caption must be text.")
    return value


def _python_strings(text: str) -> list[str | None]:
    """The strings of a list as Python or NumPy prints it, `['a', 'b']` or `['a' 'b']`; [] if it is none."""
    found: list[str | None] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                string = ast.literal_eval(token.string)
                if not isinstance(string, str):
                    return []
                found.append(string)
            elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER) and token.string not in "[],":
                return []
    except (ValueError, SyntaxError, tokenize.TokenError):
        return []
    return found


@lru_cache
def _first(names: tuple[str, ...], known: tuple[str, ...]) -> str | None:
    by_name = {name.strip().casefold(): name for name in reversed(names)}
    return next((by_name[name.casefold()] for name in known if name.casefold() in by_name), None)


@lru_cache
def _matching(names: tuple[str, ...], known: str) -> list[str]:
    pattern = re.compile(rf"\s*{re.escape(known)}({_NUMBER})?\s*", re.IGNORECASE)
    return [name for name in names if pattern.fullmatch(name)]


def _has(names: Sequence[str], wanted: str) -> bool:
    return wanted.strip().casefold() in {name.strip().casefold() for name in names}
