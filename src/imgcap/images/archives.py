"""Images in archives: tar archives as in WebDataset, and Parquet files; read in place, never unpacked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator
from functools import lru_cache

from imgcap.images.archived import ArchivedFile
from imgcap.images.discovery import EVERYTHING, Selection, count_unreadable, is_image_name
from imgcap.images.errors import ImageError
from imgcap.images.locations import is_parquet
from imgcap.images.parquet import images_in_rows
from imgcap.images.tars import archived_files

_TABLES = 256


def images_in(
    location: str, selection: Selection = EVERYTHING, unreadable: Counter[str] | None = None
) -> Iterator[ArchivedFile | ImageError]:
    """The images in an archive that `selection` takes, in their order, without reading any.

    Hidden ones are skipped; `unreadable` is that of `find_images`. The rows of a Parquet file are images whatever their
    names. An image that cannot be used, and an archive that
    cannot be read or has no image, each yield an `ImageError` in their place.
    """

    def wanted(member: str) -> bool:
        parts = tuple(member.split("/"))
        if unreadable is not None and not is_parquet(location):
            count_unreadable(parts, selection, unreadable)
        return (
            (is_parquet(location) or is_image_name(member))
            and (selection.recursive or len(parts) == 1)
            and selection.takes(parts)
        )

    empty = True
    list_files = images_in_rows if is_parquet(location) else archived_files
    for found in list_files(location, wanted):
        empty = False
        yield found
    if empty:
        hint = "Members with an image's file name count; --include and --exclude select among them."
        yield ImageError(f"The archive {location} holds no images.", hint, "empty folder", location)


def find_image(name: str, locations: Container[str]) -> ArchivedFile:
    """The image named ARCHIVE/MEMBER, where ARCHIVE is one of `locations`. Raises `ImageError`."""
    for slash in re.finditer("/", name):
        location, member = name[: slash.start()], name[slash.end() :]
        if location in locations and (found := _table(location).get(member)):
            return found
    raise ImageError(f"{name} does not exist.", kind="missing", path=name)


@lru_cache(_TABLES)
def _table(location: str) -> dict[str, ArchivedFile]:
    """The images of an archive by name. Raises `ImageError` if there are none."""
    found = list(images_in(location))
    table = {image.member: image for image in found if isinstance(image, ArchivedFile)}
    if not table:
        raise next(error for error in found if isinstance(error, ImageError))
    return table
