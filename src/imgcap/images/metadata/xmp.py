"""The XMP packet: find the image's descriptions in it, and replace them without changing anything else.

Sources: ISO 16684-1 (XMP), IPTC Photo Metadata Standard 2021.1 (alt text).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from imgcap.images.metadata.container import Edit, bad_packet, splice

IMGCAP_NAMESPACE = "https://imgcap.invalid/ns/1.0/"
"""Namespace of `descriptionHash`, the SHA-256 of a description that imgcap wrote."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_IPTC = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"

# Names as expat reports them: namespace, space, local name.
DESCRIPTION = f"{_DC} description"
_HASH = f"{IMGCAP_NAMESPACE} descriptionHash"
_DESCRIPTIVE = frozenset(
    {
        DESCRIPTION,
        f"{_IPTC} AltTextAccessibility",
        "http://ns.adobe.com/tiff/1.0/ ImageDescription",
        "http://ns.adobe.com/exif/1.0/ UserComment",
        _HASH,
    }
)
"""The properties that imgcap reads and replaces."""
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


class Value(NamedTuple):
    """One description, in one language."""

    name: str
    """The property, as "namespace name"."""
    language: str
    text: str


@dataclass
class _Element:
    """An open element: rdf:RDF, a node in it, or a property of that node."""

    name: str
    start: int
    tag: bytes
    has_others: bool = False
    """Whether this node has properties that imgcap does not replace."""
    cuts: list[Edit] = field(default_factory=list)
    """The edits that remove the descriptive properties from this node."""
    texts: list[tuple[str, list[str]]] = field(default_factory=lambda: [("", [])])
    """Languages and texts of a descriptive property."""

    @property
    def tag_end(self) -> int:
        return self.start + len(self.tag)

    @property
    def is_empty(self) -> bool:
        return self.tag.endswith(b"/>")


class XmpPacket:
    """The descriptions in an XMP packet, and where to cut and insert them. Raises `MetadataError` if it is not XMP.

    In XMP, rdf:RDF holds nodes, mostly rdf:Description, whose attributes and elements are the image's properties.
    Descriptions at deeper levels belong to something else, such as an ingredient of the image.
    """

    def __init__(self, content: bytes) -> None:
        content = content.rstrip(b"\0")  # some writers pad with NUL
        self._content = content if content.strip() else _EMPTY_PACKET
        self.values: list[Value] = []
        """Descriptions and alternative texts that are not blank."""
        self._hashes: set[str] = set()
        self._about: str | None = None  # must be equal in all nodes
        self._cuts: list[Edit] = []
        self._insert: Callable[[bytes], Edit] | None = None
        self._level = 0  # 1 in rdf:RDF, 2 in a node, 3 in a property, more inside a property
        self._open: list[_Element] = []  # of the first three levels
        self._parse()

    @property
    def description(self) -> str | None:
        """dc:description in the default language, else in the first one; None if there is none."""
        found = [value for value in self.values if value.name == DESCRIPTION]
        default = (value.text for value in found if value.language.lower() == "x-default")
        return next(default, found[0].text if found else None)

    def is_by_imgcap(self, *others: str) -> bool:
        """Whether imgcap wrote all descriptions, these `others` included; True if there are none."""
        return {_hash(text) for text in (*(value.text for value in self.values), *others)} <= self._hashes

    def with_description(self, text: str, by_person: bool) -> bytes:
        """The packet with `text` in place of all its descriptions."""
        assert self._insert is not None
        mark = "" if by_person else _MARK.format(hash=_hash(text))
        node = _NODE.format(about=quoteattr(self._about or ""), mark=mark, text=escape(text))
        return b"".join(splice(self._content, [*self._cuts, self._insert(node.encode())]))

    def _parse(self) -> None:
        if b"\0" in self._content:
            raise bad_packet("it is not UTF-8")
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
            raise bad_packet(str(error)) from None
        if self._insert is None:
            raise bad_packet("it has no rdf:RDF")

    def _doctype(self, *_: object) -> None:
        raise bad_packet("it has a document type, which could hide an entity bomb")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = _without_prefix(name)
        if not self._level and name != _RDF_ROOT:
            return  # x:xmpmeta, around rdf:RDF
        if not self._level and self._insert is not None:
            raise bad_packet("it has more than one rdf:RDF")
        self._level += 1
        if self._level <= 3:
            place = self._parser.CurrentByteIndex
            tag = _TAG.match(self._content, place)
            assert tag is not None
            self._open.append(_Element(name, place, tag[0]))
        if self._level == 2:
            self._start_node(attributes)
        elif self._in_descriptive():
            self._start_in_descriptive(name, attributes)

    def _text(self, text: str) -> None:
        if self._in_descriptive():
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

    def _in_descriptive(self) -> bool:
        return self._level >= 3 and self._open[2].name in _DESCRIPTIVE

    def _start_node(self, attributes: dict[str, str]) -> None:
        node, descriptive = self._open[1], set()
        node.has_others = node.name != _RDF_NODE  # the type of other nodes is a property
        for key, text in attributes.items():
            name = _without_prefix(key)
            if name in _DESCRIPTIVE:
                self._add(name, "", text)
                _, local_name, prefix = key.split(" ")
                descriptive.add(f"{prefix}:{local_name}".encode())
            elif name not in _ABOUT:
                node.has_others = True
            elif self._about is None:
                self._about = text
        if descriptive:
            tag = _ATTRIBUTE.sub(lambda found: b"" if found[1] in descriptive else found[0], node.tag)
            node.cuts.append((node.start, node.tag_end, tag))

    def _start_in_descriptive(self, name: str, attributes: dict[str, str]) -> None:
        values = {_without_prefix(key): value for key, value in attributes.items()}
        if name == _RDF_ITEM:
            self._open[2].texts.append((values.get(_LANGUAGE, ""), []))
        self._text(values.get(_RDF_VALUE, ""))

    def _end_property(self, element: _Element, end: int) -> None:
        if element.name not in _DESCRIPTIVE:
            self._open[1].has_others = True
            return
        self._open[1].cuts.append((self._indent_start(element.start), end, b""))
        for language, texts in element.texts:
            self._add(element.name, language, "".join(texts))

    def _end_node(self, node: _Element, end: int) -> None:
        if node.cuts and not node.has_others:
            self._cuts.append((self._indent_start(node.start), end, b""))  # the node would be empty
        else:
            self._cuts += node.cuts

    def _end_rdf(self, rdf: _Element, place: int) -> None:
        if rdf.is_empty:
            name = rdf.tag[1:-2].split()[0]
            self._insert = lambda node: (rdf.start, rdf.tag_end, b"%b>%b\n</%b>" % (rdf.tag[:-2], node, name))
        else:
            before = self._indent_start(place)
            self._insert = lambda node: (before, before, node)

    def _add(self, name: str, language: str, text: str) -> None:
        text = text.strip()
        if name == _HASH:
            self._hashes.add(text)
        elif text:
            self.values.append(Value(name, language, text))

    def _indent_start(self, place: int) -> int:
        """The start of the white space before `place`, which is cut together with the element it indents."""
        while self._content[place - 1 : place].isspace():
            place -= 1
        return place


def clean(text: str) -> str:
    """`text` as an XML parser returns it, without surrounding white space or characters that XML forbids."""
    return _ILLEGAL_IN_XML.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _without_prefix(name: str) -> str:
    """expat's "namespace local-name prefix" without the prefix."""
    return " ".join(name.split(" ")[:2])
