"""Descriptions outside XMP: in EXIF, IPTC and Photoshop resources, as byte ranges of the block that holds them.

Sources: CIPA DC-008 (EXIF 3.0), IPTC IIM 4.2, Adobe Photoshop File Formats, Metadata Working Group guidelines 2.0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from imgcap.images.metadata.container import Edit, shifted, splice

_IMAGE_DESCRIPTION, _USER_COMMENT, _EXIF_DIRECTORY = 0x010E, 0x9286, 0x8769
_BYTE_TYPES = (1, 2, 6, 7, 129)
"""EXIF types of one byte a value: BYTE, ASCII, SBYTE, UNDEFINED, UTF-8."""
_COMMENT_CODE = 8
"""Bytes at the start of a UserComment that name its character set."""
_IPTC, _IPTC_DIGEST = 0x0404, 0x0425
_CAPTION, _CHARACTER_SET = b"\x02\x78", b"\x01\x5a"
_UTF_8 = b"\x1b%G"
_BY_PROGRAMS = re.compile(
    r"olympus digital camera|sony dsc|samsung( camera.*)?|(konica )?minolta digital camera|digital camera|"
    r"kodak digital still camera|digital still ?camera|exif[_ ]jpeg[_ ]picture|exif_jpeg_422|jpeg|dcim|"
    r"dcf\d+\.jpg|<?digimax.*>?|my beautiful picture|untitled|created with (the )?gimp|creator: gd-jpeg.*|"
    r"screenshot|ascii|unicode|jis|\W*",
    re.IGNORECASE | re.DOTALL,
)
"""What cameras and programs put into every image."""


class Text(NamedTuple):
    """A description, and what to do to its block to remove it."""

    text: str
    edit: Edit


def is_by_person(text: str) -> bool:
    """Whether `text` says something about the image, unlike the defaults of cameras and programs."""
    return not _BY_PROGRAMS.fullmatch(text.strip())


def decode(data: bytes) -> str:
    """Text that is UTF-8, as most programs write it, else Windows-1252."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.strip("\0 \t\r\n")


def exif_texts(tiff: bytes) -> list[Text]:
    """A person's ImageDescription and UserComment in the TIFF structure of EXIF; damaged parts have none.

    An edit overwrites the text with blanks, which the standard defines as unknown, and so keeps all offsets.
    """
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return []
    found: list[Text] = []
    first = _number(tiff, 4, 4, order)
    directories, done = [first], set[int]()
    while directories:
        place = directories.pop()
        if place in done:
            continue
        done.add(place)
        for tag, kind, count, value in _entries(tiff, place, order):
            if tag == _EXIF_DIRECTORY and place == first:
                directories.append(_number(tiff, value, 4, order))
            if kind not in _BYTE_TYPES or tag not in (_IMAGE_DESCRIPTION, _USER_COMMENT):
                continue
            start = value if count <= 4 else _number(tiff, value, 4, order)
            data = tiff[start : start + count]
            if tag == _IMAGE_DESCRIPTION:
                found.append(Text(decode(data), (start, start + len(data), b" " * (len(data) - 1) + b"\0")))
            elif len(data) > _COMMENT_CODE:
                blank = bytes(_COMMENT_CODE) + b" " * (len(data) - _COMMENT_CODE)
                found.append(Text(_user_comment(data, order), (start, start + len(data), blank)))
    return [each for each in found if is_by_person(each.text)]


def _entries(tiff: bytes, place: int, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and offset of the value of each entry of the directory at `place`."""
    for start in range(place + 2, place + 2 + 12 * _number(tiff, place, 2, order), 12):
        if start + 12 > len(tiff):
            return
        yield (
            _number(tiff, start, 2, order),
            _number(tiff, start + 2, 2, order),
            _number(tiff, start + 4, 4, order),
            start + 8,
        )


def _number(data: bytes, start: int, size: int, order: str) -> int:
    return int.from_bytes(data[start : start + size], "little" if order == "little" else "big")


def _user_comment(data: bytes, order: str) -> str:
    code, text = data[:_COMMENT_CODE].upper().rstrip(b"\0 "), data[_COMMENT_CODE:]
    if code == b"UNICODE":
        return _utf_16(text, order)
    if code == b"JIS":
        for charset in ("iso2022_jp_2", "euc_jp", "shift_jis"):
            try:
                return text.decode(charset).strip("\0 \t\r\n")
            except UnicodeDecodeError:
                continue
    return decode(text if code in (b"", b"ASCII", b"JIS") else data)  # some programs leave the code out


def _utf_16(data: bytes, order: str) -> str:
    """UTF-16 in the byte order of its mark, else the one that its high bytes suggest, else `order`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace").strip("\0 \t\r\n")
    even, odd = len(set(data[::2])), len(set(data[1::2]))  # the high bytes of a text vary less
    if even != odd:
        order = "big" if even < odd else "little"
    return data.decode("utf-16-be" if order == "big" else "utf-16-le", "replace").strip("\0 \t\r\n")


class Resource(NamedTuple):
    """One of Photoshop's image resources, as offsets into their block."""

    number: int
    start: int
    """Where its size begins, after signature, number and name."""
    body: int
    body_end: int
    end: int


def photoshop_texts(block: bytes) -> list[Text]:
    """IPTC Caption-Abstract in a block of Photoshop's image resources. An edit removes it, and renews the digest."""
    found: list[Text] = []
    resources = list(_resources(block))
    for resource in resources:
        if resource.number != _IPTC:
            continue
        iim = block[resource.body : resource.body_end]
        captions = iptc_texts(iim)
        if not captions:
            continue
        rest = b"".join(splice(iim, [caption.edit for caption in captions]))
        sized = len(rest).to_bytes(4, "big") + rest + bytes(len(rest) % 2)
        edits = [(resource.start, resource.end, sized)]
        edits += (
            (digest.body, digest.body_end, _md5(rest))
            for digest in resources
            if digest.number == _IPTC_DIGEST and block[digest.body : digest.body_end] == _md5(iim)
        )
        start, end = min(edit[0] for edit in edits), max(edit[1] for edit in edits)
        text = "\n".join(caption.text for caption in captions)
        found.append(Text(text, (start, end, b"".join(splice(block[start:end], shifted(edits, -start))))))
    return [each for each in found if is_by_person(each.text)]


def _resources(block: bytes) -> Iterator[Resource]:
    place = 0
    while block[place : place + 4] in (b"8BIM", b"PHUT", b"AgHg", b"DCSR", b"MeSa"):
        number = int.from_bytes(block[place + 4 : place + 6], "big")
        name = block[place + 6] if place + 6 < len(block) else 0
        start = place + 6 + (name + 2) // 2 * 2  # a Pascal string, padded to an even length
        body = start + 4
        body_end = body + int.from_bytes(block[start:body], "big")
        if body_end > len(block):
            return
        place = min(body_end + (body_end - body) % 2, len(block))
        yield Resource(number, start, body, body_end, place)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()  # as Photoshop computes it


def iptc_texts(iim: bytes) -> list[Text]:
    """Caption-Abstract in IPTC's records. An edit removes the record."""
    utf_8 = False
    found: list[Text] = []
    place = 0
    while iim[place : place + 1] == b"\x1c" and place + 5 <= len(iim):
        name, size = iim[place + 1 : place + 3], int.from_bytes(iim[place + 3 : place + 5], "big")
        body = place + 5
        if size & 0x8000:  # the length of the length
            body += size & 0x7FFF
            size = int.from_bytes(iim[place + 5 : body], "big")
        end = body + size
        if end > len(iim):
            break
        if name == _CHARACTER_SET:
            utf_8 = iim[body:end] == _UTF_8
        elif name == _CAPTION:
            data = iim[body:end]
            text = data.decode("utf-8", "replace") if utf_8 else decode(data)
            found.append(Text(text.strip("\0 \t\r\n"), (place, end, b"")))
        place = end
    return [each for each in found if each.text]
