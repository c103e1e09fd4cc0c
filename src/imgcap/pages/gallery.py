"""One self-contained HTML page of captioned images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.resources import files
from os import PathLike
from pathlib import Path
from types import TracebackType

from PIL import Image

from imgcap.errors import ImgcapError
from imgcap.files import reason, replacing
from imgcap.images.archives import ArchivedFile
from imgcap.pages.parts import as_html, theme, thumbnail

_ROWS_PER_BLOCK = 50
"""Rows that are held in memory, and whose thumbnails the page reads together."""


class GalleryWriter:
    """Writes a page of captioned images to `file`, row by row in constant memory; a context manager.

    The page needs no other file and no network. It appears under its name when it is whole; an exception leaves nothing
    behind. Raises `ImgcapError` if it cannot be written.
    """

    def __init__(self, file: Path, title: str) -> None:
        self._file = file
        self._rows: list[str] = []
        self._thumbnails: list[str] = []
        template = files("imgcap.pages").joinpath("gallery.html").read_text(encoding="utf-8")
        head, self._foot = template.split("{{rows}}")
        with ExitStack() as stack:
            try:
                partial = stack.enter_context(replacing(file))
                self._page = stack.enter_context(partial.open("w", encoding="utf-8", newline="\n"))
                self._page.write(head.replace("{{theme}}", theme()).replace("{{title}}", as_html(title)))
            except OSError as error:
                raise self._unwritable(error) from None
            self._stack = stack.pop_all()

    def add(
        self, row: Mapping[str, object], image: str | PathLike[str] | ArchivedFile | bytes | Image.Image | None
    ) -> None:
        """Add an image (a file, in an archive or not, its content or an opened one); what cannot be decoded has no
        thumbnail.

        Keys of `row`, all but `path` optional: `path`, `caption`, `confidence` (0 to 1), `log_probability`,
        `alternatives` (a list of `caption` and `confidence`), `words` (a list of word and probability), `withheld`
        (whether there is no caption because its confidence is below the limit), `error` (why there is no caption),
        `warning` (why the caption may be wrong), `nearest` (a list of name and similarity), `verbatim` (whether the
        caption stands in the training data) and `model`. Raises `ImgcapError` if the page cannot be written.
        """
        self._rows.append(_as_json(row))
        self._thumbnails.append(thumbnail(image))
        if len(self._rows) == _ROWS_PER_BLOCK:
            try:
                self._write_block()
            except OSError as error:
                raise self._unwritable(error) from None

    def close(self) -> None:
        """Finish the page, so that it appears under its name. Raises `ImgcapError` if it cannot be written."""
        if self._page.closed:
            return
        try:
            with self._stack:
                self._write_block()
                self._page.write(self._foot)
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OSError):  # what is thrown away need not be written
                self._stack.__exit__(kind, error, traceback)

    def _write_block(self) -> None:
        """Rows, and apart from them their thumbnails, which the page reads only when it shows them."""
        rows, thumbnails = ",\n".join(self._rows), "\n".join(self._thumbnails)
        self._page.write(f'<script type="application/json" class="rows">[{rows}]</script>\n')
        self._page.write(f'<script type="text/plain" class="thumbnails">{thumbnails}</script>\n')
        self._rows, self._thumbnails = [], []

    def _unwritable(self, error: OSError) -> ImgcapError:
        return ImgcapError(f"The page {self._file} cannot be written: {reason(error)}.")


def _as_json(row: Mapping[str, object]) -> str:
    """ASCII in which nothing ends a script element: a half character, as in a name that is not UTF-8, is an escape."""
    try:
        return json.dumps(_finite(row), separators=(",", ":")).replace("<", r"\u003c")
    except RecursionError:
        raise ImgcapError(f"The row of {row['path']} is nested too deeply to be shown.") from None


def _finite(value: object) -> object:
    """`value` with None for the infinities and NaN, which JSON does not have, and other numbers cut to 6 places."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
