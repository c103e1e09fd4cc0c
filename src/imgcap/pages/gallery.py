"""One self-contained HTML page of captioned images, on which a person can correct the captions.

What the person decides stays in the browser, under a digest of the images and captions of the page, until the person
saves it as a file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType

from PIL import Image

from imgcap.errors import ImgcapError
from imgcap.files import replacing, writing
from imgcap.images.archived import ArchivedFile
from imgcap.model.store import DEFAULT_MODEL
from imgcap.pages.parts import read_asset, render, thumbnail

_ROWS_PER_BLOCK = 50
"""Rows held in memory, and thumbnails that the page reads together."""
_SCRIPTS = (
    *("gallery_rows.js", "gallery_grid.js", "gallery_storage.js", "gallery_check.js"),
    *("gallery_save.js", "gallery_dialog.js", "gallery_controls.js"),
)
_END = '<script type="text/plain" id="digest">{}</script>\n</body>\n</html>\n'


class GalleryWriter:
    """Writes a page of captioned images to `file`, row by row in constant memory; a context manager.

    The page needs no other file and no network. It appears under its name once it is complete; an exception leaves
    nothing behind. Raises `ImgcapError` if the page cannot be written.
    """

    def __init__(self, file: Path, title: str, model: str = DEFAULT_MODEL) -> None:
        """Begin the page. `model` is the name or folder of the model that the commands of the page train further."""
        self._target = f"The page {file}"
        self._rows: list[object] = []
        self._thumbnails: list[str] = []
        self._digest = hashlib.sha256()
        with writing(self._target), ExitStack() as stack:
            partial = stack.enter_context(replacing(file))
            self._page = stack.enter_context(partial.open("w", encoding="utf-8", newline="\n"))
            style, script = read_asset("page.css", "gallery.css"), read_asset(*_SCRIPTS)
            self._page.write(render("gallery.html", title=title, model=model, style=style, script=script))
            self._stack = stack.pop_all()

    def add(
        self, row: Mapping[str, object], image: str | PathLike[str] | ArchivedFile | bytes | Image.Image | None
    ) -> None:
        """Add an image: a file, a member of an archive, its content or an opened image.

        An image that cannot be decoded has no thumbnail. Keys of `row`, all optional but `path`: `path`, `caption`,
        `confidence` (0 to 1), `log_probability`, `alternatives` (a list of `caption` and `confidence`), `words` (a
        list of word and probability), `withheld` (whether the caption is missing because its confidence is below the
        limit), `error` (why there is no caption), `warning` (why the caption may be wrong), `nearest` (a list of name
        and similarity), `verbatim` (whether the training data has the caption) and `model`. Raises `ImgcapError` if
        the page cannot be written, or the row is nested too deeply.
        """
        try:
            self._rows.append(_finite(row))
        except RecursionError:
            raise ImgcapError(f"The row of {row['path']} is nested too deeply to be shown.") from None
        self._thumbnails.append(thumbnail(image))
        about = [row["path"], row.get("caption"), self._thumbnails[-1]]
        self._digest.update(json.dumps(about).encode())
        if len(self._rows) == _ROWS_PER_BLOCK:
            with writing(self._target):
                self._write_block()

    def close(self) -> None:
        """Finish the page, which then appears under its name. Raises `ImgcapError` if it cannot be written."""
        if self._page.closed:
            return
        with writing(self._target), self._stack:
            self._write_block()
            self._page.write(_END.format(f"imgcap {self._digest.hexdigest()}"))

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OSError):  # the page is discarded anyway
                self._stack.__exit__(kind, error, traceback)

    def _write_block(self) -> None:
        """Write the rows, and apart from them their thumbnails, which the page reads only when it shows them."""
        self._page.write(render("gallery_rows.html", rows=self._rows, thumbnails=self._thumbnails))
        self._rows, self._thumbnails = [], []


def _finite(value: object) -> object:
    """`value` with None for the infinities and NaN, which JSON lacks, and other numbers rounded to 6 places."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
