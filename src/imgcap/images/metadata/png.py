"""PNG files: their chunks and the descriptions in them.

Sources: PNG Specification (Third Edition), XMP Specification Part 3 (storage in files).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from imgcap.images.metadata.container import (
    Container,
    Edit,
    MetadataError,
    Part,
    bad_packet,
    damaged,
    only_packet,
    splice,
)
from imgcap.images.metadata.texts import Text, decode, exif_texts, iptc_texts, is_by_person, photoshop_texts

LARGEST_COMPRESSED_TEXT = 16 << 20
"""Most bytes that a compressed chunk may unpack to; more counts as a decompression bomb."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_PROFILE = b"Raw profile type "
_PROFILE_STARTS = (b"Exif\0\0", b"Photoshop 3.0\0")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_KEYWORDS = frozenset(
    {
        "description",
        "comment",
        "caption",
        "imagedescription",
        "usercomment",
        "exif:imagedescription",
        "exif:usercomment",
    }
)
"""Keywords of descriptions in text chunks, in lower case; ImageMagick writes the longer ones."""


def read_png(content: bytes) -> Container:
    """The PNG in `content`. Raises `MetadataError` if it is damaged, or keeps its XMP in an unusual form."""
    found: list[Part] = []
    place = 0  # after the header, before all chunks whose order matters
    others: list[str] = []
    erasures: list[Edit] = []
    for chunk in _chunks(content):
        place = place or chunk.end
        body = content[chunk.body : chunk.body_end]
        if chunk.kind == b"iTXt" and body.startswith(_XMP_KEYWORD):
            found.append(chunk)
            continue
        texts, rest = _descriptions(chunk.kind, body)
        if texts:
            others += texts
            erasures.append((chunk.start, chunk.end, rest))
    old = only_packet(found) or Part(b"iTXt", place, place, place, place)

    def edits(packet: bytes) -> list[Edit]:
        new = _chunk(b"iTXt", _XMP_KEYWORD + bytes(4) + packet)  # not compressed, no language, no translated keyword
        return [(place, place, new), (old.start, old.end, b""), *erasures]

    packet = _international_text(content[old.body + len(_XMP_KEYWORD) : old.body_end])
    return Container(content, packet, edits, others=tuple(others))


def _descriptions(kind: bytes, body: bytes) -> tuple[list[str], bytes]:
    """A person's descriptions in a chunk, and the chunk without them."""
    if kind == b"eXIf":
        texts = exif_texts(body)
        return [each.text for each in texts], _chunk(kind, _without(body, texts))
    if kind not in _TEXT_CHUNKS:
        return [], b""
    keyword, _, rest = body.partition(b"\0")
    if keyword.startswith(_RAW_PROFILE):
        return _in_profile(kind, keyword, rest)
    if keyword.decode("latin-1").strip().lower() not in _KEYWORDS:
        return [], b""
    text = decode(_text(kind, rest) or b"")
    return [text] if is_by_person(text) else [], b""


def _in_profile(kind: bytes, keyword: bytes, rest: bytes) -> tuple[list[str], bytes]:
    """The same for a profile, in hexadecimal digits, as ImageMagick writes it. Raises `MetadataError` if it is XMP."""
    name = keyword.removeprefix(_RAW_PROFILE)
    if name.lower() == b"xmp":
        raise MetadataError(
            "keeps its XMP in a raw profile, a form that imgcap does not change.",
            "Rewrite it with a metadata editor, such as exiftool.",
        )
    title, _, digits = [*(_text(kind, rest) or b"").lstrip(b"\n").split(b"\n", 2), b"", b""][:3]
    try:
        data = bytes.fromhex(digits.decode("latin-1"))
    except ValueError:
        return [], b""
    start = next((prefix for prefix in _PROFILE_STARTS if data.startswith(prefix)), b"")
    block = data[len(start) :]
    if name.lower() in (b"exif", b"app1"):
        texts = exif_texts(block)
    else:
        texts = _iptc_texts(block) if name.lower() in (b"iptc", b"8bim") else []
    data = start + _without(block, texts)
    profile = zlib.compress(b"\n%b\n%8d\n%b\n" % (title, len(data), data.hex().encode()))
    return [each.text for each in texts], _chunk(b"zTXt", keyword + b"\0\0" + profile)


def _iptc_texts(block: bytes) -> list[Text]:
    """Descriptions in IPTC's records, with Photoshop's resources around them or not."""
    return photoshop_texts(block) or [each for each in iptc_texts(block) if is_by_person(each.text)]


def _without(block: bytes, texts: list[Text]) -> bytes:
    return b"".join(splice(block, (each.edit for each in texts)))


def _text(kind: bytes, rest: bytes) -> bytes | None:
    """The text of a text chunk after its keyword; None if it cannot be unpacked."""
    if kind == b"zTXt":
        return _unpacked(rest[1:])
    if kind == b"tEXt":
        return rest
    text = rest[2:].split(b"\0", 2)[-1]
    return _unpacked(text) if rest[:1] == b"\1" else text


def _chunks(content: bytes) -> Iterator[Part]:
    """The chunks of a PNG. Raises `MetadataError` if one is cut off or has a wrong checksum."""
    start, kind, has_pixels = len(PNG_SIGNATURE), b"", False
    while kind != b"IEND":
        body = start + 8
        kind = content[start + 4 : body]
        body_end = body + int.from_bytes(content[start : start + 4], "big")
        end = body_end + 4
        if end > len(content):
            raise damaged("its end is missing, or a chunk has a wrong length")
        if (kind == b"IHDR") != (start == len(PNG_SIGNATURE)):
            raise damaged("it does not begin with its one header")
        checksum = zlib.crc32(memoryview(content)[start + 4 : body_end])
        if checksum != int.from_bytes(content[body_end:end], "big"):
            raise damaged(f"the chunk at byte {start:,} has a wrong checksum")
        has_pixels = has_pixels or kind == b"IDAT"
        yield Part(kind, start, body, body_end, end)
        start = end
    if not has_pixels:
        raise damaged("it has no pixels")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _international_text(body: bytes) -> bytes:
    """The text of an iTXt chunk without its keyword: two flags, language, translated keyword, text."""
    text = _text(b"iTXt", body)
    if text is None or (body[:1] == b"\1" and body[1:2] != b"\0"):
        raise bad_packet("it cannot be unpacked")
    return text


def _unpacked(data: bytes) -> bytes | None:
    """Inflated `data`; None if it is damaged, or larger than `LARGEST_COMPRESSED_TEXT`."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(data, LARGEST_COMPRESSED_TEXT)
    except zlib.error:
        return None
    return text if inflate.eof else None
