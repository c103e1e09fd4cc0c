"""What the readers of JPEG, PNG and WebP files share: a file as parts, and edits that splice bytes into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

Edit = tuple[int, int, bytes]
"""Start and end of the bytes to replace, and their replacement."""


class MetadataError(Exception):
    """Why a file's metadata cannot be read or written: the rest of a sentence that starts with its path, and a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Container:
    """An image file, the descriptions in it, and how to replace them."""

    content: bytes
    packet: bytes
    """The XMP packet; empty if the file has none."""
    edits: Callable[[bytes], list[Edit]]
    """New packet -> the edits of `content` that leave it as the only description. Raises `MetadataError`."""
    extended: bytes = b""
    """XMP beyond the one packet that fits into a JPEG segment."""
    others: tuple[str, ...] = ()
    """Descriptions by persons outside XMP, which `edits` removes."""


class Part(NamedTuple):
    """A JPEG segment, or a PNG or WebP chunk, as offsets into the file."""

    kind: bytes
    start: int
    body: int
    body_end: int
    end: int


def shifted(edits: Iterable[Edit], offset: int) -> list[Edit]:
    """`edits` of a part of a file as edits of the file, in which the part starts at `offset`."""
    return [(start + offset, end + offset, replacement) for start, end, replacement in edits]


def splice(content: bytes, edits: Iterable[Edit]) -> list[memoryview]:
    """`content` after `edits`, which must not overlap, as buffers to concatenate."""
    view, buffers, position = memoryview(content), [], 0
    for start, end, replacement in sorted(edits):
        buffers += [view[position:start], memoryview(replacement)]
        position = end
    return [*buffers, view[position:]]


def only_packet(parts: list[Part]) -> Part | None:
    """The one part that holds XMP, or None. Raises `MetadataError` if there are several."""
    if len(parts) > 1:
        raise MetadataError(
            "has more than one XMP packet, and it is not clear which one counts.",
            "Merge them with a metadata editor, such as exiftool.",
        )
    return parts[0] if parts else None


def damaged(why: str) -> MetadataError:
    return MetadataError(f"is damaged: {why}.", "Replace it with an intact copy.")


def bad_packet(why: str) -> MetadataError:
    return MetadataError(
        f"has XMP metadata that cannot be understood: {why}.",
        "imgcap leaves such metadata alone; remove or repair it with a metadata editor, such as exiftool.",
    )
