"""Descriptions in images: a person's is never lost, imgcap's is replaced, and no other byte of the file changes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence
from PIL.PngImagePlugin import PngInfo

from imgcap.errors import ImgcapError, UsageError
from imgcap.images import metadata as image_metadata
from imgcap.images.decoding import open_image
from imgcap.images.metadata import IMGCAP_NAMESPACE, LARGEST_JPEG_PACKET, read_description, write_description

TEXT = "Two dogs & a <\"cat\"> ]]> in the snow, 'über' ☃ 🐕"
SIDE = 24
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
IPTC = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
NAMESPACES = f'xmlns:rdf="{RDF}" xmlns:dc="{DC}" xmlns:iptc="{IPTC}" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
"""What Pillow keeps XMP under."""
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")


def alt(text: str, language: str = "x-default") -> str:
    return f'<rdf:Alt><rdf:li xml:lang="{language}">{text}</rdf:li></rdf:Alt>'


def packet(properties: str = "", attributes: str = "") -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Test">'
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="uuid:1" {NAMESPACES} {attributes}>{properties}'
        f'</rdf:Description></rdf:RDF></x:xmpmeta>\n{" " * 50}\n<?xpacket end="w"?>'
    ).encode()


NESTED = (
    '<mm:Ingredients xmlns:mm="http://ns.adobe.com/xap/1.0/mm/"><rdf:Bag><rdf:li rdf:parseType="Resource">'
    f"<dc:description>{alt('of an ingredient')}</dc:description></rdf:li></rdf:Bag></mm:Ingredients>"
)
FOREIGN_PACKET = packet(
    "<!-- a comment --><dc:subject><rdf:Bag><rdf:li>snow</rdf:li></rdf:Bag></dc:subject>"
    f'<odd:thing xmlns:odd="urn:odd" odd:way="1">kept &#38; safe</odd:thing>{NESTED}',
    "xmp:Rating='4'",
)
"""A packet with much in it, but no description of the image."""


# --- images


def photo(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE // 4, SIDE // 4, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").resize((SIDE, SIDE + 8)).convert(mode)


def turned(image: Image.Image) -> list[Image.Image]:
    return [image.transpose(Image.Transpose.ROTATE_180), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def palette() -> Image.Image:
    image = photo().quantize(16)
    image.info["transparency"] = 3
    return image


def animated(mode: str) -> dict[str, Any]:
    return {"save_all": True, "append_images": turned(photo(mode)), "duration": [30, 40, 50]}


IMAGES: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "plain.jpg": (photo(), {}),
    "progressive.jpg": (photo(), {"progressive": True}),
    "grey.jpg": (photo("L"), {"comment": "a comment"}),
    "cmyk.jpg": (photo("CMYK"), {}),
    "several.mpo": (photo(), {"save_all": True, "append_images": turned(photo())}),
    "plain.png": (photo(), {"dpi": (300, 300)}),
    "alpha.png": (photo("RGBA"), {}),
    "palette.png": (palette(), {}),
    "sixteen.png": (Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 99), {}),
    "animated.png": (photo("RGBA"), animated("RGBA")),
    "simple.webp": (photo(), {}),
    "lossless.webp": (photo(), {"lossless": True}),
    "lossless-alpha.webp": (photo("RGBA"), {"lossless": True, "exact": True}),
    "lossy-alpha.webp": (photo("RGBA"), {}),
    "animated.webp": (photo("RGBA"), animated("RGBA")),
}


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x010E], tags[0x0112] = "described in EXIF", 6
    return tags.tobytes()


EXTRAS: dict[str, dict[str, Any]] = {
    "bare": {},
    "exif": {"exif": exif()},
    "icc": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    "xmp": {"xmp": FOREIGN_PACKET},
}
EXTRAS["all"] = {key: value for extra in EXTRAS.values() for key, value in extra.items()}

COMBINATIONS = [
    (name, extra)
    for name in IMAGES
    for extra in EXTRAS
    if name != "several.mpo" or "xmp" not in EXTRAS[extra]  # Pillow writes XMP where it is refused
]


def save(folder: Path, name: str, **extras: Any) -> Path:
    """One of `IMAGES` with metadata."""
    image, options = IMAGES[name]
    if name.endswith(".png"):
        info = PngInfo()
        info.add_text("Author", "A person", zip=True)
        if "xmp" in extras:
            info.add_itxt("XML:com.adobe.xmp", extras.pop("xmp").decode())
        extras["pnginfo"] = info
    image.save(folder / name, **options, **extras)
    return folder / name


def with_xmp(folder: Path, xmp: bytes | str) -> Path:
    """A PNG whose XMP is this packet."""
    return save(folder, "plain.png", xmp=xmp.encode() if isinstance(xmp, str) else xmp)


def frames(file: Path) -> list[tuple[Any, ...]]:
    with Image.open(file) as image:
        return [
            (frame.mode, frame.size, frame.tobytes(), frame.getpalette(), {**frame.info, **dict.fromkeys(XMP_KEYS)})
            for frame in ImageSequence.Iterator(image)
        ]


def xmp_of(file: Path) -> bytes:
    with Image.open(file) as image:
        image.load()
        found: bytes = image.info["xmp"]
        return found


def inserted(old: bytes, new: bytes) -> bytes:
    """What was put into `old` at one place to make `new`."""
    place = len(os.path.commonprefix([old, new]))
    rest = len(old) - place
    assert new[len(new) - rest :] == old[place:]
    return new[place : len(new) - rest]


def webp_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    assert content[:4] == b"RIFF"
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    chunks, start = [], 12
    while start < len(content):
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        chunks.append((content[start : start + 4], content[start + 8 : start + 8 + size]))
        assert content[start + 8 + size : start + 8 + size + size % 2] in (b"", b"\0")
        start += 8 + size + size % 2
    assert start == len(content)
    return chunks


def refuses(file: Path, text: str = TEXT, **options: bool) -> ImgcapError:
    """The error, which is one sentence about a file that has not changed."""
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(ImgcapError) as caught:
        write_description(file, text, **options)
    message = str(caught.value)
    assert str(file) in message
    assert message.endswith(".")
    assert "\n" not in message
    assert caught.value.hint
    if before is not None:
        assert file.read_bytes() == before
        assert not list(file.parent.glob(".*"))
    return caught.value


def is_untouched(file: Path, text: str = TEXT) -> bool:
    """Whether the description is a person's, and the file is left alone."""
    before = file.read_bytes(), file.stat()
    if write_description(file, text):
        return False
    assert (file.read_bytes(), file.stat()) == before
    return True


# --- writing


@pytest.mark.parametrize(("name", "extra"), COMBINATIONS)
def test_the_description_is_read_back_and_pixels_and_metadata_are_as_before(
    tmp_path: Path, name: str, extra: str
) -> None:
    file = save(tmp_path, name, **EXTRAS[extra])
    before = frames(file)
    assert read_description(file) is None
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert frames(file) == before
    if "xmp" in EXTRAS[extra]:
        assert TEXT.split()[0].encode() in inserted(FOREIGN_PACKET, xmp_of(file))
    if file.suffix == ".webp":
        webp_chunks(file.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", [name for name in IMAGES if not name.endswith(".webp")])
@pytest.mark.parametrize("extra", ["bare", "exif", "icc"])
def test_one_segment_or_chunk_is_put_into_a_file_without_xmp(tmp_path: Path, name: str, extra: str) -> None:
    file = save(tmp_path, name, **EXTRAS[extra])
    before = file.read_bytes()
    write_description(file, TEXT)
    assert b"x:xmpmeta" in inserted(before, file.read_bytes())


@pytest.mark.parametrize("name", IMAGES)
def test_imgcap_replaces_its_own_description(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name)
    write_description(file, "A cat.")
    first = file.read_bytes()
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert write_description(file, "A cat.")
    assert file.read_bytes() == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("  white \n space\t", "white \n space"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a\x00b\x08c\x0bd\x1fe\ufffef\uffffg\ud800h", "abcdefgh"),
        ("]]> &amp; <!-- <?x?> {hash} %s \\", "]]> &amp; <!-- <?x?> {hash} %s \\"),
        ("ナイル川 \u202e עברית \U0001f469\u200d\U0001f680 e\u0301 \x85\u2028x", None),
        ("long " * 5000 + "end", None),
    ],
)
@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "simple.webp"])
def test_any_text_comes_back_without_what_xml_cannot_hold(
    tmp_path: Path, name: str, text: str, expected: str | None
) -> None:
    file = save(tmp_path, name)
    for _ in range(2):  # the second time, it is known as imgcap's own
        assert write_description(file, text)
        assert read_description(file) == (expected or text)


@pytest.mark.parametrize("text", ["", " \n", "\x00\x07"])
def test_an_empty_text_is_wrong_usage(tmp_path: Path, text: str) -> None:
    file = save(tmp_path, "plain.png")
    assert isinstance(refuses(file, text), UsageError)


@pytest.mark.parametrize(("name", "other"), [("plain.jpg", "a.png"), ("plain.png", "a.webp"), ("simple.webp", "a")])
def test_the_format_is_told_by_the_content(tmp_path: Path, name: str, other: str) -> None:
    file = save(tmp_path, name).rename(tmp_path / other)
    before = frames(file)
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert frames(file) == before


# --- what a person wrote


PERSONS = {
    "description": packet(f"<dc:description>{alt('mine')}</dc:description>"),
    "another language": packet(f"<dc:description>{alt('meins', 'de')}</dc:description>"),
    "alternative text": packet(f"<iptc:AltTextAccessibility>{alt('mine')}</iptc:AltTextAccessibility>"),
    "attribute": packet(attributes='dc:description="mine" xmp:Rating="3"'),
    "attribute in single quotes": packet(attributes="\n iptc:AltTextAccessibility = 'mine'"),
    "plain text": packet("<dc:description>mine</dc:description>"),
    "bag": packet("<dc:description><rdf:Bag><rdf:li>mine</rdf:li></rdf:Bag></dc:description>"),
    "qualified": packet(
        '<dc:description><rdf:Alt><rdf:li xml:lang="en" rdf:parseType="Resource"><rdf:value>mine</rdf:value>'
        "</rdf:li></rdf:Alt></dc:description>"
    ),
    "value as attribute": packet(
        '<dc:description><rdf:Alt><rdf:li xml:lang="en" rdf:value="mine"/></rdf:Alt></dc:description>'
    ),
    "other prefix": packet(f'<d:description xmlns:d="{DC}">mine</d:description>'),
    "CDATA": packet("<dc:description><![CDATA[mine]]></dc:description>"),
    "rdf as default namespace": f'<RDF xmlns="{RDF}"><Description><d:description xmlns:d="{DC}">mine</d:description>'
    "</Description></RDF>",
    "second node": packet(f'</rdf:Description><rdf:Description rdf:about="uuid:1" {NAMESPACES} dc:description="mine">'),
    "typed node": f'<rdf:RDF {NAMESPACES}><xmp:Photo dc:description="mine"/></rdf:RDF>',
    "hash of another text": packet(
        f"<dc:description>{alt('mine')}</dc:description>",
        f'xmlns:i="{IMGCAP_NAMESPACE}" i:descriptionHash="{"0" * 64}"',
    ),
    "null at the end": packet("<dc:description>mine</dc:description>") + b"\0",
}


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


@pytest.mark.parametrize("name", ["plain.jpg", "progressive.jpg", "plain.png", "simple.webp", "animated.webp"])
def test_what_a_person_wrote_is_kept_in_each_format(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name, xmp=PERSONS["description"])
    assert is_untouched(file)
    assert read_description(file) == "mine"
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A cat.</rdf:li>", "A cat!</rdf:li>"),
        ('<rdf:li xml:lang="x-default">', '<rdf:li xml:lang="de">Katze.</rdf:li><rdf:li xml:lang="x-default">'),
        ("</rdf:RDF>", f'<rdf:Description xmlns:d="{DC}" d:description="mine"/></rdf:RDF>'),
        ("imgcap:descriptionHash=", "imgcap:other="),
    ],
)
def test_a_description_of_imgcap_that_a_person_changed_is_a_persons(tmp_path: Path, old: str, new: str) -> None:
    file = save(tmp_path, "plain.png")
    write_description(file, "A cat.")
    changed = xmp_of(file).decode().replace(old, new, 1)
    assert changed != xmp_of(file).decode()
    assert is_untouched(with_xmp(tmp_path, changed))


@pytest.mark.parametrize("name", ["dc:description", "Iptc4xmpCore:AltTextAccessibility"])
def test_what_is_left_of_imgcaps_own_description_is_still_its_own(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, "plain.png")
    write_description(file, "A cat.")
    start, rest = xmp_of(file).decode().split(f"<{name}>")
    file = with_xmp(tmp_path, start + rest.split(f"</{name}>")[1])
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT


def test_a_text_that_is_written_for_a_person_is_a_persons(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    assert write_description(file, "made by imgcap")
    assert write_description(file, "checked by hand", by_person=True)
    assert read_description(file) == "checked by hand"
    assert not write_description(file, TEXT)
    assert read_description(file) == "checked by hand"


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
def test_an_empty_description_and_those_of_other_things_are_no_persons(tmp_path: Path, xmp: bytes) -> None:
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


def test_a_node_with_nothing_left_is_cut_and_its_about_is_kept(tmp_path: Path) -> None:
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


# --- JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def markers(content: bytes) -> list[tuple[int, bytes]]:
    """Markers and the first bytes of the segments of a JPEG before its first scan."""
    found, start = [], 2
    while content[start + 1] != 0xDA:
        found.append((content[start + 1], content[start + 4 : start + 8]))
        start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    return found


def test_a_jpegs_xmp_follows_jfif_and_exif(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg", exif=exif(), icc_profile=EXTRAS["icc"]["icc_profile"])
    write_description(file, TEXT)
    assert markers(file.read_bytes())[:4] == [(0xE0, b"JFIF"), (0xE1, b"Exif"), (0xE1, b"http"), (0xE2, b"ICC_")]


def test_a_jpegs_fill_bytes_and_trailer_are_kept(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    content = file.read_bytes()
    before = content[:2] + b"\xff\xff\xff" + content[2:] + b"a trailer"
    file.write_bytes(before)
    write_description(file, TEXT)
    assert XMP_SEGMENT in inserted(before, file.read_bytes())


def test_xmp_that_would_not_fit_into_a_jpeg_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    write_description(file, "x")
    room = LARGEST_JPEG_PACKET - (len(xmp_of(file)) - 2)  # the text stands in it twice
    assert write_description(file, "x" * (room // 2))
    assert LARGEST_JPEG_PACKET - 1 <= len(xmp_of(file)) <= LARGEST_JPEG_PACKET
    assert "65,502 bytes" in str(refuses(file, "x" * (room // 2 + 1)))


def extended(folder: Path, properties: str) -> Path:
    """A JPEG with extended XMP, in two segments in the wrong order."""
    guid, rest = b"0123456789ABCDEF0123456789ABCDEF", packet(properties)
    note = 'xmlns:note="http://ns.adobe.com/xmp/note/" note:HasExtendedXMP="' + guid.decode() + '"'
    file = save(folder, "plain.jpg", xmp=packet(attributes=note))
    content = file.read_bytes()
    head = b"http://ns.adobe.com/xmp/extension/\0" + guid + len(rest).to_bytes(4, "big")
    pieces = [(0).to_bytes(4, "big") + rest[:99], (99).to_bytes(4, "big") + rest[99:]]
    place = content.index(b"\xff\xdb")
    parts = b"".join(segment(0xE1, head + piece) for piece in reversed(pieces))
    file.write_bytes(content[:place] + parts + content[place:])
    return file


def test_extended_xmp_stays_as_it_is(tmp_path: Path) -> None:
    file = extended(tmp_path, "<dc:title>long</dc:title>")
    before = file.read_bytes()
    assert write_description(file, TEXT)
    assert read_description(file) == TEXT
    assert inserted(xmp_of(file), xmp_of(file)) == b""
    assert (
        file.read_bytes().split(b"http://ns.adobe.com/xmp/extension/")[1:]
        == before.split(b"http://ns.adobe.com/xmp/extension/")[1:]
    )


def test_a_description_in_extended_xmp_is_a_persons(tmp_path: Path) -> None:
    file = extended(tmp_path, f"<dc:description>{alt('mine')}</dc:description>")
    assert read_description(file) == "mine"
    assert is_untouched(file)
    assert "extended XMP" in str(refuses(file, overwrite=True))


def test_the_places_of_a_jpegs_further_images_stay_right_or_it_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path, "several.mpo")
    before = frames(file)
    assert len(before) == 3
    write_description(file, TEXT)
    assert frames(file) == before
    late = save(tmp_path, "several.mpo", xmp=FOREIGN_PACKET)  # which Pillow writes after the index
    assert "further images" in str(refuses(late))


# --- PNG


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(folder: Path, *, before: bytes = b"", after: bytes = b"") -> Path:
    """A PNG with chunks before and after its pixels."""
    file = save(folder, "plain.png")
    content = file.read_bytes()
    place = content.index(b"IDAT") - 4
    file.write_bytes(content[:place] + before + content[place:-12] + after + content[-12:])
    return file


def itxt(xmp: bytes, flags: bytes = b"\0\0") -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0" + flags + b"en\0XMP\0" + xmp)


def png_chunks(content: bytes) -> list[bytes]:
    kinds, start = [], 8
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        assert chunk(content[start + 4 : start + 8], content[start + 8 : start + 8 + size]) in content
        kinds.append(content[start + 4 : start + 8])
        start += size + 12
    return kinds


def test_compressed_xmp_is_read_and_replaced_by_plain_xmp(tmp_path: Path) -> None:
    file = png(tmp_path, before=itxt(zlib.compress(PERSONS["description"]), b"\1\0"))
    assert read_description(file) == "mine"
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT
    assert b"x:xmpmeta" in file.read_bytes()


@pytest.mark.parametrize("flags", [b"\1\0", b"\1\7"])
@pytest.mark.parametrize("body", [b"nonsense", zlib.compress(FOREIGN_PACKET)[:-9], zlib.compress(bytes(17 << 20))])
def test_xmp_that_cannot_be_unpacked_or_is_a_bomb_is_refused(tmp_path: Path, flags: bytes, body: bytes) -> None:
    assert "it cannot be unpacked" in str(refuses(png(tmp_path, before=itxt(body, flags))))


def test_xmp_after_the_pixels_moves_before_them(tmp_path: Path) -> None:
    file = png(tmp_path, after=itxt(FOREIGN_PACKET) + chunk(b"tIME", bytes(7)))
    before = png_chunks(file.read_bytes())
    assert write_description(file, TEXT)
    after = png_chunks(file.read_bytes())
    assert after.index(b"iTXt") < after.index(b"IDAT")
    assert sorted(after) == sorted(before)
    assert b"kept &#38; safe" in xmp_of(file)


def test_bytes_after_a_pngs_end_and_unknown_chunks_are_kept(tmp_path: Path) -> None:
    file = png(tmp_path, before=chunk(b"abCd", b"x"), after=chunk(b"abCd", b"y"))
    before = file.read_bytes() + b"a trailer"
    file.write_bytes(before)
    write_description(file, TEXT)
    assert inserted(before, file.read_bytes()).count(b"iTXt") == 1


def test_xmp_in_a_raw_profile_is_refused(tmp_path: Path) -> None:
    file = png(tmp_path, before=chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"xmp")))
    assert "raw profile" in str(refuses(file))


# --- WebP


@pytest.mark.parametrize(
    ("name", "kinds", "flags"),
    [
        ("simple.webp", [b"VP8X", b"VP8 ", b"XMP "], 0x04),
        ("lossless.webp", [b"VP8X", b"VP8L", b"XMP "], 0x04),
        ("lossless-alpha.webp", [b"VP8X", b"VP8L", b"XMP "], 0x14),
        ("lossy-alpha.webp", [b"VP8X", b"ALPH", b"VP8 ", b"XMP "], 0x14),
        ("animated.webp", [b"VP8X", b"ANIM", b"ANMF", b"ANMF", b"ANMF", b"XMP "], 0x16),
    ],
)
@pytest.mark.parametrize("text", [TEXT, TEXT + "."])
def test_a_webp_gets_a_header_that_fits(tmp_path: Path, name: str, kinds: list[bytes], flags: int, text: str) -> None:
    file = save(tmp_path, name)
    old = webp_chunks(file.read_bytes())
    write_description(file, text)
    new = webp_chunks(file.read_bytes())
    assert [kind for kind, _ in new] == kinds
    sides = b"".join((side - 1).to_bytes(3, "little") for side in photo().size)
    assert new[0] == (b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    assert new[1:-1] == [entry for entry in old if entry[0] != b"VP8X"]


def test_a_webps_xmp_stands_after_exif_and_before_unknown_chunks(tmp_path: Path) -> None:
    file = save(tmp_path, "simple.webp", exif=exif())
    content = file.read_bytes() + b"abcd\x03\0\0\0xyz\0"
    file.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    write_description(file, TEXT)
    assert [kind for kind, _ in webp_chunks(file.read_bytes())][-3:] == [b"EXIF", b"XMP ", b"abcd"]


def test_bytes_after_a_webps_end_are_kept(tmp_path: Path) -> None:
    file = save(tmp_path, "simple.webp")
    file.write_bytes(file.read_bytes() + b"a trailer")
    write_description(file, TEXT)
    content = file.read_bytes()
    assert content.endswith(b"a trailer")
    webp_chunks(content[:-9])


# --- files that are refused


@pytest.mark.parametrize("name", ["plain.jpg", "palette.png", "simple.webp", "lossless.webp", "animated.webp"])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    content = save(tmp_path, name, xmp=FOREIGN_PACKET).read_bytes()
    for length in {*range(200), *range(0, len(content), 29), len(content) - 1}:
        (tmp_path / name).write_bytes(content[:length])
        assert "is damaged" in str(refuses(tmp_path / name)) or length < 12


def patched(content: bytes, place: int | bytes, new: bytes, skip: int = 0) -> bytes:
    start = skip + (content.index(place) if isinstance(place, bytes) else place)
    return content[:start] + new + content[start + len(new) :]


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a segment of no length": ("plain.jpg", lambda c: patched(c, 4, b"\0\1")),
    "a segment past the end": ("plain.jpg", lambda c: patched(c, b"\xff\xda", b"\xff\xff", 2)),
    "no marker": ("plain.jpg", lambda c: c[:20] + b"\0" + c[20:]),
    "an end before an image": ("plain.jpg", lambda c: c[:2] + b"\xff\xd9"),
    "nothing but fill bytes": ("plain.jpg", lambda c: c[:2] + b"\xff" * 100_000),
    "no end of image": ("plain.jpg", lambda c: c[:-2] + b"\0\0"),
    "two XMP segments": ("plain.jpg", lambda c: c[:2] + segment(0xE1, XMP_SEGMENT) * 2 + c[2:]),
    "a huge chunk": ("plain.png", lambda c: patched(c, b"IDAT", b"\xff\xff\xff\xff", -4)),
    "a wrong checksum": ("plain.png", lambda c: patched(c, len(c) - 4, b"\0")),
    "wrong pixels": ("plain.png", lambda c: patched(c, b"IDAT", b"\0\0\0\0", 20)),
    "no header": ("plain.png", lambda c: c[:8] + c[33:]),
    "two headers": ("plain.png", lambda c: c[:33] + c[8:]),
    "no pixels": ("plain.png", lambda c: c[:33] + chunk(b"IEND", b"")),
    "two XMP chunks": ("plain.png", lambda c: c[:33] + itxt(b"") * 2 + c[33:]),
    "a size past the end": ("simple.webp", lambda c: patched(c, 4, b"\xff\xff\xff\xff")),
    "a size of nothing": ("simple.webp", lambda c: patched(c, 4, b"\4\0\0\0")),
    "a huge WebP chunk": ("simple.webp", lambda c: patched(c, 16, b"\xf0\xff\xff\xff")),
    "a wrong start code": ("simple.webp", lambda c: patched(c, b"\x9d\x01\x2a", b"\0")),
    "an image without width": ("simple.webp", lambda c: patched(c, b"\x9d\x01\x2a", b"\0\0", 3)),
    "a wrong lossless signature": ("lossless.webp", lambda c: patched(c, 20, b"\0")),
    "an unknown first chunk": ("simple.webp", lambda c: patched(c, 12, b"ABCD")),
    "a header without an image": ("animated.webp", lambda c: c.replace(b"ANMF", b"ABCD")),
    "a short header": ("simple.webp", lambda c: c[:4] + b"\x0e\0\0\0WEBPVP8X\2\0\0\0\0\0"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_sentence_and_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    name, damage = DAMAGE[kind]
    file = save(tmp_path, name)
    file.write_bytes(damage(file.read_bytes()))
    message = str(refuses(file))
    assert ("more than one XMP packet" if "two XMP" in kind else "is damaged: ") in message
    with pytest.raises(ImgcapError):
        read_description(file)


def mutations(content: bytes, count: int) -> Iterable[bytes]:
    random = np.random.default_rng(0)
    for _ in range(count):
        changed = bytearray(content)
        for place in random.integers(0, len(changed), random.integers(1, 6)):
            changed[place] = random.choice([0, 1, 0x22, 0x3C, 0xFF, random.integers(256)])
        start, end = sorted(random.integers(0, len(changed), 2))
        if random.random() < 0.2:
            del changed[start:end]
        elif random.random() < 0.1:
            changed[start:start] = changed[start:end]
        yield bytes(changed)


def repaired(content: bytes) -> bytes:
    """`content` with right checksums, as far as it is a PNG, so that its chunks are looked into."""
    start, parts = 8, [content[:8]]
    while content.startswith(b"\x89PNG") and start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        parts.append(chunk(content[start + 4 : start + 8], content[start + 8 : start + 8 + size]))
        start += size + 12
    return b"".join(parts) if len(parts) > 1 else content


@pytest.mark.parametrize("name", ["plain.jpg", "palette.png", "simple.webp", "lossless-alpha.webp", "animated.webp"])
def test_damage_anywhere_is_a_sentence_or_a_file_that_is_as_readable_as_before(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name, xmp=PERSONS["second node"])
    written = 0
    for content in mutations(file.read_bytes(), 120):
        before = repaired(content)
        file.write_bytes(before)
        pixels = decoded(file)
        try:
            assert write_description(file, TEXT, overwrite=True)
        except ImgcapError as error:
            assert str(file) in str(error)
            assert file.read_bytes() == before
        else:
            written += 1
            assert read_description(file) == TEXT
            assert decoded(file) == pixels
    assert 10 < written < 120


def decoded(file: Path) -> bytes | None:
    try:
        return open_image(file).tobytes()
    except ImgcapError:
        return None


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tif", "avif"])
def test_other_formats_are_refused_with_those_that_can_be_written(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    photo().save(file)
    assert str(refuses(file)) == f"{file} is neither a JPEG, a PNG nor a WebP image."
    with pytest.raises(ImgcapError, match="neither"):
        read_description(file)


@pytest.mark.parametrize("content", [b"", b"\xff", b"RIFF", b"RIFF\0\0\0\0WAVE", b"\x89PNG\r\n", b"<html>" * 9])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert "is neither a JPEG, a PNG nor a WebP image" in str(refuses(tmp_path / "a.jpg"))


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    assert str(refuses(tmp_path / "a.jpg")) == f"{tmp_path / 'a.jpg'} does not exist."
    assert str(refuses(tmp_path)) == f"{tmp_path} is not a file."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "is not a file" in str(refuses(tmp_path / "a.jpg"))


# --- the file system


@pytest.mark.skipif(sys.platform == "win32", reason="needs permission bits")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o755])
def test_the_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    file = save(tmp_path, "plain.png")
    file.chmod(mode)
    write_description(file, TEXT)
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_link_stays_a_link_and_its_target_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file = save(tmp_path / "elsewhere", "plain.png")
    link = tmp_path / "link.png"
    link.symlink_to(Path("elsewhere", "plain.png"))
    assert write_description(link, TEXT)
    assert link.is_symlink()
    assert read_description(file) == TEXT


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_link_to_itself_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    assert "cannot be read: " in str(refuses(tmp_path / "a.png"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write to read-only files")
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_read_only_file_or_folder_is_one_sentence(tmp_path: Path, read_only: str) -> None:
    file = save(tmp_path, "plain.png")
    locked, mode = (file, 0o444) if read_only == "file" else (tmp_path, 0o555)
    locked.chmod(mode)
    try:
        assert str(refuses(file)) == f"{file} cannot be rewritten: permission denied."
    finally:
        locked.chmod(0o755)


def test_a_disk_that_fails_leaves_the_image_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path, "plain.png")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert str(refuses(file)) == f"{file} cannot be rewritten: no space left on device; free some space and run again."


def test_a_file_that_vanishes_is_one_sentence_and_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(tmp_path, "plain.png")
    rewrite = image_metadata._rewrite

    def vanish(path: Path, parts: list[memoryview]) -> None:
        path.unlink()
        rewrite(path, parts)

    monkeypatch.setattr(image_metadata, "_rewrite", vanish)
    with pytest.raises(ImgcapError, match=r"plain\.png does not exist\."):
        write_description(file, TEXT)
    assert not list(tmp_path.iterdir())


# --- as another program sees it


def exiftool(*arguments: object) -> str:
    command = ["exiftool", "-charset", "filename=utf8", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=True).stdout


def tags(folder: Path) -> dict[str, dict[str, Any]]:
    """All metadata of the files in `folder`, and what is wrong with them, without what writing must change."""
    changing = ("SourceFile", "File:File", "MPF:MPImageStart", "RIFF:WebP_Flags")
    rows = json.loads(exiftool("-j", "-G", "-a", "-validate", "-warning", "-error", "-all", folder))
    return {
        Path(row["SourceFile"]).name: {key: value for key, value in row.items() if not key.startswith(changing)}
        for row in rows
    }


@needs_exiftool
@pytest.mark.parametrize("extra", EXTRAS)
def test_exiftool_reads_the_description_and_finds_nothing_else_changed(tmp_path: Path, extra: str) -> None:
    files = [save(tmp_path, name, **EXTRAS[extra]) for name, other in COMBINATIONS if other == extra]
    before = tags(tmp_path)
    for file in files:
        write_description(file, TEXT)
    after = tags(tmp_path)
    for file in files:
        found = after[file.name]
        assert found.pop("XMP:Description") == TEXT
        assert found.pop("XMP:AltTextAccessibility") == TEXT
        assert len(found.pop("XMP:DescriptionHash")) == 64
        assert found == before[file.name]


@needs_exiftool
@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "simple.webp"])
def test_what_exiftool_rewrites_is_still_imgcaps_and_what_it_changes_is_not(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name)
    write_description(file, TEXT)
    exiftool("-q", "-overwrite_original", "-XMP-xmp:Rating=3", file)
    assert write_description(file, "A cat.")
    assert read_description(file) == "A cat."
    exiftool("-q", "-overwrite_original", "-XMP-dc:Description=mine", file)
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    found = exiftool("-s3", "-XMP-xmp:Rating", "-XMP-dc:Description", "-XMP-iptcCore:AltTextAccessibility", file)
    assert found.splitlines() == ["3", TEXT, TEXT]
