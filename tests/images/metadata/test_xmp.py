"""The XMP packet: a person's description is kept, imgcap's is replaced, and everything else stays."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from helpers.described_images import (
    DC,
    FOREIGN_PACKET,
    IPTC,
    NAMESPACES,
    PERSONS,
    RDF,
    TEXT,
    alt,
    inserted,
    is_untouched,
    packet,
    refuses,
    save,
    with_xmp,
    xmp_of,
)
from imgcap.errors import ImgcapError
from imgcap.images.metadata.description import read_description, write_description


@pytest.mark.parametrize("kind", PERSONS)
def test_what_a_person_wrote_is_kept_unless_it_is_to_be_overwritten(tmp_path: Path, kind: str) -> None:
    file = with_xmp(tmp_path, PERSONS[kind])
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT
    root = ElementTree.fromstring(xmp_of(file))
    for name in (f"{{{DC}}}description", f"{{{IPTC}}}AltTextAccessibility"):
        assert ["".join(found.itertext()).strip() for found in root.iter(name)] == [TEXT]
        assert not [found for found in root.iter() if name in found.attrib]
    assert b"mine" not in xmp_of(file)
    assert write_description(file, "A cat.")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A cat.</rdf:li>", "A cat!</rdf:li>"),
        ('<rdf:li xml:lang="x-default">', '<rdf:li xml:lang="de">Katze.</rdf:li><rdf:li xml:lang="x-default">'),
        ("</rdf:RDF>", f'<rdf:Description xmlns:d="{DC}" d:description="mine"/></rdf:RDF>'),
        ("imgcap:descriptionHash=", "imgcap:other="),
    ],
)
def test_a_person_owns_a_description_of_imgcap_that_they_changed(tmp_path: Path, old: str, new: str) -> None:
    file = save(tmp_path, "plain.png")
    write_description(file, "A cat.")
    changed = xmp_of(file).decode().replace(old, new, 1)
    assert changed != xmp_of(file).decode()
    assert is_untouched(with_xmp(tmp_path, changed))


@pytest.mark.parametrize("name", ["dc:description", "Iptc4xmpCore:AltTextAccessibility"])
def test_half_of_imgcaps_own_description_is_still_its_own(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, "plain.png")
    write_description(file, "A cat.")
    start, rest = xmp_of(file).decode().split(f"<{name}>")
    file = with_xmp(tmp_path, start + rest.split(f"</{name}>")[1])
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT


@pytest.mark.parametrize(
    "xmp",
    [
        b"",
        b" \n",
        packet(),
        FOREIGN_PACKET,
        packet("<dc:description/><iptc:AltTextAccessibility></iptc:AltTextAccessibility>"),
        packet(f"<dc:description>{alt(' ')}</dc:description>", 'iptc:AltTextAccessibility=""'),
        f'<rdf:RDF xmlns:rdf="{RDF}"/>'.encode(),
        f'\ufeff<rdf:RDF xmlns:rdf="{RDF}"></rdf:RDF>'.encode(),
    ],
)
def test_empty_descriptions_and_those_of_ingredients_do_not_count(tmp_path: Path, xmp: bytes) -> None:
    file = with_xmp(tmp_path, xmp)
    assert read_description(file) is None
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ("", None),
        (alt("first", "de"), "first"),
        ('<rdf:Alt><rdf:li xml:lang="de">zwei</rdf:li><rdf:li xml:lang="X-Default"> two </rdf:li></rdf:Alt>', "two"),
        ("<rdf:Seq><rdf:li>one</rdf:li><rdf:li>two</rdf:li></rdf:Seq>", "one"),
        ("just &#116;ext", "just text"),
    ],
)
def test_the_description_in_the_default_language_is_read_else_the_first(
    tmp_path: Path, properties: str, expected: str | None
) -> None:
    other = f"<iptc:AltTextAccessibility>{alt('not this')}</iptc:AltTextAccessibility>"
    file = with_xmp(tmp_path, packet(f"{other}<dc:description>{properties}</dc:description>"))
    assert read_description(file) == expected


# --- the packet


def test_other_properties_and_prefixes_stay_as_they_were_written(tmp_path: Path) -> None:
    ours = f"<dc:description>{alt('mine')}</dc:description>"
    others = "<dc:title>dc:description='mine'</dc:title>"
    xmp = packet(f"{ours}{others}\n{ours}", "dc:description='mine' xmp:Label=\" dc:description='x' > \"")
    file = with_xmp(tmp_path, xmp)
    write_description(file, TEXT, overwrite=True)
    left = xmp.decode().replace(ours, "").replace(" dc:description='mine' xmp", " xmp").replace(f"{others}\n", others)
    assert b"imgcap:descriptionHash" in inserted(left.encode(), xmp_of(file))


def test_an_emptied_node_is_removed_and_its_about_is_kept(tmp_path: Path) -> None:
    file = with_xmp(tmp_path, packet(attributes='dc:description="mine"').replace(b"uuid:1", b"a&amp;&quot;b"))
    write_description(file, TEXT, overwrite=True)
    (node,) = ElementTree.fromstring(xmp_of(file)).iter(f"{{{RDF}}}Description")
    assert node.get(f"{{{RDF}}}about") == 'a&"b'


REFUSED_PACKETS = {
    "not XML": b"hello",
    "cut off": FOREIGN_PACKET[:-200],
    "two roots": FOREIGN_PACKET + b"<a/>",
    "no rdf:RDF": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    "two rdf:RDF": f'<a><rdf:RDF xmlns:rdf="{RDF}"/><rdf:RDF xmlns:rdf="{RDF}"/></a>'.encode(),
    "unknown prefix": packet("<unknown:x/>"),
    "document type": b"<!DOCTYPE x>" + FOREIGN_PACKET,
    "entity bomb": f'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><rdf:RDF {NAMESPACES}>&c;</rdf:RDF>'.encode(),
    "unknown entity": packet("<dc:title>&b;</dc:title>"),
    "UTF-16": FOREIGN_PACKET.decode().encode("utf-16"),
    "Latin-1": packet("<dc:title>für</dc:title>").decode().replace("\ufeff", "").encode("latin-1"),
}


@pytest.mark.parametrize("kind", REFUSED_PACKETS)
def test_xmp_that_cannot_be_understood_is_never_replaced(tmp_path: Path, kind: str) -> None:
    file = save(tmp_path, "simple.webp", xmp=REFUSED_PACKETS[kind])
    assert "XMP metadata that cannot be understood" in str(refuses(file, overwrite=True))
    with pytest.raises(ImgcapError, match="XMP metadata that cannot be understood"):
        read_description(file)
