"""Images, decoded from files, archives and bytes, one or many."""

from __future__ import annotations

import io
import struct
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.colours import RED, close, corners, jpeg, plain, plain_of, raising, saved, with_orientation
from helpers.data import EXAMPLES
from helpers.image_bytes import png
from imgcap.images import decoding
from imgcap.images.decoding import batched, load_batches, load_pixels, open_image, squash
from imgcap.images.errors import ImageError


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
    with pytest.raises(ImageError, match=r"pip install pillow-heif") as caught:
        open_image(tmp_path / name)
    assert caught.value.kind == "unsupported"


def test_what_is_named_heic_and_is_something_else_needs_no_pillow_heif(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "photo.heic").write_bytes(jpeg(plain("RGB", RED)))
    assert close(open_image(tmp_path / "photo.heic"), RED)


@pytest.mark.parametrize("name", ["frames.gif", "frames.webp", "frames.tif", "frames.png", "frames.avif"])
def test_the_first_frame_counts(tmp_path: Path, name: str) -> None:
    later = [plain("RGB", (0, 0, 255)), plain("RGB", (0, 255, 0))]
    plain("RGB", RED).save(tmp_path / name, save_all=True, append_images=later)
    with Image.open(tmp_path / name) as opened:
        assert getattr(opened, "n_frames", 1) == 3
    assert close(open_image(tmp_path / name), RED, tolerance=6)


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
def test_damage_anywhere_gives_an_image_or_a_sentence_and_no_warning(tmp_path: Path, name: str) -> None:
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


def test_an_image_is_read_from_bytes() -> None:
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

    monkeypatch.setattr(decoding, "to_rgb", watched)
    content = saved(plain("RGB", RED), "PNG")
    list(load_batches([content] * 20, 4))
    assert most == 2
    most = 0
    returned: list[bool] = []
    monkeypatch.setattr(decoding, "_MUCH_MEMORY", 0)
    monkeypatch.setattr(decoding, "_return_memory", lambda: returned.append(True))
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


@pytest.mark.parametrize("name", ["PPM", "ICO", "ICNS", "PCX", "TGA", "DDS", "SGI"])
def test_formats_that_are_not_supported_reach_no_decoder(name: str) -> None:
    with pytest.raises(ImageError, match="is not an image that can be read"):
        open_image(saved(Image.new("RGB", (16, 16), RED), name))


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
