"""XMP sidecars: a caption is merged into what photo managers keep there, and a person's text stays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.data import Run
from helpers.described_images import FOREIGN_PACKET, PERSONS, TEXT, alt, exiftool, needs_exiftool, packet, save
from imgcap.errors import ExitCode, ImgcapError, UsageError
from imgcap.images.metadata.description import write_description
from imgcap.images.metadata.xmp_sidecar import read_xmp_sidecar, write_xmp_sidecar
from imgcap.images.sidecars import SidecarPaths

DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:darktable="http://darktable.sf.net/"
   xmp:Rating="4"
   darktable:xmp_version="5">
   <dc:subject>
    <rdf:Bag>
     <rdf:li>snow</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <darktable:history>
    <rdf:Seq>
     <rdf:li darktable:operation="exposure" darktable:params="00000000"/>
    </rdf:Seq>
   </darktable:history>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save(tmp_path, "plain.jpg")


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    return tmp_path / "plain.jpg.xmp"


def test_a_new_sidecar_is_xmp_and_imgcap_replaces_its_own(image: Path, sidecar: Path) -> None:
    assert read_xmp_sidecar(sidecar) is None
    assert write_xmp_sidecar(sidecar, image, "A cat.")
    assert read_xmp_sidecar(sidecar) == "A cat."
    assert write_xmp_sidecar(sidecar, image, TEXT)
    assert read_xmp_sidecar(sidecar) == TEXT


@pytest.mark.parametrize(
    "encode",
    [str.encode, lambda text: text.encode("utf-8-sig"), lambda text: text.encode("utf-16")],
    ids=["UTF-8", "UTF-8 with a mark", "UTF-16"],
)
def test_ratings_keywords_and_edits_stay(image: Path, sidecar: Path, encode: Callable[[str], bytes]) -> None:
    sidecar.write_bytes(encode(DARKTABLE))
    assert write_xmp_sidecar(sidecar, image, TEXT)
    assert read_xmp_sidecar(sidecar) == TEXT
    content = sidecar.read_text("utf-8-sig")
    for line in DARKTABLE.splitlines()[1:]:
        assert line in content
    assert write_xmp_sidecar(sidecar, image, "A cat.")


@pytest.mark.parametrize("kind", PERSONS)
def test_what_a_person_wrote_is_kept_unless_it_is_to_be_overwritten(image: Path, sidecar: Path, kind: str) -> None:
    sidecar.write_bytes(PERSONS[kind])
    assert not write_xmp_sidecar(sidecar, image, TEXT)
    assert sidecar.read_bytes() == PERSONS[kind]
    assert write_xmp_sidecar(sidecar, image, TEXT, overwrite=True)
    assert read_xmp_sidecar(sidecar) == TEXT


def test_a_text_that_is_written_for_a_person_is_a_persons(image: Path, sidecar: Path) -> None:
    assert write_xmp_sidecar(sidecar, image, "checked", by_person=True)
    assert not write_xmp_sidecar(sidecar, image, TEXT)
    assert read_xmp_sidecar(sidecar) == "checked"


def test_a_description_that_a_person_wrote_into_the_image_is_not_hidden_by_a_sidecar(tmp_path: Path) -> None:
    image = save(tmp_path, "plain.png", xmp=packet(f"<dc:description>{alt('mine')}</dc:description>"))
    assert not write_xmp_sidecar(tmp_path / "plain.xmp", image, TEXT)
    assert not (tmp_path / "plain.xmp").exists()
    assert write_xmp_sidecar(tmp_path / "plain.xmp", image, TEXT, overwrite=True)
    own = save(tmp_path, "simple.webp")
    write_description(own, "by imgcap")
    assert write_xmp_sidecar(tmp_path / "simple.xmp", own, TEXT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a dog runs\n", "is not an XMP file."),
        (b"\xff\xfex", "is not an XMP file: it is not text."),
        (b"<?xml version='1.0'?><settings/>", "has XMP metadata that cannot be understood: it has no rdf:RDF."),
        (FOREIGN_PACKET[:-100], "has XMP metadata that cannot be understood: "),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_is_not_xmp_is_never_replaced(
    image: Path, sidecar: Path, content: bytes, reason: str, overwrite: bool
) -> None:
    sidecar.write_bytes(content)
    with pytest.raises(ImgcapError) as caught:
        write_xmp_sidecar(sidecar, image, TEXT, overwrite=overwrite)
    assert str(caught.value).startswith(f"{sidecar} {reason}")
    assert caught.value.hint
    assert sidecar.read_bytes() == content


def test_permissions_stay_and_hard_links_are_refused(image: Path, sidecar: Path) -> None:
    sidecar.write_text(DARKTABLE)
    sidecar.chmod(0o640)
    assert write_xmp_sidecar(sidecar, image, TEXT)
    assert sidecar.stat().st_mode & 0o777 == 0o640
    os.link(sidecar, sidecar.with_name("other.xmp"))
    with pytest.raises(ImgcapError, match="hard links"):
        write_xmp_sidecar(sidecar, image, "A cat.")


def test_the_sidecar_of_darktable_or_lightroom_is_used(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.touch()
    paths = SidecarPaths(".xmp")
    assert paths.of(image).name == "a.xmp"
    (tmp_path / "a.jpg.xmp").touch()
    assert paths.of(image).name == "a.jpg.xmp"


@pytest.mark.parametrize("suffix", [".json", ".XML", ".yaml", ".yml", ".csv", ".toml", ".caption.json", ".html"])
def test_bare_text_is_not_written_into_a_structured_file(suffix: str) -> None:
    ending = Path("x" + suffix).suffix.lower()
    with pytest.raises(UsageError) as caught:
        SidecarPaths(suffix)
    assert str(caught.value) == f"A {ending} file is not plain text, so it cannot be a sidecar."


@pytest.mark.parametrize("suffix", [".jpg", ".CR2", ".dng", ".jxl", ".mov", ".psd"])
def test_no_sidecar_can_hit_a_photo_or_a_film(suffix: str) -> None:
    with pytest.raises(UsageError, match="cannot be the ending of sidecars"):
        SidecarPaths(suffix)


def test_caption_writes_sidecars_of_any_format_and_keeps_a_persons(
    imgcap_here: Run, tmp_path: Path, telling_model: Path
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    image = save(album, "plain.png")
    for name in ("a.tif", "b.gif", "c.png"):
        from PIL import Image

        Image.open(image).save(album / name)
    image.unlink()
    (album / "c.png.xmp").write_bytes(PERSONS["description"])
    (album / "a.xmp").write_text(DARKTABLE)
    caption = ["caption", album, "--model", telling_model, "-o", tmp_path / "rows.jsonl", "--sidecar", ".xmp"]
    done = imgcap_here(*caption)
    assert done.returncode == ExitCode.DONE, done.stderr
    rows = {Path(row["path"]).name: row for row in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())}
    assert read_xmp_sidecar(album / "a.xmp") == rows["a.tif"]["caption"]
    assert 'xmp:Rating="4"' in (album / "a.xmp").read_text()
    assert read_xmp_sidecar(album / "b.xmp") == rows["b.gif"]["caption"]
    assert read_xmp_sidecar(album / "c.png.xmp") == "mine"
    assert rows["c.png"]["description"] == "kept"
    assert "1 keep the description that a person wrote" in done.stderr
    done = imgcap_here(*caption, "--overwrite", "--skip-existing")
    assert "nothing left" in done.stderr or "Nothing" in done.stderr, done.stderr


@needs_exiftool
def test_exiftool_reads_the_sidecar(image: Path, sidecar: Path) -> None:
    sidecar.write_text(DARKTABLE)
    write_xmp_sidecar(sidecar, image, TEXT)
    found = exiftool("-s3", "-XMP-xmp:Rating", "-XMP-dc:Subject", "-XMP-dc:Description", sidecar).splitlines()
    assert found == ["4", "snow", TEXT]
    assert exiftool("-validate", "-s3", "-warning", sidecar).split()[0] == "OK"
    new = sidecar.with_name("new.xmp")
    write_xmp_sidecar(new, image, TEXT)
    assert exiftool("-s3", "-XMP-dc:Description", "-XMP-iptcCore:AltTextAccessibility", new).splitlines() == [TEXT] * 2
    shutil.copy(new, sidecar)
    exiftool("-overwrite_original", "-XMP-xmp:Rating=2", new)
    assert write_xmp_sidecar(new, image, "A cat.")
