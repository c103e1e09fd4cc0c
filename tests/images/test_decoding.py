"""Images, decoded from whatever a user has to the colours that a viewer would show."""

from __future__ import annotations

import io
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from helpers.data import EXAMPLES, draw
from helpers.image_zoo import HEIF, heif_bytes, png
from imgcap.images import decoding as images
from imgcap.images.decoding import batched, load_batches, load_pixels, open_image, squash, to_rgb
from imgcap.images.errors import ImageError

Colour = tuple[int, int, int]
RED, WHITE, BLACK, PINK = (255, 0, 0), (255, 255, 255), (0, 0, 0), (255, 127, 127)
SIZE = (6, 4)


@pytest.fixture(autouse=True)
def needs_avif(request: pytest.FixtureRequest) -> None:
    """Skips what needs AVIF where Pillow was built without it."""
    if ".avif" in request.node.name and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")


def plain(mode: str, colour: float | tuple[int, ...]) -> Image.Image:
    return Image.new(mode, SIZE, colour)


def grey(value: float, kind: str) -> Image.Image:
    return Image.fromarray(np.full(SIZE[::-1], value, kind))


def big_endian(value: int) -> Image.Image:
    return Image.frombytes("I;16B", SIZE, struct.pack(">H", value) * (SIZE[0] * SIZE[1]))


def palette(alpha: int | None = None) -> Image.Image:
    """A red image with a palette; with `alpha`, its palette has transparency (mode PA in memory and in TIFF)."""
    image = Image.new("P" if alpha is None else "PA", SIZE, 1 if alpha is None else (1, alpha))
    image.putpalette([0, 0, 255, 255, 0, 0])
    return image


def lab() -> Image.Image:
    srgb, cie = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(plain("RGB", RED), srgb, cie, outputMode="LAB")
    assert converted is not None
    return converted


def close(image: Image.Image, colour: Colour, tolerance: int = 2) -> bool:
    """Whether all pixels have a colour, and the image is plain RGB."""
    assert image.mode == "RGB"
    return bool((np.abs(np.asarray(image).astype(int) - colour) <= tolerance).all())


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


# --- orientation


def corners() -> Image.Image:
    """An image that no rotation or flip maps to itself."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(pixels)


STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.rotate(-90, expand=True),
}
"""How a camera that writes an EXIF orientation stores an upright image."""


def with_orientation(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


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
def test_odd_exif_data_is_no_reason_to_refuse_a_image(tmp_path: Path, name: str, exif: bytes) -> None:
    plain("RGB", RED).save(tmp_path / name, exif=exif)
    assert close(open_image(tmp_path / name), RED)


# --- reduced decoding


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Detail of every scale, with hard edges."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 3))
    for scale in (3, 9, 27, 81, 243):
        grain = random.integers(0, 256, (scale, scale, 3), np.uint8)
        pixels += np.asarray(Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC)) / scale**0.3
    pixels *= 255 / pixels.max()
    pixels[size[1] // 3 :: 97] = 40
    pixels[:, size[0] // 5 : size[0] // 4] = 215
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((1600, 1200), None, (1600, 1200)),
        ((1600, 1200), 1200, (1600, 1200)),
        ((1600, 1200), 601, (1600, 1200)),
        ((1600, 1200), 600, (800, 600)),
        ((1600, 1200), 301, (800, 600)),
        ((1600, 1200), 300, (400, 300)),
        ((1600, 1200), 150, (200, 150)),
        ((1600, 1200), 1, (200, 150)),
        ((1604, 1204), 1, (401, 301)),
        ((1601, 1200), 1, (1601, 1200)),
    ],
)
def test_a_jpeg_is_reduced_as_far_as_is_asked_and_divides_its_sides(
    size: tuple[int, int], at_least: int | None, expected: tuple[int, int]
) -> None:
    assert open_image(jpeg(plain_of(size)), at_least=at_least).size == expected


def plain_of(size: tuple[int, int], mode: str = "RGB", colour: tuple[int, ...] = RED) -> Image.Image:
    return Image.new(mode, size, colour)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def test_turned_and_cmyk_jpegs_are_reduced_too(tmp_path: Path) -> None:
    turned = open_image(jpeg(plain_of((1600, 1200)), exif=with_orientation(6)), at_least=300)
    assert turned.size == (300, 400)
    assert close(turned, RED)
    cmyk = open_image(jpeg(plain_of((1600, 1200), "CMYK", (0, 255, 255, 0))), at_least=300)
    assert cmyk.size == (400, 300)
    assert close(cmyk, RED)


def test_only_jpegs_from_files_are_reduced() -> None:
    file = io.BytesIO()
    plain_of((1600, 1200)).save(file, "PNG")
    assert open_image(file.getvalue(), at_least=1).size == (1600, 1200)
    opened = Image.open(io.BytesIO(jpeg(plain_of((1600, 1200)))))
    assert open_image(opened, at_least=1).size == opened.size == (1600, 1200)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("name", ["photo", *(file.name for file in sorted(EXAMPLES.glob("*.jpg")))])
def test_reduced_decoding_changes_less_than_another_resize_does(name: str, scale: int) -> None:
    size = 75
    source = photo((800, 600)) if name == "photo" else open_image(EXAMPLES / name)
    shorter, longer = 2 * size * scale, round(2 * size * max(source.size) / min(source.size)) * scale
    content = jpeg(source.resize((longer, shorter), Image.Resampling.LANCZOS))
    assert min(open_image(content, at_least=2 * size).size) == 2 * size
    whole = open_image(content)
    full = squash(whole, size).astype(int)
    lanczos = np.abs(np.asarray(whole.resize((size, size), Image.Resampling.LANCZOS)) - full)
    found = load_pixels(content, size)
    assert isinstance(found, np.ndarray)
    reduced = np.abs(found - full)
    assert 0 < reduced.mean() <= lanczos.mean()
    assert reduced.max() <= max(6, lanczos.max())


# --- HEIC


HEIC_HEADER = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.heic", HEIC_HEADER),
        ("photo.jpg", HEIC_HEADER),
        ("photo.jpg", b"\0\0\0\x10ftypheix\0\0\0\0"),
        ("photo.HIF", b"\0\0\0\x10ftypabcd\0\0\0\0"),
    ],
)
def test_a_heic_image_without_pillow_heif_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(content + bytes(100))
    with pytest.raises(ImageError, match=r"pip install 'imgcap\[heif\]'") as caught:
        open_image(tmp_path / name)
    assert caught.value.kind == "unsupported"


def test_what_is_named_heic_and_is_something_else_needs_no_pillow_heif(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "photo.heic").write_bytes(jpeg(plain("RGB", RED)))
    assert close(open_image(tmp_path / "photo.heic"), RED)


@pytest.mark.skipif(not HEIF, reason="needs pillow-heif")
@pytest.mark.parametrize("orientation", STORED)
def test_heic_images_come_upright(orientation: int) -> None:
    found = open_image(heif_bytes(STORED[orientation](corners()), with_orientation(orientation)), at_least=1)
    assert found.size == corners().size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(corners())).mean() < 8


# --- several frames


@pytest.mark.parametrize("name", ["frames.gif", "frames.webp", "frames.tif", "frames.png", "frames.avif"])
def test_the_first_frame_counts(tmp_path: Path, name: str) -> None:
    later = [plain("RGB", (0, 0, 255)), plain("RGB", (0, 255, 0))]
    plain("RGB", RED).save(tmp_path / name, save_all=True, append_images=later)
    with Image.open(tmp_path / name) as opened:
        assert opened.n_frames == 3  # type: ignore[attr-defined]
    assert close(open_image(tmp_path / name), RED, tolerance=6)


# --- colour profiles


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """A profile whose red is sRGB's blue and the other way round."""
    return srgb_profile().replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


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


# --- what cannot be decoded


def noise(name: str, folder: Path, **options: Any) -> bytes:
    """The bytes of a file full of detail, so that half of it is half of the image."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name, **options)
    return (folder / name).read_bytes()


def mutations(content: bytes, count: int) -> Iterable[bytes]:
    random = np.random.default_rng(0)
    for _ in range(count):
        changed = bytearray(content)
        for place in random.integers(0, min(len(changed), 600), random.integers(1, 8)):
            changed[place] = random.integers(256)
        yield bytes(changed[: random.integers(1, len(changed) + 1)] if random.random() < 0.3 else changed)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.avif", "a.tif"])
def test_damage_anywhere_gives_a_image_or_a_sentence_and_no_warning(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {} if name.endswith(("bmp", "gif")) else {"exif": with_orientation(6)}
    refused = 0
    for content in mutations(noise(name, tmp_path, **options), 60):
        (tmp_path / name).write_bytes(content)
        found = load_pixels(tmp_path / name, 8)
        if isinstance(found, ImageError):
            refused += 1
            assert str(found).startswith(str(tmp_path / name))
            assert "\n" not in str(found)
        else:
            assert found.shape == (8, 8, 3)
    assert refused > 0


def raising(error: Exception) -> Callable[[object], Image.Image]:
    def fail(_image: object) -> Image.Image:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("Failed to\ndecode."), "damaged"),
        (struct.error("unpack"), "damaged"),
        (KeyError("x"), "damaged"),
        (IndexError(), "damaged"),
        (OSError("broken data stream"), "damaged"),
        (OSError(5, "Input/output error"), "unreadable"),
        (MemoryError(), "too large"),
    ],
)
def test_whatever_a_decoder_raises_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    file = tmp_path / "image.png"
    plain("RGB", RED).save(file)
    monkeypatch.setattr(Image.Image, "load", raising(error))
    with pytest.raises(ImageError, match=r"image\.png cannot be (decoded|read): [^\n]*[^:. ]\.$") as caught:
        open_image(file)
    assert (caught.value.kind, caught.value.path) == (kind, str(file))


def test_a_damaged_image_that_a_program_has_opened_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "truncated.jpg"
    file.write_bytes(noise("whole.jpg", tmp_path)[:3000])
    with Image.open(file) as opened, pytest.raises(ImageError, match="cannot be decoded") as caught:
        open_image(opened)
    assert caught.value.path == str(file)


def test_a_image_is_read_from_bytes() -> None:
    content = png(8, 2, bytes(RED))
    assert close(open_image(content), RED)
    with pytest.raises(ImageError, match=r"^The image cannot be decoded: ") as caught:
        open_image(content[:-30])
    assert caught.value.path == ""
    for nothing, sentence in (
        (b"", "The image is empty."),
        (b"text", "The image is not an image that can be read."),
    ):
        with pytest.raises(ImageError) as caught:
            open_image(nothing)
        assert str(caught.value) == sentence


# --- too many pixels


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
    """A PNG that has none of the pixels that it promises."""
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


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, name, **options)
    return content.getvalue()


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
    monkeypatch.setattr(images, "MAX_MEMORY", megabytes * 1.1e6)
    open_image(content)
    monkeypatch.setattr(images, "MAX_MEMORY", megabytes * 0.9e6)
    with pytest.raises(ImageError, match="while it is decoded"):
        open_image(content)


def test_a_reduced_jpeg_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_MEMORY", 100_000)
    content = saved(Image.new("RGB", (640, 480)), "JPEG")
    assert open_image(content, at_least=60).size == (80, 60)
    with pytest.raises(ImageError, match="640 x 480"):
        open_image(content)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_a_large_image_is_reduced_part_by_part(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    gradient = Image.linear_gradient("L").resize((250, 150))
    source = gradient if mode in ("I;16", "I", "F") else Image.merge("RGB", [gradient, gradient.rotate(180), gradient])
    content = saved(source.convert(mode), "TIFF" if mode in ("CMYK", "I", "F") else "PNG", exif=with_orientation(6))
    whole = open_image(content)
    monkeypatch.setattr(images, "_LARGE", 10_000)
    monkeypatch.setattr(images, "_TILE_PIXELS", 1000)
    monkeypatch.setattr(images, "_LONG", 100)
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


def test_one_large_image_is_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def watched(image: Image.Image, at_least: int | None = None) -> Image.Image:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        with lock:
            inside -= 1
        return plain("RGB", RED)

    monkeypatch.setattr(images, "to_rgb", watched)
    content = saved(plain("RGB", RED), "PNG")
    list(load_batches([content] * 20, 4))
    assert most == 2
    most = 0
    returned: list[bool] = []
    monkeypatch.setattr(images, "_MUCH_MEMORY", 0)
    monkeypatch.setattr(images, "_return_memory", lambda: returned.append(True))
    list(load_batches([content] * 20, 4))
    assert most == 1
    assert len(returned) == 20


def test_an_error_keeps_nothing_of_the_image(tmp_path: Path) -> None:
    file = tmp_path / "torn.png"
    file.write_bytes(saved(plain("RGB", RED), "PNG")[:45])
    error = load_pixels(file, 8)
    assert isinstance(error, ImageError)
    assert error.__traceback__ is None
    assert error.__context__ is None


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


@pytest.mark.parametrize("name", ["PPM", "ICO", "ICNS", "PCX", "TGA", "DDS", "SGI"])
def test_formats_that_are_not_supported_reach_no_decoder(name: str) -> None:
    with pytest.raises(ImageError, match="is not an image that can be read"):
        open_image(saved(Image.new("RGB", (16, 16), RED), name))


# --- to_rgb and squash


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
    assert open_image(tmp_path / "again.png").tobytes() == once.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (640, 3), (3, 640), (299, 299), (50, 80)])
def test_squash_gives_a_square_of_bytes(shape: tuple[int, int]) -> None:
    pixels = squash(Image.new("RGB", shape, RED), 75)
    assert pixels.shape == (75, 75, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.owndata
    assert pixels.flags.writeable
    assert (pixels == RED).all()


def test_squash_keeps_the_whole_image_and_the_order_of_axes() -> None:
    pixels = squash(corners(), 40)
    assert pixels[5, 5].tolist() == [255, 0, 0]
    assert pixels[5, 35].tolist() == [0, 255, 0]
    assert pixels[35, 5].tolist() == [0, 0, 255]
    assert pixels[35, 35].tolist() == [0, 0, 0]


def test_squash_averages_what_it_shrinks() -> None:
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(squash(Image.fromarray(stripes), 10).astype(int) - 127).max() < 12


# --- batches


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(0, 3, []), (1, 3, [1]), (3, 3, [3]), (7, 3, [3, 3, 1]), (2, 1, [1, 1])]
)
def test_batched_keeps_order_and_shortens_the_last(count: int, size: int, lengths: list[int]) -> None:
    found = list(batched(range(count), size))
    assert [len(batch) for batch in found] == lengths
    assert [item for batch in found for item in batch] == list(range(count))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_load_batches_keeps_order_and_puts_an_error_in_the_place_of_a_bad_file(tmp_path: Path, batch_size: int) -> None:
    sources: list[Path | Image.Image | bytes | ImageError] = []
    for i in range(23):
        file = tmp_path / f"{i}.png"
        Image.new("RGB", (200 if i % 5 == 0 else 5, 5), (i, 0, 0)).save(file)
        sources.append(file)
    sources[4] = Image.new("RGB", (5, 5), (4, 0, 0))
    sources[6] = (tmp_path / "6.png").read_bytes()
    sources[7] = ImageError(f"{tmp_path} holds no images.", path=str(tmp_path))
    sources[8] = tmp_path / "missing.png"
    batches = list(load_batches(sources, 6, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    found = [item for batch in batches for item in batch]
    assert len(found) == len(sources)
    for i, item in enumerate(found):
        if i in (7, 8):
            assert isinstance(item, ImageError)
            assert (item.path, item is sources[i]) == ((str(tmp_path), True) if i == 7 else (str(sources[8]), False))
        else:
            assert isinstance(item, np.ndarray)
            assert item.shape == (6, 6, 3)
            assert (item == (i, 0, 0)).all()


def test_load_batches_reads_only_a_little_ahead() -> None:
    taken = 0

    def sources() -> Iterable[Image.Image]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield plain("RGB", RED)

    batches = load_batches(sources(), 4, 10)
    next(iter(batches))
    assert taken <= 50
    batches.close()  # type: ignore[attr-defined]
