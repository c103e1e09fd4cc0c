"""Images of any mode become upright, opaque, 8-bit sRGB."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.colours import (
    BLACK,
    PINK,
    RED,
    SIZE,
    WHITE,
    Colour,
    big_endian,
    close,
    corners,
    grey,
    lab,
    palette,
    plain,
    saved,
    srgb_profile,
    swapped_profile,
    with_orientation,
)
from helpers.image_bytes import png
from imgcap.images import rgb
from imgcap.images.decoding import load_pixels, open_image
from imgcap.images.rgb import to_rgb


@pytest.mark.parametrize(
    ("name", "image", "options", "mode", "colour"),
    [
        ("1.png", plain("1", 1), {}, "1", WHITE),
        ("1.tif", plain("1", 0), {}, "1", BLACK),
        ("1.bmp", plain("1", 1), {}, "1", WHITE),
        ("l.png", plain("L", 100), {}, "L", (100, 100, 100)),
        ("l.jpg", plain("L", 100), {}, "L", (100, 100, 100)),
        ("l-transparent.png", plain("L", 100), {"transparency": 100}, "L", WHITE),
        ("l-other-transparent.png", plain("L", 100), {"transparency": 99}, "L", (100, 100, 100)),
        ("la.png", plain("LA", (100, 255)), {}, "LA", (100, 100, 100)),
        ("la-half.png", plain("LA", (0, 128)), {}, "LA", (127, 127, 127)),
        ("la-none.tif", plain("LA", (0, 0)), {}, "LA", WHITE),
        ("p.png", palette(), {}, "P", RED),
        ("p.gif", palette(), {}, "P", RED),
        ("p.bmp", palette(), {}, "P", RED),
        ("p-transparent.png", palette(), {"transparency": 1}, "P", WHITE),
        ("p-transparent.gif", palette(), {"transparency": 1}, "P", WHITE),
        ("p-other-transparent.gif", palette(), {"transparency": 0}, "P", RED),
        ("p-alphas.png", palette(), {"transparency": bytes([255, 128])}, "P", PINK),
        ("pa.tif", palette(128), {}, "PA", PINK),
        ("pa-none.tif", palette(0), {}, "PA", WHITE),
        ("rgb.png", plain("RGB", RED), {}, "RGB", RED),
        ("rgb.jpg", plain("RGB", RED), {}, "RGB", RED),
        ("rgb-progressive.jpg", plain("RGB", RED), {"progressive": True}, "RGB", RED),
        ("rgb.webp", plain("RGB", RED), {}, "RGB", RED),
        ("rgb.bmp", plain("RGB", RED), {}, "RGB", RED),
        ("rgb.tif", plain("RGB", RED), {"compression": "tiff_lzw"}, "RGB", RED),
        ("rgb.avif", plain("RGB", RED), {}, "RGB", RED),
        ("rgb-transparent.png", plain("RGB", RED), {"transparency": RED}, "RGB", WHITE),
        ("rgba.png", plain("RGBA", (*RED, 255)), {}, "RGBA", RED),
        ("rgba-half.png", plain("RGBA", (*RED, 128)), {}, "RGBA", PINK),
        ("rgba-half.webp", plain("RGBA", (*RED, 128)), {"lossless": True}, "RGBA", PINK),
        ("rgba-none.png", plain("RGBA", (*RED, 0)), {}, "RGBA", WHITE),
        ("rgba-none.tif", plain("RGBA", (*RED, 0)), {}, "RGBA", WHITE),
        ("rgba-none.avif", plain("RGBA", (*RED, 0)), {}, "RGBA", WHITE),
        ("cmyk.jpg", plain("CMYK", (0, 255, 255, 0)), {}, "CMYK", RED),
        ("cmyk.tif", plain("CMYK", (0, 255, 255, 0)), {}, "CMYK", RED),
        ("cmyk-black.jpg", plain("CMYK", (0, 0, 0, 255)), {}, "CMYK", BLACK),
        ("ycbcr.jpg", plain("RGB", RED).convert("YCbCr"), {}, "RGB", RED),
        ("ycbcr.tif", plain("RGB", RED).convert("YCbCr"), {}, "YCbCr", RED),
        ("lab.tif", lab(), {}, "LAB", (251, 5, 4)),
        ("i16-middle.png", grey(32768, "uint16"), {}, "I;16", (128, 128, 128)),
        ("i16-white.png", grey(65535, "uint16"), {}, "I;16", WHITE),
        ("i16-middle.tif", grey(32768, "uint16"), {}, "I;16", (128, 128, 128)),
        ("i16b-middle.tif", big_endian(32768), {}, "I;16B", (128, 128, 128)),
        ("i16b-white.tif", big_endian(65535), {}, "I;16B", WHITE),
        ("i-middle.tif", grey(32768, "int32"), {}, "I", (128, 128, 128)),
        ("i-as-8-bit.tif", grey(200, "int32"), {}, "I", (200, 200, 200)),
        ("f-of-1.tif", grey(0.5, "float32"), {}, "F", (128, 128, 128)),
        ("f-of-255.tif", grey(200.0, "float32"), {}, "F", (200, 200, 200)),
        ("f-of-65535.tif", grey(32768.0, "float32"), {}, "F", (128, 128, 128)),
    ],
)
def test_every_mode_of_a_file_keeps_its_colour(
    tmp_path: Path, name: str, image: Image.Image, options: dict[str, Any], mode: str, colour: Colour
) -> None:
    file = tmp_path / name
    image.save(file, **options)
    with Image.open(file) as opened:
        assert opened.mode == mode
    opened = open_image(file)
    assert opened.size == SIZE
    assert close(opened, colour)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (png(16, 2, struct.pack(">3H", 65535, 32768, 0)), (255, 128, 0)),
        (png(16, 6, struct.pack(">4H", 65535, 32768, 0, 65535)), (255, 128, 0)),
        (png(16, 6, struct.pack(">4H", 65535, 32768, 0, 0)), WHITE),
        (png(16, 4, struct.pack(">2H", 32768, 65535)), (128, 128, 128)),
        (png(16, 4, struct.pack(">2H", 32768, 0)), WHITE),
        (png(4, 0, b"\x88" * 3), (136, 136, 136)),
        (png(1, 0, b"\0"), BLACK),
        (png(1, 0, b"\0", transparency=b"\0\0"), WHITE),
    ],
    ids=["rgb16", "rgba16", "rgba16-clear", "la16", "la16-clear", "grey4", "bilevel", "bilevel-clear"],
)
def test_pngs_of_other_depths_keep_their_colour(tmp_path: Path, content: bytes, colour: Colour) -> None:
    (tmp_path / "image.png").write_bytes(content)
    assert close(open_image(tmp_path / "image.png"), colour)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (plain("RGB", RED).convert("HSV"), RED),
        (plain("RGBX", (*RED, 0)), RED),
        (plain("RGBA", (*RED, 128)).convert("RGBa"), PINK),
        (plain("LA", (0, 128)).convert("La"), (127, 127, 127)),
        (palette(128), PINK),
        (lab(), (251, 5, 4)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_modes_that_only_a_program_has_keep_their_colour(image: Image.Image, colour: Colour) -> None:
    assert close(open_image(image), colour)


def bmp(alphas: list[int], header: int = 108) -> bytes:
    """A BMP of red pixels with these alphas, in a header of version 3, 4 or 5."""
    pixels = b"".join(bytes([0, 0, 255, alpha]) for alpha in alphas)
    info = struct.pack("<IiiHHIIiiII", header, len(alphas), 1, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    info += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = info.ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + header + len(pixels), 0, 0, 14 + header) + info + pixels


@pytest.mark.parametrize(
    ("alphas", "colours"),
    [
        ([0, 0], [RED, RED]),
        ([0, 255], [WHITE, RED]),
        ([128, 128], [PINK, PINK]),
        ([255, 255], [RED, RED]),
    ],
)
@pytest.mark.parametrize("header", [56, 108, 124])
def test_a_bmp_whose_alpha_is_all_zero_is_opaque(alphas: list[int], colours: list[Colour], header: int) -> None:
    content = bmp(alphas, header)
    assert np.asarray(open_image(content))[0].tolist() == [list(colour) for colour in colours]
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.mode == "RGBA"
        assert np.asarray(open_image(opened))[0].tolist() == [list(colour) for colour in colours]


def test_a_large_bmp_whose_alpha_is_all_zero_is_opaque_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rgb, "_LARGE", 10)
    assert (np.asarray(open_image(bmp([0] * 64), at_least=1)) == RED).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 1e6, 2e6], [0, 128, 255]),
        ([-5.0, -5.0, -5.0], [0, 0, 0]),
        ([1e9, 1e9, 1e9], [0, 0, 0]),
        ([float("nan"), 0.5, 1.0], [0, 128, 255]),
        ([float("inf"), 0.5, 1.0], [0, 128, 255]),
        ([float("-inf"), float("inf"), float("nan")], [0, 0, 0]),
    ],
)
def test_floats_of_any_range_become_visible(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    file = tmp_path / "floats.tif"
    Image.fromarray(np.array([values], np.float32)).save(file)
    assert np.asarray(open_image(file))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "rgb.webp", "rgb.tif"])
def test_an_srgb_profile_changes_nothing(tmp_path: Path, name: str) -> None:
    plain("RGB", (200, 100, 50)).save(tmp_path / name, icc_profile=srgb_profile())
    assert close(open_image(tmp_path / name), (200, 100, 50), tolerance=3)


@pytest.mark.parametrize(
    ("name", "image", "colour"),
    [
        ("rgb.jpg", plain("RGB", RED), (0, 0, 255)),
        ("p.png", palette(), (0, 0, 255)),
        ("rgba.png", plain("RGBA", (*RED, 255)), (0, 0, 255)),
        ("rgba-half.png", plain("RGBA", (*RED, 128)), (127, 127, 255)),
        ("rgba-none.png", plain("RGBA", (*RED, 0)), WHITE),
    ],
)
def test_a_profile_is_applied_to_images_with_and_without_transparency(
    tmp_path: Path, name: str, image: Image.Image, colour: Colour
) -> None:
    image.save(tmp_path / name, icc_profile=swapped_profile())
    assert close(open_image(tmp_path / name), colour, tolerance=3)


@pytest.mark.parametrize("profile", [b"no profile", srgb_profile()[:200], swapped_profile()])
@pytest.mark.parametrize(
    ("name", "image", "colour"),
    [("l.png", plain("L", 100), (100, 100, 100)), ("cmyk.jpg", plain("CMYK", (0, 255, 255, 0)), RED)],
)
def test_a_profile_that_does_not_fit_is_ignored(
    tmp_path: Path, name: str, image: Image.Image, colour: Colour, profile: bytes
) -> None:
    image.save(tmp_path / name, icc_profile=profile)
    assert close(open_image(tmp_path / name), colour)


def test_a_broken_profile_is_ignored(tmp_path: Path) -> None:
    plain("RGB", RED).save(tmp_path / "rgb.jpg", icc_profile=b"no profile")
    assert close(open_image(tmp_path / "rgb.jpg"), RED)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_a_large_image_is_reduced_part_by_part(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    gradient = Image.linear_gradient("L").resize((250, 150))
    source = gradient if mode in ("I;16", "I", "F") else Image.merge("RGB", [gradient, gradient.rotate(180), gradient])
    content = saved(source.convert(mode), "TIFF" if mode in ("CMYK", "I", "F") else "PNG", exif=with_orientation(6))
    whole = open_image(content)
    monkeypatch.setattr(rgb, "_LARGE", 10_000)
    monkeypatch.setattr(rgb, "_TILE_PIXELS", 1000)
    monkeypatch.setattr(rgb, "_LONG", 100)
    reduced = open_image(content, at_least=50)
    assert reduced.size == (50, 50)
    assert np.abs(np.asarray(reduced).astype(int) - np.asarray(whole.reduce((3, 5)))).mean() < 1.5
    assert open_image(content).size == whole.size == (150, 250)


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_a_line_of_many_pixels_is_reduced(size: tuple[int, int]) -> None:
    content = saved(Image.new("RGB", size, RED), "PNG")
    assert max(open_image(content, at_least=600).size) < 1200
    pixels = load_pixels(content, 299)
    assert isinstance(pixels, np.ndarray)
    assert (pixels == RED).all()


@pytest.mark.parametrize(
    "image",
    [plain("RGB", RED), plain("RGBA", (*RED, 128)), palette(), plain("L", 7), grey(0.5, "float32"), grey(9, "uint16")],
    ids=lambda image: image.mode,
)
def test_to_rgb_does_not_change_its_input_and_shares_nothing_with_it(image: Image.Image) -> None:
    image.info["note"] = "kept"
    image.getexif()[0x0112] = 6
    before, size, mode = image.tobytes(), image.size, image.mode
    found = to_rgb(image)
    assert found.size == size[::-1]
    found.paste((1, 2, 3), (0, 0, *found.size))
    assert (image.tobytes(), image.size, image.mode, image.info["note"]) == (before, size, mode, "kept")
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.tif"])
def test_what_to_rgb_gives_is_not_turned_or_converted_again(tmp_path: Path, name: str) -> None:
    corners().save(tmp_path / name, exif=with_orientation(6), icc_profile=swapped_profile())
    once = open_image(tmp_path / name)
    assert once.size == corners().size[::-1]
    for image in (once, once.copy()):
        twice = to_rgb(image)
        assert twice.size == once.size
        assert twice.tobytes() == once.tobytes()
    once.save(tmp_path / "again.png")
