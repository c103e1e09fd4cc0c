"""Images that are too large are refused before they are decoded."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.colours import RED, SIZE, WHITE, close, plain, raising, saved
from helpers.data import draw
from helpers.image_bytes import png
from imgcap.images import limits
from imgcap.images.decoding import load_batches, open_image
from imgcap.images.errors import ImageError

FORMATS = ["png", "gif", "tif", "webp", "bmp", "jpg"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_limit_is_exact_and_holds_before_pixels_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    file = tmp_path / f"image.{suffix}"
    plain("RGB", RED).save(file)
    assert open_image(file, max_pixels=24).size == SIZE
    monkeypatch.setattr(Image.Image, "load", raising(AssertionError("decoded")))
    with pytest.raises(ImageError, match="has 6 x 4 = 24 pixels, more than the 23 that are allowed") as caught:
        open_image(file, max_pixels=23)
    assert caught.value.kind == "too large"


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_limit_is_not_the_one_that_pillow_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    file = tmp_path / f"image.{suffix}"
    plain("RGB", RED).save(file)
    for limit in (5, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert close(open_image(file, max_pixels=24), RED)
        with pytest.raises(ImageError, match="pixels"):
            open_image(file, max_pixels=23)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_that_need_a_higher_limit_leave_pillow_the_one_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    plain("RGB", RED).save(tmp_path / "image.tif")
    for batch in load_batches([tmp_path / "image.tif"] * 200, 4, max_pixels=24):
        assert all(isinstance(pixels, np.ndarray) for pixels in batch)
    assert Image.MAX_IMAGE_PIXELS == 5


def test_large_images_are_decoded_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain("RGB", RED).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13)  # of the 24 that it has: a warning, not yet an error
    with pytest.warns(Image.DecompressionBombWarning), Image.open(tmp_path / "large.png"):
        pass
    assert close(open_image(tmp_path / "large.png"), RED)


def test_the_threads_leave_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(64)]
    for i, file in enumerate(files):
        draw("red", i).save(file)
    before = list(warnings.filters)
    for _ in range(10):
        for _batch in load_batches(files, 8):
            pass
        assert list(warnings.filters) == before


# --- memory


def header_alone(width: int, height: int) -> bytes:
    """A PNG without the pixels that its header promises."""
    return png(8, 2, b"", size=(width, height))


def test_what_would_take_too_much_memory_is_refused_unless_a_limit_on_pixels_is_given() -> None:
    with pytest.raises(ImageError, match="11000 x 11000 pixels and takes 484 MB while it is decoded") as caught:
        open_image(header_alone(11_000, 11_000))
    assert caught.value.kind == "too large"
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        open_image(header_alone(11_000, 11_000), max_pixels=121_000_000)
    assert caught.value.kind == "damaged"
    with pytest.raises(ImageError, match="too many pixels"):
        open_image(header_alone(20_000, 10_001))


@pytest.mark.parametrize(
    ("content", "megabytes"),
    [
        (saved(Image.new("RGB", (640, 480)), "PNG"), 1.2),
        (saved(Image.new("L", (1, 100_000)), "PNG"), 1.2),  # rows take memory too
        (saved(Image.new("RGB", (640, 480)), "JPEG"), 1.2),
        (saved(Image.new("RGB", (640, 480)), "JPEG", progressive=True), 3.1),
        (saved(Image.new("RGB", (640, 480)), "WEBP"), 4.9),
        (saved(Image.new("RGB", (640, 480)), "TIFF"), 1.2),
        (saved(Image.new("RGB", (640, 480)), "TIFF", compression="tiff_lzw", strip_size=1 << 30), 2.4),
        (saved(Image.new("RGB", (640, 480)), "TIFF", compression="tiff_lzw", strip_size=1), 1.2),
    ],
    ids=["png", "thin", "jpeg", "progressive", "webp", "tiff", "tiff of one strip", "tiff of many strips"],
)
def test_memory_is_counted_by_what_the_decoder_keeps(
    monkeypatch: pytest.MonkeyPatch, content: bytes, megabytes: float
) -> None:
    monkeypatch.setattr(limits, "MAX_MEMORY", megabytes * 1.1e6)
    open_image(content)
    monkeypatch.setattr(limits, "MAX_MEMORY", megabytes * 0.9e6)
    with pytest.raises(ImageError, match="while it is decoded"):
        open_image(content)


def test_a_reduced_jpeg_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MEMORY", 100_000)
    content = saved(Image.new("RGB", (640, 480)), "JPEG")
    assert open_image(content, at_least=60).size == (80, 60)
    with pytest.raises(ImageError, match="640 x 480"):
        open_image(content)


@pytest.mark.parametrize("size", [(6, 11_141_124), (16_776_966, 4)])
def test_an_animated_webp_of_a_huge_canvas_is_refused(size: tuple[int, int]) -> None:
    content = saved(plain("RGB", RED), "WEBP", save_all=True, append_images=[plain("RGB", WHITE)])
    place = content.index(b"VP8X") + 12
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels and takes"):
        open_image(content[:place] + canvas + content[place + 6 :])


def test_a_tiff_of_a_huge_tile_is_refused() -> None:
    tags = {256: 6, 257: 4, 258: 8, 259: 8, 262: 1, 277: 1, 322: 20_000, 323: 20_000, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    with pytest.raises(ImageError, match="6 x 4 pixels and takes 1,600 MB"):
        open_image(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
