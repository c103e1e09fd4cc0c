"""Images of every kind with metadata of every kind, and checks of what was written into them."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence
from PIL.PngImagePlugin import PngInfo

from imgcap.errors import ImgcapError
from imgcap.images.decoding import open_image
from imgcap.images.metadata.description import write_description
from imgcap.images.metadata.xmp import IMGCAP_NAMESPACE

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
    tags[0x010E], tags[0x0112] = "SONY DSC", 6
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
    """The bytes inserted at one place of `old` to make `new`."""
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
    """Assert that writing fails with one sentence and does not change the file. Returns the error."""
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
    """Whether writing keeps a person's description; asserts that the file does not change."""
    before = file.read_bytes(), file.stat()
    if write_description(file, text):
        return False
    assert (file.read_bytes(), file.stat()) == before
    return True


PERSONS: dict[str, bytes] = {
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
    "rdf as default namespace": (
        f'<RDF xmlns="{RDF}"><Description><d:description xmlns:d="{DC}">mine</d:description></Description></RDF>'
    ).encode(),
    "second node": packet(f'</rdf:Description><rdf:Description rdf:about="uuid:1" {NAMESPACES} dc:description="mine">'),
    "typed node": f'<rdf:RDF {NAMESPACES}><xmp:Photo dc:description="mine"/></rdf:RDF>'.encode(),
    "hash of another text": packet(
        f"<dc:description>{alt('mine')}</dc:description>",
        f'xmlns:i="{IMGCAP_NAMESPACE}" i:descriptionHash="{"0" * 64}"',
    ),
    "null at the end": packet("<dc:description>mine</dc:description>") + b"\0",
}


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def itxt(xmp: bytes, flags: bytes = b"\0\0") -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0" + flags + b"en\0XMP\0" + xmp)


def decoded_pixels(file: Path) -> bytes | None:
    try:
        return open_image(file).tobytes()
    except ImgcapError:
        return None


@cache
def _started_exiftool(_module: str) -> subprocess.Popen[str]:
    """An exiftool that stays open: it takes ten times as long to start as to read a file."""
    command = ["exiftool", "-stay_open", "True", "-@", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    atexit.register(process.communicate, "-stay_open\nFalse\n")
    return process


def exiftool(*arguments: object) -> str:
    """What exiftool prints. Modules that `-use` loads stay loaded, so those commands have a process of their own.

    Without `-q`, which would silence the mark of the end, too.
    """
    process = _started_exiftool("MWG" if "MWG" in arguments else "")
    assert process.stdin and process.stdout
    lines = ["-charset", "filename=utf8", *map(str, arguments), "-echo3", "{status ${status}}", "-execute"]
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()
    output = "".join(iter(process.stdout.readline, "{ready}\n"))
    output, _, status = output.rpartition("{status ")
    assert status.startswith("0}"), (arguments, output, status)
    return output
