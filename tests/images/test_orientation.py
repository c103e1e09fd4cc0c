"""Images come upright, whatever their EXIF orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.colours import RED, STORED, close, corners, plain, with_orientation
from helpers.image_zoo import HEIF, heif_bytes
from imgcap.images.decoding import open_image


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.tif", "photo.avif"])
@pytest.mark.parametrize("orientation", STORED)
def test_images_come_upright(tmp_path: Path, orientation: int, name: str) -> None:
    stored: Image.Image = STORED[orientation](corners())
    stored.save(tmp_path / name, exif=with_orientation(orientation), quality=95)
    found = open_image(tmp_path / name)
    assert found.size == corners().size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(corners())).mean() < 8


def test_grey_and_transparent_images_come_upright_too(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "I;16"):
        source = corners().convert("I").convert("I;16") if mode == "I;16" else corners().convert(mode)
        upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
        source.save(upright)
        STORED[5](source).save(turned, exif=with_orientation(5))
        assert (np.asarray(open_image(turned)) == np.asarray(open_image(upright))).all(), mode


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        with_orientation(0).tobytes(),
        with_orientation(9).tobytes(),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x03\0\0\0up\0\0\0\0\0\0",  # the text "up"
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x02\0\6\0\6\0\0\0\0",  # two numbers
    ],
)
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp"])
def test_odd_exif_data_is_no_reason_to_refuse_an_image(tmp_path: Path, name: str, exif: bytes) -> None:
    plain("RGB", RED).save(tmp_path / name, exif=exif)
    assert close(open_image(tmp_path / name), RED)


@pytest.mark.skipif(not HEIF, reason="needs pillow-heif")
@pytest.mark.parametrize("orientation", STORED)
def test_heic_images_come_upright(orientation: int) -> None:
    found = open_image(heif_bytes(STORED[orientation](corners()), with_orientation(orientation)), at_least=1)
    assert found.size == corners().size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(corners())).mean() < 8
