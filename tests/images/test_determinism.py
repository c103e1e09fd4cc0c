"""Equal images get equal features and captions, in batches of any size, on any number of threads and workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.data import EXAMPLES, SMALLEST_IMAGE, Run, draw
from imgcap import load_model
from imgcap.captioning.captioner import Captioner
from imgcap.images.decoding import load_batches
from imgcap.model.encoder import FLOAT32, INT8, Encoder
from imgcap.model.quantization import is_supported

TOLERANCE = 1e-5
"""Of features, in parts of the largest one."""
FIGURES = 0.0011
"""Of confidences and logarithms of probabilities in rows, which have three digits: 1 in the last."""
WAYS = [(1, 1), (3, 1), (8, 2), (1, 2)]
"""Images in a batch, and threads."""

precisions = pytest.mark.parametrize(
    "precision",
    [
        FLOAT32,
        pytest.param(INT8, marks=pytest.mark.skipif(not is_supported(), reason="this processor has no VNNI")),
    ],
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restore the number of threads after each test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 11 photographs and walls, so that the last batch is smaller."""
    folder = tmp_path_factory.mktemp("images")
    for file in EXAMPLES.glob("*.jpg"):
        (folder / file.name).write_bytes(file.read_bytes())
    for number, colour in enumerate(["red", "green", "blue", "white", "red"]):
        draw(colour, number).save(folder / f"wall{number}.png")
    return folder


@precisions
def test_features_are_equal_in_batches_of_any_size_on_any_number_of_threads(
    encoder_file: Path, images: Path, precision: str
) -> None:
    encoder = Encoder.load(encoder_file, torch.device("cpu"), precision=precision)
    [pixels] = load_batches(sorted(images.iterdir()), SMALLEST_IMAGE, 11)
    expected = encoder(pixels)  # type: ignore[arg-type]
    assert len({row.numpy().tobytes() for row in expected}) == 11
    for size, threads in WAYS:
        torch.set_num_threads(threads)
        found = torch.cat([encoder(pixels[i : i + size]) for i in range(0, 11, size)])  # type: ignore[arg-type]
        assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max(), (size, threads)


def test_pixels_are_equal_with_any_number_of_workers(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(images.iterdir())
    found = []
    for workers, size in [(1, 11), (2, 1), (5, 3)]:
        monkeypatch.setattr("imgcap.images.decoding._DECODING_THREADS", workers)
        batches = load_batches(files, SMALLEST_IMAGE, size)
        found.append([pixels.tobytes() for batch in batches for pixels in batch])  # type: ignore[union-attr]
    assert len(set(found[0])) == 11
    assert found[0] == found[1] == found[2]


def same(row: Any, other: Any) -> bool:
    """Whether two JSON values differ by no more than the last digit of their figures."""
    if isinstance(row, dict):
        return isinstance(other, dict) and row.keys() == other.keys() and all(same(row[k], other[k]) for k in row)
    if isinstance(row, list):
        return isinstance(other, list) and len(row) == len(other) and all(map(same, row, other))
    if isinstance(row, float):
        return isinstance(other, float) and abs(row - other) <= FIGURES
    return bool(row == other)


@precisions
@pytest.mark.parametrize("options", [["--words", "-n", "2"], ["--sample", "--seed", "7", "-n", "3"]], ids=" ".join)
def test_rows_are_equal_in_batches_of_any_size_on_any_number_of_threads(
    imgcap_here: Run, images: Path, telling_model: Path, precision: str, options: list[str]
) -> None:
    def rows(size: int, threads: int) -> list[dict[str, Any]]:
        torch.set_num_threads(threads)
        how = ["--model", telling_model, "--precision", precision, "-f", "jsonl", "--batch-size", size]
        done = imgcap_here("caption", images, *how, *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    first, *others = [rows(*way) for way in WAYS[:3]]
    assert len({row["caption"] for row in first}) > 3
    assert all(same(first, other) for other in others)


@pytest.fixture(scope="module")
def captioner(telling_model: Path) -> Captioner:
    return load_model(telling_model, device="cpu")


def test_samples_follow_from_the_seed_and_the_image_alone(captioner: Captioner, images: Path) -> None:
    def samples(files: list[Path], seed: int) -> dict[str, str]:
        options = replace(captioner.model.config.search, sample=True, seed=seed)
        return {str(caption.path): caption.text for caption in captioner.caption(files, options)}

    files = sorted(images.iterdir())
    seven = samples(files, 7)
    assert samples(files[::-1], 7) == seven
    assert samples(files[4:5], 7).items() <= seven.items()
    assert samples(files, 8) != seven
