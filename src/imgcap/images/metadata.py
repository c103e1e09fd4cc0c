"""Read and write an image's description in its XMP metadata, without touching a pixel.

JPEG, PNG and WebP files are spliced: the XMP packet is replaced or added, every other byte stays. In the packet, too,
only the description's own properties are cut out and pasted; the rest stays as its author wrote it.

Sources: ISO 16684-1 (XMP), XMP Specification Part 3 (storage in files), PNG Specification (Third Edition), WebP
Container Specification, IPTC Photo Metadata Standard 2021.1 (alt text), CIPA DC-007 (several images in a JPEG).
"""

from __future__ import annotations

import hashlib
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from imgcap.errors import ImgcapError, UsageError
from imgcap.files import reason, replacing

IMGCAP_NAMESPACE = "https://imgcap.invalid/ns/1.0/"
"""Namespace of the property `descriptionHash`: the SHA-256 of the description that imgcap wrote."""

LARGEST_JPEG_PACKET = 65_502
"""Bytes of XMP that fit into a JPEG's segment."""
LARGEST_COMPRESSED_PACKET = 16 << 20
"""Bytes of XMP that a PNG's compressed chunk is unpacked to; more is taken for a decompression bomb."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_IPTC = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"

# Names as expat reports them: namespace, space, local name.
_DESCRIPTION = f"{_DC} description"
_OURS = frozenset({_DESCRIPTION, f"{_IPTC} AltTextAccessibility", _HASH := f"{IMGCAP_NAMESPACE} descriptionHash"})
_RDF_ROOT, _RDF_NODE, _RDF_ITEM, _RDF_VALUE = (f"{_RDF} {name}" for name in ("RDF", "Description", "li", "value"))
_ABOUT = (f"{_RDF} about", "about")
_LANGUAGE = "http://www.w3.org/XML/1998/namespace lang"

_EMPTY_PACKET = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{_RDF}">
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()
_NODE = f"""
  <rdf:Description rdf:about={{about}}
    xmlns:rdf="{_RDF}"
    xmlns:dc="{_DC}"
    xmlns:Iptc4xmpCore="{_IPTC}"{{mark}}>
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">{{text}}</rdf:li>
    </rdf:Alt>
   </dc:description>
   <Iptc4xmpCore:AltTextAccessibility>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">{{text}}</rdf:li>
    </rdf:Alt>
   </Iptc4xmpCore:AltTextAccessibility>
  </rdf:Description>"""
_MARK = f"""
    xmlns:imgcap="{IMGCAP_NAMESPACE}"
    imgcap:descriptionHash="{{hash}}\""""
_ILLEGAL_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')+>""")
_ATTRIBUTE = re.compile(rb"""(?<!\s)\s+([^\s=]+)\s*=\s*(?:"[^"]*"|'[^']*')""")

Edit = tuple[int, int, bytes]
"""Start and end of the bytes that are replaced, and what replaces them."""


class _ImageError(Exception):
    """The end of a sentence that begins with the image's path, and a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def read_description(path: Path) -> str | None:
    """The image's XMP dc:description in the default language, else the first one, else None.

    Raises `ImgcapError` if the file is missing, unreadable, neither JPEG, PNG nor WebP, damaged, or its XMP is not XML.
    """
    with _sentences(path, "read"):
        image = _open(path)
        values = [*_Packet(image.packet).values, *_Packet(image.extended).values]
    found = [value for value in values if value.name == _DESCRIPTION]
    default = (value.text for value in found if value.language.lower() == "x-default")
    return next(default, found[0].text if found else None)


def write_description(path: Path, text: str, *, overwrite: bool = False, by_person: bool = False) -> bool:
    """Write `text` as the image's XMP dc:description and Iptc4xmpCore:AltTextAccessibility, in the default language.

    Returns False, with the file untouched, if a person has written either of them, in any language; with `overwrite`
    all of these are replaced. What imgcap wrote, which it knows by the hash beside it, is always replaced; with
    `by_person` the text gets no hash, so that it counts as a person's. Characters that XML cannot hold are left out.
    The file keeps its permissions and gets a new modification time; a symbolic link stays, and the file it points to is
    rewritten.

    Raises `UsageError` for an empty text, and `ImgcapError` where `read_description` does, if the file cannot be
    rewritten, or if its format has no place for the longer XMP.
    """
    text = _clean(text)
    if not text:
        raise UsageError(f"The description for {path} is empty.", "Give it at least one word.")
    with _sentences(path, "read"):
        image = _open(path)
        packet, extended = _Packet(image.packet), _Packet(image.extended)
        if not overwrite and (extended.values or not packet.is_by_imgcap()):
            return False
        if extended.values:
            raise _ImageError(
                "has a description in extended XMP, which imgcap leaves alone.",
                "Remove it with a metadata editor, such as exiftool.",
            )
        edits = image.edits(packet.with_description(text, by_person))
    with _sentences(path, "rewritten"):
        _rewrite(path.resolve(), _splice(image.content, edits))
    return True


@contextmanager
def _sentences(path: Path, verb: str) -> Iterator[None]:
    """Turn what goes wrong into an `ImgcapError` about `path`."""
    try:
        yield
    except _ImageError as error:
        raise ImgcapError(f"{path} {error}", error.hint) from None
    except FileNotFoundError:
        raise ImgcapError(f"{path} does not exist.", "Check the path.") from None
    except OSError as error:
        hint = f"Check that the file and its folder can be {'read' if verb == 'read' else 'written to'}."
        raise ImgcapError(f"{path} cannot be {verb}: {reason(error)}.", hint) from None


def _rewrite(file: Path, parts: list[memoryview]) -> None:
    with file.open("rb+"):
        pass  # raises for a read-only file, which a rename would replace
    mode = stat.S_IMODE(file.stat().st_mode)
    with replacing(file) as partial, partial.open("wb") as output:
        output.writelines(parts)
    file.chmod(mode)


def _clean(text: str) -> str:
    """`text` as an XML parser will give it back, without white space around it."""
    return _ILLEGAL_IN_XML.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _splice(content: bytes, edits: list[Edit]) -> list[memoryview]:
    """`content` with `edits`, which do not overlap, as parts to be joined."""
    view, parts, position = memoryview(content), [], 0
    for start, end, replacement in sorted(edits):
        parts += [view[position:start], memoryview(replacement)]
        position = end
    return [*parts, view[position:]]


# --- the packet


class _Value(NamedTuple):
    name: str
    language: str
    text: str


@dataclass
class _Element:
    """An element that is being read: rdf:RDF, a node in it, or a property of the node."""

    name: str
    start: int
    tag: bytes
    has_others: bool = False
    """Whether it is a node with properties that are not ours."""
    cuts: list[Edit] = field(default_factory=list)
    """What takes our properties out of the node."""
    texts: list[tuple[str, list[str]]] = field(default_factory=lambda: [("", [])])
    """Languages and texts of a property that is ours."""

    @property
    def tag_end(self) -> int:
        return self.start + len(self.tag)

    @property
    def is_empty(self) -> bool:
        return self.tag.endswith(b"/>")


class _Packet:
    """The descriptions in an XMP packet, and where to cut and paste them. Raises `_ImageError` if it is not XMP.

    In XMP, rdf:RDF holds nodes, mostly rdf:Description, whose attributes and elements are the image's properties.
    Descriptions deeper down belong to other things than the image.
    """

    def __init__(self, content: bytes) -> None:
        content = content.rstrip(b"\0")  # with which some writers end it
        self._content = content if content.strip() else _EMPTY_PACKET
        self.values: list[_Value] = []
        """Descriptions and alternative texts that are not blank."""
        self._hashes: set[str] = set()
        self._about: str | None = None  # which has to be the same in all nodes
        self._cuts: list[Edit] = []
        self._paste: Callable[[bytes], Edit] | None = None
        self._level = 0  # 1 in rdf:RDF, 2 in a node, 3 in a property, more inside that
        self._open: list[_Element] = []  # of the first three levels
        self._parse()

    def is_by_imgcap(self) -> bool:
        """Whether all descriptions, if there are any, are as imgcap wrote them."""
        return {_hash(value.text) for value in self.values} <= self._hashes

    def with_description(self, text: str, by_person: bool) -> bytes:
        """The packet with `text` in place of all its descriptions."""
        assert self._paste is not None
        mark = "" if by_person else _MARK.format(hash=_hash(text))
        node = _NODE.format(about=quoteattr(self._about or ""), mark=mark, text=escape(text))
        return b"".join(_splice(self._content, [*self._cuts, self._paste(node.encode())]))

    def _parse(self) -> None:
        if b"\0" in self._content:
            raise _bad_packet("it is not UTF-8")
        self._parser = parser = expat.ParserCreate("utf-8", " ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            parser.Parse(self._content, True)
        except expat.ExpatError as error:
            raise _bad_packet(str(error)) from None
        if self._paste is None:
            raise _bad_packet("it has no rdf:RDF")

    def _doctype(self, *_: object) -> None:
        raise _bad_packet("it has a document type, which could hide an entity bomb")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = _without_prefix(name)
        if not self._level and name != _RDF_ROOT:
            return  # x:xmpmeta, around rdf:RDF
        if not self._level and self._paste is not None:
            raise _bad_packet("it has more than one rdf:RDF")
        self._level += 1
        if self._level <= 3:
            place = self._parser.CurrentByteIndex
            tag = _TAG.match(self._content, place)
            assert tag is not None
            self._open.append(_Element(name, place, tag[0]))
        if self._level == 2:
            self._start_node(attributes)
        elif self._in_ours():
            self._start_in_ours(name, attributes)

    def _text(self, text: str) -> None:
        if self._in_ours():
            self._open[2].texts[-1][1].append(text)

    def _end(self, _name: str) -> None:
        if 1 <= self._level <= 3:
            element, place = self._open.pop(), self._parser.CurrentByteIndex
            end = element.tag_end if element.is_empty else self._content.index(b">", place) + 1
            if self._level == 1:
                self._end_rdf(element, place)
            elif self._level == 2:
                self._end_node(element, end)
            else:
                self._end_property(element, end)
        self._level = max(0, self._level - 1)

    def _in_ours(self) -> bool:
        return self._level >= 3 and self._open[2].name in _OURS

    def _start_node(self, attributes: dict[str, str]) -> None:
        node, ours = self._open[1], set()
        node.has_others = node.name != _RDF_NODE  # the type of other nodes is a property
        for key, text in attributes.items():
            name = _without_prefix(key)
            if name in _OURS:
                self._add(name, "", text)
                _, local_name, prefix = key.split(" ")
                ours.add(f"{prefix}:{local_name}".encode())
            elif name not in _ABOUT:
                node.has_others = True
            elif self._about is None:
                self._about = text
        if ours:
            tag = _ATTRIBUTE.sub(lambda found: b"" if found[1] in ours else found[0], node.tag)
            node.cuts.append((node.start, node.tag_end, tag))

    def _start_in_ours(self, name: str, attributes: dict[str, str]) -> None:
        values = {_without_prefix(key): value for key, value in attributes.items()}
        if name == _RDF_ITEM:
            self._open[2].texts.append((values.get(_LANGUAGE, ""), []))
        self._text(values.get(_RDF_VALUE, ""))

    def _end_property(self, element: _Element, end: int) -> None:
        if element.name not in _OURS:
            self._open[1].has_others = True
            return
        self._open[1].cuts.append((self._before(element.start), end, b""))
        for language, texts in element.texts:
            self._add(element.name, language, "".join(texts))

    def _end_node(self, node: _Element, end: int) -> None:
        if node.cuts and not node.has_others:
            self._cuts.append((self._before(node.start), end, b""))  # nothing would be left in it
        else:
            self._cuts += node.cuts

    def _end_rdf(self, rdf: _Element, place: int) -> None:
        if rdf.is_empty:
            name = rdf.tag[1:-2].split()[0]
            self._paste = lambda node: (rdf.start, rdf.tag_end, b"%b>%b\n</%b>" % (rdf.tag[:-2], node, name))
        else:
            before = self._before(place)
            self._paste = lambda node: (before, before, node)

    def _add(self, name: str, language: str, text: str) -> None:
        text = text.strip()
        if name == _HASH:
            self._hashes.add(text)
        elif text:
            self.values.append(_Value(name, language, text))

    def _before(self, place: int) -> int:
        """Where the white space before `place` begins, which is cut with what it indents."""
        while self._content[place - 1 : place].isspace():
            place -= 1
        return place


def _without_prefix(name: str) -> str:
    """expat's "namespace local-name prefix" without the prefix."""
    return " ".join(name.split(" ")[:2])


def _bad_packet(why: str) -> _ImageError:
    return _ImageError(
        f"has XMP metadata that cannot be understood: {why}.",
        "imgcap leaves such metadata alone; remove or repair it with a metadata editor, such as exiftool.",
    )


# --- the files


@dataclass(frozen=True)
class _Image:
    """An image file, the XMP in it, and what replaces that with another packet."""

    content: bytes
    packet: bytes
    """Empty if there is none."""
    edits: Callable[[bytes], list[Edit]]
    extended: bytes = b""
    """XMP that did not fit into a JPEG's packet."""


class _Part(NamedTuple):
    """A segment of a JPEG, or a chunk of a PNG or a WebP, by its places in the file."""

    kind: bytes
    start: int
    body: int
    body_end: int
    end: int


def _open(path: Path) -> _Image:
    if path.exists() and not path.is_file():
        raise _ImageError("is not a file.", "Give the image itself.")
    with path.open("rb") as file:
        head = file.read(12)
        for signature, parse in _FORMATS:
            if signature.match(head):
                file.seek(0)
                return parse(file.read())
    raise _ImageError("is neither a JPEG, a PNG nor a WebP image.", "Only these can hold a description for imgcap.")


def _damaged(why: str) -> _ImageError:
    return _ImageError(f"is damaged: {why}.", "Get a whole copy of it.")


def _only(parts: list[_Part]) -> _Part | None:
    if len(parts) > 1:
        raise _ImageError(
            "has more than one XMP packet, and it is not clear which one counts.",
            "Merge them with a metadata editor, such as exiftool.",
        )
    return parts[0] if parts else None


_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP_SEGMENT = b"http://ns.adobe.com/xmp/extension/\0"
_APP0, _APP1, _APP2, _SCAN = b"\xe0", b"\xe1", b"\xe2", b"\xda"
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])")
_END_OF_IMAGE = b"\xff\xd9"


def _jpeg(content: bytes) -> _Image:
    found: list[_Part] = []
    extensions: list[tuple[bytes, int, bytes]] = []  # identifier, offset, part of the extended XMP
    place = 2  # after the start marker, JFIF and EXIF, where readers expect XMP
    images = len(content)  # place of the index of further images
    for segment in _jpeg_segments(content):
        _, start, body, end, _ = segment
        is_app1 = segment.kind == _APP1
        if place == start and (segment.kind == _APP0 or (is_app1 and content.startswith(b"Exif\0", body))):
            place = end
        elif is_app1 and content.startswith(_XMP_SEGMENT, body):
            found.append(segment)
        elif is_app1 and content.startswith(_EXTENDED_XMP_SEGMENT, body):
            body += len(_EXTENDED_XMP_SEGMENT)
            offset = int.from_bytes(content[body + 36 : body + 40], "big")
            extensions.append((content[body : body + 32], offset, content[body + 40 : end]))
        elif segment.kind == _APP2 and content.startswith(b"MPF\0", body):
            images = min(images, start)

    old = _only(found) or _Part(_APP1, place, place, place, place)
    packet = content[old.body + len(_XMP_SEGMENT) : old.end]
    extended = b"".join(part for identifier, _, part in sorted(extensions) if identifier in packet)

    def edits(packet: bytes) -> list[Edit]:
        if len(packet) > LARGEST_JPEG_PACKET:
            raise _ImageError(
                f"has no room for the description: a JPEG holds {LARGEST_JPEG_PACKET:,} bytes of XMP, and it would be "
                f"{len(packet):,}.",
                "Write a shorter one, or remove other metadata.",
            )
        body = _XMP_SEGMENT + packet
        segment = b"\xff" + _APP1 + (len(body) + 2).to_bytes(2, "big") + body
        if images < old.start and len(segment) != old.end - old.start:
            raise _ImageError(
                "holds further images, whose index stands before the XMP and would become wrong.",
                "Write the description with a metadata editor, such as exiftool.",
            )
        return [(old.start, old.end, segment)]

    return _Image(content, packet, edits, extended)


def _jpeg_segments(content: bytes) -> Iterator[_Part]:
    """The segments before the first scan, which is known to have an end. A part starts with its marker."""
    start = 2
    while True:
        marker = _MARKER.match(content, start)
        if marker is None:
            raise _damaged(f"byte {start:,} is not the start of a segment")
        body = marker.end() + 2
        length = int.from_bytes(content[marker.end() : body], "big")
        end = marker.end() + length
        if length < 2 or end > len(content):
            raise _damaged(f"the segment at byte {start:,} has a wrong length")
        if marker[1] == _SCAN:
            if content.rfind(_END_OF_IMAGE, end) < 0:
                raise _damaged("its end is missing")
            return
        yield _Part(marker[1], start, body, end, end)
        start = end


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_PROFILE_KEYWORD = b"Raw profile type xmp\0"


def _png(content: bytes) -> _Image:
    found: list[_Part] = []
    place = 0  # after the header, before all that has an order
    for chunk in _png_chunks(content):
        place = place or chunk.end
        if chunk.kind == b"iTXt" and content.startswith(_XMP_KEYWORD, chunk.body):
            found.append(chunk)
        elif chunk.kind in (b"tEXt", b"zTXt") and content.startswith(_RAW_PROFILE_KEYWORD, chunk.body):
            raise _ImageError(
                "keeps its XMP in a raw profile, a form that imgcap does not change.",
                "Rewrite it with a metadata editor, such as exiftool.",
            )
    old = _only(found) or _Part(b"iTXt", place, place, place, place)

    def edits(packet: bytes) -> list[Edit]:
        body = b"iTXt" + _XMP_KEYWORD + bytes(4) + packet  # not compressed, no language, no translated keyword
        chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        return [(place, place, chunk), (old.start, old.end, b"")]

    return _Image(content, _international_text(content[old.body + len(_XMP_KEYWORD) : old.body_end]), edits)


def _png_chunks(content: bytes) -> Iterator[_Part]:
    """The chunks of a PNG, which are known to be whole."""
    start, kind, has_pixels = len(_PNG_SIGNATURE), b"", False
    while kind != b"IEND":
        body = start + 8
        kind = content[start + 4 : body]
        body_end = body + int.from_bytes(content[start : start + 4], "big")
        end = body_end + 4
        if end > len(content):
            raise _damaged("its end is missing, or a chunk has a wrong length")
        if (kind == b"IHDR") != (start == len(_PNG_SIGNATURE)):
            raise _damaged("it does not begin with its one header")
        checksum = zlib.crc32(memoryview(content)[start + 4 : body_end])
        if checksum != int.from_bytes(content[body_end:end], "big"):
            raise _damaged(f"the chunk at byte {start:,} has a wrong checksum")
        has_pixels = has_pixels or kind == b"IDAT"
        yield _Part(kind, start, body, body_end, end)
        start = end
    if not has_pixels:
        raise _damaged("it has no pixels")


def _international_text(body: bytes) -> bytes:
    """The text in what follows the keyword of an iTXt chunk: two flags, language, translated keyword, text."""
    compressed, method = body[:1] == b"\1", body[1:2]
    text = body[2:].split(b"\0", 2)[-1]
    if not compressed:
        return text
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(text, LARGEST_COMPRESSED_PACKET)
    except zlib.error:
        text = b""
    if method != b"\0" or not unpack.eof:
        raise _bad_packet("it cannot be unpacked")
    return text


_VP8X, _XMP_CHUNK = b"VP8X", b"XMP "
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10
_BITSTREAMS = (b"VP8 ", b"VP8L")
_BEFORE_XMP = (_VP8X, b"ICCP", b"ANIM", b"ANMF", b"ALPH", *_BITSTREAMS, b"EXIF")


def _webp(content: bytes) -> _Image:
    riff_end = 8 + int.from_bytes(content[4:8], "little")
    if riff_end > len(content):
        raise _damaged("its end is missing")
    found: list[_Part] = []
    header: Edit | None = None
    place, has_pixels = 0, False  # place: after all that has an order
    for chunk in _webp_chunks(content, riff_end):
        header = header or _webp_header(content, chunk)
        has_pixels = has_pixels or chunk.kind in (b"ANMF", *_BITSTREAMS)
        if chunk.kind == _XMP_CHUNK:
            found.append(chunk)
        elif chunk.kind in _BEFORE_XMP:
            place = chunk.end
    if header is None or not has_pixels:
        raise _damaged("it has no pixels")
    first = header
    old = _only(found) or _Part(_XMP_CHUNK, place, place, place, place)

    def edits(packet: bytes) -> list[Edit]:
        chunk = _webp_chunk(_XMP_CHUNK, packet)
        grown = sum(len(new) - (end - start) for start, end, new in [first, (old.start, old.end, chunk)])
        size = riff_end - 8 + grown
        if size >= 1 << 32:
            raise _ImageError("has no room for the description: it is as large as a WebP may be.", "Use a smaller one.")
        return [(4, 8, size.to_bytes(4, "little")), first, (old.start, old.end, chunk)]

    return _Image(content, content[old.body : old.body_end], edits)


def _webp_chunks(content: bytes, riff_end: int) -> Iterator[_Part]:
    start = 12
    while start < riff_end:
        body = start + 8
        body_end = body + int.from_bytes(content[start + 4 : body], "little")
        end = body_end + body_end % 2  # padded to an even length; all chunks start at even places
        if end > riff_end:
            raise _damaged(f"the chunk at byte {start:,} has a wrong length")
        yield _Part(content[start : start + 4], start, body, body_end, end)
        start = end


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


def _webp_header(content: bytes, first: _Part) -> Edit:
    """The edit that makes `first`, the first chunk, a VP8X chunk that says that there is XMP."""
    body = content[first.body : min(first.body + 10, first.body_end)]
    if len(body) == 10 and first.kind == _VP8X:
        return first.body, first.body + 1, bytes([body[0] | _XMP_FLAG])
    if len(body) == 10 and first.kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        flags = _XMP_FLAG
    elif len(body) >= 5 and first.kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")  # 14 bits of width - 1, 14 of height - 1, 1 of alpha
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags = _XMP_FLAG | (_ALPHA_FLAG if bits >> 28 & 1 else 0)
    else:
        raise _damaged("it does not begin with an image or its header")
    if not width or not height:
        raise _damaged("it has no pixels")
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return first.start, first.start, _webp_chunk(_VP8X, bytes([flags, 0, 0, 0]) + sides)


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], _Image]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(re.escape(_PNG_SIGNATURE)), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
)
