"""A folder with one image of every kind, and one file of every kind of damage: `good, bad = build_zoo(folder)`."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

from helpers.image_bytes import (
    ARITHMETIC_JPEG,
    chunk,
    cmyk_profile,
    grey_profile,
    interlaced_png,
    png,
    scan_bomb,
    swapped_profile,
    tiff,
    without_segment,
)

Colour = tuple[int, int, int]
RED, BLUE, WHITE, BLACK, PINK, GREY = (255, 0, 0), (0, 0, 255), (255,) * 3, (0,) * 3, (255, 127, 127), (100,) * 3
SIZE = (6, 4)
HEIF = find_spec("pillow_heif") is not None


@dataclass(frozen=True)
class Good:
    """An image of one colour."""

    colour: Colour
    size: tuple[int, int] = SIZE
    tolerance: int = 3
    found: bool = True
    """Whether a search of the folder finds it; if not, it can still be given by name."""


@dataclass(frozen=True)
class Bad:
    """A file that is not a whole image, and the kind of its error."""

    kind: str
    found: bool = True


def build_zoo(folder: Path) -> tuple[dict[str, Good], dict[str, Bad]]:
    """Fill the empty `folder`. Returns the good and the bad files by their paths inside the folder.

    Some of the bad files do not exist. Both leave out what the system or Pillow cannot make.
    """
    good = {name: expected for name, content, expected in _good_images() if _write(folder / name, content)}
    bad = {name: Bad(kind) for name, content, kind in _bad_images() if _write(folder / name, content)}
    _add_folders_links_and_devices(folder, good, bad)
    return good, bad


def _write(file: Path, content: bytes) -> bool:
    """Write a file. Returns whether the file system allows its name."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except (OSError, ValueError):
        return False
    return True


def _add_folders_links_and_devices(folder: Path, good: dict[str, Good], bad: dict[str, Bad]) -> None:
    red = _save(_plain("RGB", RED), "PNG")
    for name in (".hidden.png", ".hidden/in-hidden.png", "outside-of-links/target.png"):
        _write(folder / name, red)
        good[name] = Good(RED, found=not name.startswith("."))
    (folder / "a-folder.jpg").mkdir()
    bad["a-folder.jpg"] = Bad("not an image", found=False)
    (folder / "empty").mkdir()
    bad["empty"] = Bad("not an image", found=False)  # as an image; searched, it is an empty folder
    bad["missing.jpg"] = Bad("missing", found=False)
    bad["x" * 300 + ".jpg"] = Bad("unreadable", found=False)
    bad["plain.jpg/inside-a-file.jpg"] = Bad("unreadable", found=False)
    if os.name != "posix":
        return
    (folder / "link.png").symlink_to("outside-of-links/target.png")
    good["link.png"] = Good(RED)
    (folder / "link-to-folder").symlink_to("outside-of-links", target_is_directory=True)
    good["link-to-folder/target.png"] = Good(RED, found=False)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    good["loop/loop/link.png"] = Good(RED, found=False)
    (folder / "link-to-nothing.jpg").symlink_to("nothing.jpg")
    bad["link-to-nothing.jpg"] = Bad("missing")
    (folder / "link-to-itself.jpg").symlink_to("link-to-itself.jpg")
    bad["link-to-itself.jpg"] = Bad("unreadable")
    os.mkfifo(folder / "pipe.jpg")
    bad["pipe.jpg"] = Bad("not an image", found=False)
    (folder / "link-to-device.jpg").symlink_to("/dev/zero")
    bad["link-to-device.jpg"] = Bad("not an image", found=False)
    if os.geteuid():  # root reads everything
        _write(folder / "forbidden.jpg", red)
        (folder / "forbidden.jpg").chmod(0)
        bad["forbidden.jpg"] = Bad("unreadable")


def _plain(mode: str, colour: float | tuple[int, ...], size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.new(mode, size, colour)


def _grey(value: float, kind: str) -> Image.Image:
    return Image.fromarray(np.full(SIZE[::-1], value, kind))


def _palette(mode: str = "P", colour: int | tuple[int, int] = 1) -> Image.Image:
    image = Image.new(mode, SIZE, colour)
    image.putpalette([0, 0, 255, 255, 0, 0])
    return image


def _save(image: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def _good_images() -> list[tuple[str, bytes, Good]]:
    return [*_jpegs(), *_pngs(), *_tiffs(), *_other_formats(), *_names()]


def _jpegs() -> list[tuple[str, bytes, Good]]:
    red, cmyk = _plain("RGB", RED), _plain("CMYK", (0, 255, 255, 0))
    jpeg = _save(red, "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        ("plain.jpg", jpeg, Good(RED)),
        ("progressive.jpg", _save(red, "JPEG", progressive=True), Good(RED)),
        ("arithmetic.jpg", base64.b85decode(ARITHMETIC_JPEG), Good(RED)),
        ("full-chroma.jpeg", _save(red, "JPEG", quality=100, subsampling=0), Good(RED)),
        ("restart-markers.jpe", _save(red, "JPEG", restart_marker_blocks=1), Good(RED)),
        ("stored-as-rgb.jfif", _save(red, "JPEG", keep_rgb=True), Good(RED)),
        ("grey.jpg", _save(_plain("L", 100), "JPEG"), Good(GREY)),
        ("grey-with-grey-profile.jpg", _save(_plain("L", 55), "JPEG", icc_profile=grey_profile()), Good((128,) * 3)),
        ("grey-with-rgb-profile.jpg", _save(_plain("L", 100), "JPEG", icc_profile=swapped_profile()), Good(GREY)),
        ("cmyk.jpg", _save(cmyk, "JPEG"), Good(RED)),
        ("cmyk-without-adobe-marker.jpg", without_segment(_save(cmyk, "JPEG"), b"\xff\xee"), Good(RED)),
        ("cmyk-with-profile.jpg", _save(cmyk, "JPEG", icc_profile=cmyk_profile()), Good((119,) * 3)),
        ("cmyk-with-rgb-profile.jpg", _save(cmyk, "JPEG", icc_profile=swapped_profile()), Good(RED)),
        ("profile.jpg", _save(red, "JPEG", icc_profile=swapped_profile()), Good(BLUE)),
        ("broken-profile.jpg", _save(red, "JPEG", icc_profile=b"no profile"), Good(RED)),
        ("turned.jpg", _save(red, "JPEG", exif=turned), Good(RED, (4, 6))),
        ("broken-exif.jpg", _save(red, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), Good(RED)),
        ("trailing-garbage.jpg", jpeg + b"\0garbage" * 1000, Good(RED)),
        ("comment.jpg", _save(red, "JPEG", comment=b"\xff\n\0<b>" * 100), Good(RED)),
        ("two-images.jpg", _save(red, "MPO", save_all=True, append_images=[_plain("RGB", BLUE)]), Good(RED)),
        ("reduced.jpg", _save(_plain("RGB", RED, (1600, 1200)), "JPEG", exif=turned), Good(RED, (1200, 1600))),
        ("really-a-jpeg.png", jpeg, Good(RED)),
    ]


def _pngs() -> list[tuple[str, bytes, Good]]:
    red = _plain("RGB", RED)
    blue = [_plain("RGB", BLUE)]
    text = chunk(b"tEXt", b"Comment\0" + b"long " * 500_000)
    return [
        ("1.png", _save(_plain("1", 1), "PNG"), Good(WHITE)),
        ("l.png", _save(_plain("L", 100), "PNG"), Good(GREY)),
        ("la.png", _save(_plain("LA", (0, 128)), "PNG"), Good((127,) * 3)),
        (
            "la-with-grey-profile.png",
            _save(_plain("LA", (55, 255)), "PNG", icc_profile=grey_profile()),
            Good((128,) * 3),
        ),
        ("p.png", _save(_palette(), "PNG"), Good(RED)),
        ("p-transparent.png", _save(_palette(), "PNG", transparency=bytes([255, 128])), Good(PINK)),
        ("rgb-transparent.png", _save(red, "PNG", transparency=RED), Good(WHITE)),
        ("l-transparent.png", _save(_plain("L", 100), "PNG", transparency=100), Good(WHITE)),
        ("rgba.png", _save(_plain("RGBA", (*RED, 128)), "PNG"), Good(PINK)),
        ("i16.png", _save(_grey(32768, "uint16"), "PNG"), Good((128,) * 3)),
        ("rgb16.png", png(16, 2, struct.pack(">3H", 65535, 32768, 0)), Good((255, 128, 0))),
        ("rgb16-transparent.png", png(16, 2, b"\xff\xff\x80\0\0\0", b"\xff\xff\x80\0\0\0"), Good(WHITE)),
        ("i16-transparent.png", png(16, 0, b"\x12\x34", b"\x12\x34"), Good(WHITE)),
        ("grey4-transparent.png", png(4, 0, b"\x88" * 3, b"\0\x08"), Good(WHITE)),
        ("grey2-other-transparent.png", png(2, 0, b"\xaa" * 2, b"\0\x01"), Good((170,) * 3)),
        ("interlaced.png", interlaced_png(), Good(RED, (8, 8))),
        ("gamma.png", png(8, 2, bytes(RED), other=chunk(b"gAMA", struct.pack(">I", 100_000))), Good(RED)),
        ("long-text.png", png(8, 2, bytes(RED), other=text), Good(RED)),
        ("profile.png", _save(red, "PNG", icc_profile=swapped_profile()), Good(BLUE)),
        ("animated.png", _save(red, "PNG", save_all=True, append_images=blue), Good(RED)),
        ("one-pixel.png", _save(_plain("RGB", RED, (1, 1)), "PNG"), Good(RED, (1, 1))),
        ("wide.png", _save(_plain("RGB", RED, (20_000, 10)), "PNG"), Good(RED, (20_000, 10))),
        ("tall.png", _save(_plain("RGB", RED, (10, 20_000)), "PNG"), Good(RED, (10, 20_000))),
        ("really-a-png.jpg", _save(red, "PNG"), Good(RED)),
    ]


def _tiffs() -> list[tuple[str, bytes, Good]]:
    red = _plain("RGB", RED)
    later = [_plain("RGB", BLUE), _plain("L", 3)]
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        ("plain.tif", _save(red, "TIFF"), Good(RED)),
        ("lzw.tiff", _save(red, "TIFF", compression="tiff_lzw"), Good(RED)),
        ("deflate.tif", _save(red, "TIFF", compression="tiff_adobe_deflate"), Good(RED)),
        ("jpeg.tif", _save(_plain("RGB", RED, (16, 16)), "TIFF", compression="jpeg"), Good(RED, (16, 16), 8)),
        ("fax.tif", _save(_plain("1", 0), "TIFF", compression="group4"), Good(BLACK)),
        ("turned.tif", _save(red, "TIFF", exif=turned), Good(RED, (4, 6))),
        ("frames.tif", _save(red, "TIFF", save_all=True, append_images=later), Good(RED)),
        ("rgb16.tif", tiff(16, 3, 2, struct.pack("<3H", 65535, 32768, 0)), Good((255, 128, 0))),
        ("i16.tif", _save(_grey(32768, "uint16"), "TIFF"), Good((128,) * 3)),
        ("white-is-zero.tif", tiff(8, 1, 0, b"\0"), Good(WHITE)),
        ("float.tif", _save(_grey(0.5, "float32"), "TIFF"), Good((128,) * 3)),
        ("cmyk.tif", _save(_plain("CMYK", (0, 255, 255, 0)), "TIFF"), Good(RED)),
        (
            "cmyk-with-profile.tif",
            _save(_plain("CMYK", (0, 255, 255, 0)), "TIFF", icc_profile=cmyk_profile()),
            Good((119,) * 3),
        ),
        ("lab.tif", _save(lab, "TIFF"), Good((251, 5, 4))),
        ("ycbcr.tif", _save(red.convert("YCbCr"), "TIFF"), Good(RED)),
        ("rgba.tif", _save(_plain("RGBA", (*RED, 0)), "TIFF"), Good(WHITE)),
        ("pa.tif", _save(_palette("PA", (1, 128)), "TIFF"), Good(PINK)),
    ]


def _other_formats() -> list[tuple[str, bytes, Good]]:
    red, clear = _plain("RGB", RED), _plain("RGBA", (*RED, 128))
    blue = [_plain("RGB", BLUE)]
    images = [
        ("plain.webp", _save(red, "WEBP"), Good(RED)),
        ("lossless.webp", _save(clear, "WEBP", lossless=True), Good(PINK)),
        ("animated.webp", _save(red, "WEBP", save_all=True, append_images=blue), Good(RED)),
        ("plain.gif", _save(_palette(), "GIF"), Good(RED)),
        ("transparent.gif", _save(_palette(), "GIF", transparency=1), Good(WHITE)),
        ("animated.gif", _save(red, "GIF", save_all=True, append_images=blue), Good(RED)),
        ("plain.bmp", _save(red, "BMP"), Good(RED)),
        ("1.bmp", _save(_plain("1", 1), "BMP"), Good(WHITE)),
        ("no-suffix", _save(red, "PNG"), Good(RED, found=False)),
    ]
    if features.check("avif"):
        images.append(("plain.avif", _save(red, "AVIF"), Good(RED)))
        images.append(("transparent.avif", _save(clear, "AVIF"), Good(PINK, tolerance=5)))
    if HEIF:
        heic = heif_bytes(_plain("RGB", RED, (64, 48)))
        images += [(name, heic, Good(RED, (64, 48), 5)) for name in ("plain.heic", "plain.HIF", "really-a-heic.jpg")]
        images.append(("really-a-jpeg.heic", _save(red, "JPEG"), Good(RED)))
    return images


def heif_bytes(image: Image.Image, exif: Image.Exif | None = None) -> bytes:
    """A HEIC file, made without registering the format in Pillow; `exif` may hold an orientation."""
    import pillow_heif

    heif, file = pillow_heif.from_pillow(image), io.BytesIO()
    if exif:
        heif.info["exif"] = exif.tobytes()
    heif.save(file)
    return file.getvalue()


def _names() -> list[tuple[str, bytes, Good]]:
    names = [
        "UPPER.PNG",
        "with space.png",
        "-rf.png",
        "new\nline\tand\x1b[31mcolour.png",
        "<img src=x onerror=alert(1)>&amp;\"'.png",
        "ünïcödé 图片 🐈.png",
        "$(touch x)`;*?[].png",
        "%41{}{{0}}.png",
        os.fsdecode(b"not-\xff\xfe-utf-8.png"),
        "long" + "x" * 247 + ".png",
        "sub-folder/deep/er/plain.png",
    ]
    red = _save(_plain("RGB", RED), "PNG")
    return [(name, red, Good(RED)) for name in names]


def _bad_images() -> list[tuple[str, bytes, str]]:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    noise = Image.fromarray(pixels)  # full of detail, so that half of the file is half of the image
    whole = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "bmp": "BMP"}
    if features.check("avif"):
        whole["avif"] = "AVIF"
    files: dict[str, bytes] = {suffix: _save(noise, name) for suffix, name in whole.items()}
    if HEIF:
        files["heic"] = heif_bytes(noise)
    truncated = [(f"truncated.{suffix}", file[: len(file) // 2], "damaged") for suffix, file in files.items()]
    begun = [(f"begun.{suffix}", files[suffix][:40], "damaged") for suffix in ("jpg", "png", "gif", "tif")]
    checksum = bytearray(files["png"])
    checksum[checksum.index(b"IDAT") + 10] ^= 255
    lying_bmp = bytearray(files["bmp"])
    lying_bmp[18:26] = struct.pack("<2i", 5000, 5000)
    compressed_bmp = bytearray(files["bmp"])
    compressed_bmp[30:34] = struct.pack("<I", 77)
    lzw = _save(noise, "TIFF", compression="tiff_lzw")
    text_bomb = b"Comment\0\0" + zlib.compress(bytes(10_000_000))

    def gif(screen: tuple[int, int], *frame: int) -> bytes:
        content = b"," + struct.pack("<4H", *frame) + b"\0\2\0" if frame else b""
        return b"GIF89a" + struct.pack("<2H", *screen) + b"\0\0\0" + content + b";"

    return [
        *truncated,
        *begun,
        ("truncated-lzw.tif", lzw[: len(lzw) // 2], "damaged"),
        ("empty.jpg", b"", "damaged"),
        ("zeros.jpg", bytes(10_000), "not an image"),
        ("text.jpg", b"This is not an image.\n", "not an image"),
        ("text.heic", b"This is not an image.\n", "not an image"),
        ("page.png", b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
        ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
        ("document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not an image"),
        ("film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100), "not an image"),
        ("sound.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "not an image"),
        ("headless.jpg", files["jpg"][20:], "not an image"),
        (
            "postscript.jpg",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "unsupported",
        ),
        ("checksum.png", bytes(checksum), "damaged"),
        ("no-pixels.png", png(8, 2, b""), "damaged"),
        ("bomb.png", png(1, 0, b"\0", size=(60_000, 60_000)), "too large"),
        ("bomb.gif", gif((65_535, 65_535), 0, 0, 1, 1), "too large"),
        ("bomb-frame.gif", gif(SIZE, 0, 0, 65_535, 65_535), "too large"),
        ("bomb.tif", tiff(8, 3, 2, b"\0\0\0", size=(60_000, 60_000)), "too large"),
        ("bomb.bmp", files["bmp"][:18] + struct.pack("<2i", 60_000, 60_000) + files["bmp"][26:], "too large"),
        ("text-bomb.png", png(8, 2, bytes(RED), other=chunk(b"zTXt", text_bomb)), "damaged"),
        ("scan-bomb.jpg", scan_bomb(scans=101), "damaged"),
        ("damaged-lzw.tif", lzw[:100] + b"\xff" * 100 + lzw[200:], "damaged"),
        ("no-frames.gif", gif(SIZE), "damaged"),
        ("lying.bmp", bytes(lying_bmp), "damaged"),
        ("compressed.bmp", bytes(compressed_bmp), "damaged"),
        ("new\nline.jpg", b"nothing\n", "not an image"),
        (os.fsdecode(b"not-\xff-utf-8.jpg"), b"nothing\n", "not an image"),
    ]
