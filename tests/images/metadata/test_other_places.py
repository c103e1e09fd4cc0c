"""A person's description outside XMP, in EXIF, IPTC or a PNG text chunk, is kept like one in XMP."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers.data import SHARED_DATA
from helpers.described_images import TEXT, chunk, decoded_pixels, exiftool, is_untouched, needs_exiftool, save, segment
from imgcap.images.metadata.description import read_description, write_description

MINE = "Oma's garden, für Zoë"


def exif_of(description: bytes = b"", comment: bytes = b"", order: str = "<") -> bytes:
    """EXIF with these values of ImageDescription and UserComment, longer than 4 bytes or empty."""
    start = 8 + 2 + 3 * 12 + 4
    directory = start + len(description)
    entries = struct.pack(order + "HHHII", 3, 0x010E, 2, len(description), start)
    entries += struct.pack(order + "HHII", 0x0112, 3, 1, 1 << (16 if order == ">" else 0))
    entries += struct.pack(order + "HHII", 0x8769, 4, 1, directory) + bytes(4)
    deeper = struct.pack(order + "HHHII", 1, 0x9286, 7, len(comment), directory + 18) + bytes(4)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + entries + description + deeper + comment


def record(number: int, dataset: int, data: bytes) -> bytes:
    return bytes([0x1C, number, dataset]) + len(data).to_bytes(2, "big") + data


def resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + number.to_bytes(2, "big") + b"\0\0" + len(data).to_bytes(4, "big") + data + bytes(len(data) % 2)


def photoshop(*resources: bytes) -> bytes:
    return segment(0xED, b"Photoshop 3.0\0" + b"".join(resources))


def iptc(text: str, charset: str | None) -> bytes:
    coded = record(1, 90, b"\x1b%G") if charset == "utf-8" else b""
    return coded + record(2, 5, b"a title") + record(2, 120, text.encode(charset or "cp1252")) + record(2, 25, b"a key")


def jpeg_with(folder: Path, segments: bytes) -> Path:
    file = save(folder, "plain.jpg")
    content = file.read_bytes()
    file.write_bytes(content[:2] + segments + content[2:])
    return file


EXIF: dict[str, tuple[bytes, bytes]] = {
    "description in UTF-8": (MINE.encode() + b"\0", b""),
    "description in Windows-1252": (MINE.encode("cp1252") + b"\0", b""),
    "comment in ASCII": (b"", b"ASCII\0\0\0Oma's garden"),
    "comment in UTF-16 of the file": (b"", b"UNICODE\0" + MINE.encode("utf-16-le")),
    "comment in UTF-16 of the other order": (b"", b"UNICODE\0" + MINE.encode("utf-16-be")),
    "comment in UTF-16 with a mark": (b"", b"UNICODE\0" + MINE.encode("utf-16")),
    "comment in JIS": (b"", b"JIS\0\0\0\0\0" + "祖母の庭".encode("iso2022_jp")),
    "comment without a character set": (b"", bytes(8) + MINE.encode()),
    "comment without its code": (b"", MINE.encode()),
    "both": (b"the description\0", b"ASCII\0\0\0the comment"),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", EXIF)
@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "simple.webp"])
def test_a_description_in_exif_is_kept_and_replaced_if_asked(tmp_path: Path, name: str, kind: str, order: str) -> None:
    description, comment = EXIF[kind]
    exif = exif_of(description, comment, order)
    file = save(tmp_path, name, exif=b"Exif\0\0" + exif)
    expected = {"comment in ASCII": "Oma's garden", "comment in JIS": "祖母の庭", "both": "the description"}
    assert read_description(file) == expected.get(kind, MINE)
    assert is_untouched(file)
    pixels = decoded_pixels(file)
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT
    assert description.rstrip(b"\0") not in file.read_bytes() or not description
    assert decoded_pixels(file) == pixels
    assert write_description(file, "A cat.")  # nothing of the person's is left
    with Image.open(file) as image:
        assert image.getexif()[0x0112] == 1


@pytest.mark.parametrize(
    ("description", "comment"),
    [
        (b"OLYMPUS DIGITAL CAMERA         \0", b""),
        (b"SONY DSC\0", b""),
        (b"                               \0", b""),
        (b"", b"ASCII\0\0\0" + bytes(40)),
        (b"", b"UNICODE\0" + " ".encode("utf-16-le") * 40),
        (b"", bytes(264)),
        (b"", b"ASCII\0\0\0"),
    ],
)
def test_what_cameras_write_into_every_image_is_no_description(
    tmp_path: Path, description: bytes, comment: bytes
) -> None:
    exif = exif_of(description, comment)
    file = save(tmp_path, "plain.jpg", exif=b"Exif\0\0" + exif)
    assert read_description(file) is None
    assert write_description(file, TEXT)
    assert exif in file.read_bytes()


@pytest.mark.parametrize("charset", ["utf-8", "cp1252", None])
@pytest.mark.parametrize("several", [False, True])
def test_an_iptc_caption_is_kept_and_removed_if_asked(tmp_path: Path, charset: str | None, several: bool) -> None:
    parts = [resource(0x03ED, b"resolution"), resource(0x0404, iptc(MINE, charset)), resource(0x040A, b"\1")]
    file = jpeg_with(tmp_path, b"".join(map(photoshop, parts)) if several else photoshop(*parts))
    assert read_description(file) == MINE
    assert is_untouched(file)
    pixels = decoded_pixels(file)
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT
    content = file.read_bytes()
    assert MINE.encode(charset or "cp1252") not in content
    for kept in (b"resolution", b"a title", b"a key", resource(0x040A, b"\1")):
        assert kept in content
    assert decoded_pixels(file) == pixels
    assert write_description(file, "A cat.")


def test_an_iptc_caption_of_extended_length_in_two_segments(tmp_path: Path) -> None:
    long = b"long " * 20_000
    iim = b"\x1c\x02\x78\x80\x04" + len(long).to_bytes(4, "big") + long + record(2, 25, b"a key")
    block = resource(0x0404, iim)
    file = jpeg_with(tmp_path, segment(0xED, b"Photoshop 3.0\0" + block[:60_000]) + photoshop(block[60_000:]))
    assert (read_description(file) or "").split() == ["long"] * 20_000
    assert write_description(file, TEXT, overwrite=True)
    assert file.read_bytes().count(b"Photoshop 3.0") == 1


@pytest.mark.parametrize("keyword", ["Description", "Comment", "comment", "exif:ImageDescription"])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "compressed iTXt"])
def test_a_png_text_chunk_is_kept_and_removed_if_asked(tmp_path: Path, kind: str, keyword: str) -> None:
    file = tmp_path / "a.png"
    info = PngInfo()
    info.add_text("Author", "A person")
    if kind.endswith("iTXt"):
        info.add_itxt(keyword, MINE, "en", "", zip=kind != "iTXt")
    else:
        info.add_text(keyword, MINE, zip=kind == "zTXt")
    Image.new("RGB", (9, 9), "red").save(file, pnginfo=info)
    assert read_description(file) == MINE
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    with Image.open(file) as image:
        assert image.info["Author"] == "A person"
        assert keyword not in image.info
    assert write_description(file, "A cat.")


def test_a_text_that_a_program_put_into_every_png_is_no_description(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Comment", "Created with GIMP")
    info.add_text("Software", "not a description")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png", pnginfo=info)
    assert read_description(tmp_path / "a.png") is None
    assert write_description(tmp_path / "a.png", TEXT)


def raw_profile(name: str, data: bytes) -> bytes:
    text = f"\n{name}\n{len(data):8}\n{data.hex()}\n".encode()
    return chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("exif", b"Exif\0\0" + exif_of(MINE.encode() + b"\0")),
        ("APP1", b"Exif\0\0" + exif_of(MINE.encode() + b"\0")),
        ("iptc", resource(0x0404, iptc(MINE, "utf-8"))),
        ("iptc", iptc(MINE, "utf-8")),
        ("8bim", resource(0x0404, iptc(MINE, None))),
    ],
)
def test_a_description_in_a_raw_profile_of_imagemagick_is_kept_and_removed_if_asked(
    tmp_path: Path, name: str, data: bytes
) -> None:
    file = save(tmp_path, "plain.png")
    content = file.read_bytes()
    file.write_bytes(content[:33] + raw_profile(name, data) + content[33:])
    assert read_description(file) == MINE
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT
    if shutil.which("exiftool"):
        assert mwg(file) == TEXT
        assert exiftool("-s3", "-IPTC:Keywords", file).strip() == ("a key" if name in ("iptc", "8bim") else "")
        assert exiftool("-s3", "-n", "-EXIF:Orientation", file).strip() == ("" if name in ("iptc", "8bim") else "1")
    assert write_description(file, "A cat.")


@pytest.mark.parametrize("place", range(4, 120, 3))
def test_damaged_exif_is_no_description_and_no_error(tmp_path: Path, place: int) -> None:
    exif = bytearray(exif_of(b"a description\0", b"ASCII\0\0\0a comment"))
    exif[place : place + 3] = b"\xff\xff\xff"
    file = save(tmp_path, "simple.webp", exif=b"Exif\0\0" + bytes(exif))
    assert write_description(file, TEXT, overwrite=True)
    assert read_description(file) == TEXT


def test_an_exif_directory_that_contains_itself_ends(tmp_path: Path) -> None:
    loop = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x8769, 4, 1, 8) + bytes(4)
    file = save(tmp_path, "plain.jpg", exif=b"Exif\0\0" + loop)
    assert write_description(file, TEXT)


# As exiftool sees it


def mwg(file: Path) -> str:
    return exiftool("-use", "MWG", "-s3", "-MWG:Description", file).rstrip("\n")


def warnings(files: list[Path]) -> list[str]:
    """What exiftool finds wrong with each file."""
    return [str(row.get("ExifTool:Warning")) for row in json.loads(exiftool("-j", "-G", "-validate", *files))]


@needs_exiftool
@pytest.mark.parametrize(
    "tag",
    ["IPTC:Caption-Abstract", "EXIF:ImageDescription", "EXIF:UserComment", "XMP-dc:Description", "MWG:Description"],
)
def test_what_exiftool_writes_is_kept_and_replaced_if_asked(tmp_path: Path, tag: str) -> None:
    names = ["plain.jpg", "plain.png", *(["simple.webp"] if not tag.startswith("IPTC") else [])]
    files = [save(tmp_path, name) for name in names]
    write = ["-overwrite_original", "-use", "MWG", f"-{tag}={MINE}", "-XMP-xmp:Rating=3"]
    exiftool(*write, "-codedcharacterset=utf8", files[0])
    exiftool(*write, *files[1:])
    before = warnings(files)
    for file in files:
        assert read_description(file) == MINE
        assert is_untouched(file)
        assert write_description(file, TEXT, overwrite=True)
    assert warnings(files) == before
    rows = json.loads(exiftool("-j", "-use", "MWG", "-MWG:Description", "-XMP-xmp:Rating", *files))
    assert [(row["Description"], row["Rating"]) for row in rows] == [(TEXT, 3)] * len(files)


@needs_exiftool
def test_imgcaps_description_that_exiftool_copied_to_the_other_places_is_still_its_own(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    write_description(file, "A cat.")
    exiftool("-overwrite_original", "-XMP-dc:Description>EXIF:ImageDescription", file)
    exiftool("-overwrite_original", "-XMP-dc:Description>IPTC:Caption-Abstract", file)
    assert mwg(file) == "A cat."
    assert write_description(file, TEXT)
    assert mwg(file) == TEXT


@pytest.mark.shared_data
def test_the_reported_images(tmp_path: Path) -> None:
    shutil.copytree(SHARED_DATA.parent / "reports" / "person-description", tmp_path / "report")
    for file in (tmp_path / "report").glob("*.???"):
        file.chmod(0o644)
        assert is_untouched(file)
