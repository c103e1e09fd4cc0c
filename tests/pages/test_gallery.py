"""The gallery writer: a page is written completely or not at all, and its text is exact and safe."""

from __future__ import annotations

import base64
import errno
import gc
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.data import EXAMPLES, draw
from helpers.gallery_rows import ROWS, read, write
from imgcap.errors import ImgcapError
from imgcap.pages.gallery import GalleryWriter
from imgcap.pages.parts import THUMBNAIL_SIZE


def thumbnail(line: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(line, validate=True)))


def test_added_rows_are_read_back_in_order(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.png", "caption": f"wall {i}", "confidence": i / 200} for i in range(120)]
    found, thumbnails = read(write(tmp_path / "page.html", rows, draw("red", 1, 8)))
    assert found == rows
    assert len(thumbnails) == 120
    assert all(thumbnail(line).size == (8, 8) for line in thumbnails)


def test_numbers_that_json_lacks_are_null_and_text_is_exact(tmp_path: Path) -> None:
    found, _ = read(write(tmp_path / "page.html", ROWS))
    assert found[5]["log_probability"] is None
    assert found[:5] == ROWS[:5]


def test_no_text_of_a_row_or_title_is_markup(tmp_path: Path) -> None:
    page = write(tmp_path / "page.html", ROWS).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "\u2028" not in page
    assert page.count("</script>") == write(tmp_path / "other.html", [{"path": "a"}]).read_text().count("</script>")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1000, 500), (320, 160)), ((300, 900), (107, 320)), ((64, 64), (64, 64)), ((5000, 1), (320, 1))],
)
def test_a_thumbnail_keeps_its_shape_and_is_never_enlarged(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = Image.new("RGB", size, "teal")
    [line] = read(write(tmp_path / "page.html", [{"path": "a"}], image))[1]
    assert thumbnail(line).size == expected
    assert max(expected) <= THUMBNAIL_SIZE
    assert image.size == size


def test_an_image_that_cannot_be_decoded_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with GalleryWriter(tmp_path / "page.html", "Walls") as gallery:
        for image in (tmp_path / "missing.png", EXAMPLES / "cat.jpg", tmp_path / "broken.png", None):
            gallery.add({"path": "a"}, image)
    assert [bool(line) for line in read(tmp_path / "page.html")[1]] == [False, True, False, False]


def test_an_image_may_be_a_path_its_content_or_opened(tmp_path: Path) -> None:
    file = EXAMPLES / "cat.jpg"
    with GalleryWriter(tmp_path / "page.html", "Walls") as gallery, Image.open(file) as opened:
        for image in (file, str(file), file.read_bytes(), opened):
            gallery.add({"path": "cat.jpg"}, image)
    assert {thumbnail(line).size for line in read(tmp_path / "page.html")[1]} == {(320, 213)}


def test_the_page_appears_when_it_is_closed_and_not_before(tmp_path: Path) -> None:
    gallery = GalleryWriter(tmp_path / "page.html", "Walls")
    gallery.add({"path": "a"}, None)
    assert not (tmp_path / "page.html").exists()
    gallery.close()
    gallery.close()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(error), GalleryWriter(tmp_path / "page.html", "Walls") as gallery:
        for _ in range(100):
            gallery.add({"path": "a"}, None)
        raise error
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return opened(Path("/dev/full") if mode == "w" else path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ImgcapError) as caught:
        write(tmp_path / "page.html", [{"path": "a" * 1000}] * rows)
    sentence = f"The page {tmp_path / 'page.html'} cannot be written: no space left on device"
    assert str(caught.value).startswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_made_durable_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ImgcapError, match="cannot be written: input/output error"):
        write(tmp_path / "page.html", ROWS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing/page.html", "file/page.html"])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImgcapError) as caught:
        GalleryWriter(tmp_path / name, "Walls")
    assert str(caught.value).startswith(f"The page {tmp_path / name} cannot be written: ")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    image, row = draw("red", 1, 8), {"path": "a.png", "caption": "a red wall " * 100}

    def grown(rows: int) -> int:
        for _ in range(rows):
            gallery.add(row, image)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    with GalleryWriter(tmp_path / "page.html", "Walls") as gallery:
        tracemalloc.start()
        try:
            first, second = grown(100), grown(1000)
        finally:
            tracemalloc.stop()
    assert second - first < 100_000  # the rows are a megabyte
