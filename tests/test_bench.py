"""`imgcap bench`: figures of the right things, in the right units."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers.data import Run
from imgcap import bench
from imgcap.captioning.captioner import load_model
from imgcap.errors import ImgcapError
from imgcap.model.quantization import is_supported


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "BATCH_SIZES": (1, 2),
        "SECONDS": 0.01,
        "STARTS": 1,
        "PHOTOGRAPHS": 3,
        "PHOTOGRAPH_SIZE": (160, 120),
    }.items():
        monkeypatch.setattr(bench, name, value)


def test_the_command_prints_each_figure_with_its_unit(imgcap_here: Run, model_folder: Path) -> None:
    done = imgcap_here("bench", "--model", model_folder, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(figure["name"], figure["unit"]) for figure in found["figures"]] == [
        ("encoder, batches of 1", "images/s"),
        ("encoder, batches of 2", "images/s"),
        *([("encoder in int8, batches of 2", "images/s")] if is_supported() else []),
        ("torch alone, import", "s"),
        ("imgcap caption, one photograph", "s"),
        ("folder of 3 photographs of 0 megapixels", "images/s"),
    ]
    figures = {figure["name"]: figure["value"] for figure in found["figures"]}
    assert all(value > 0 for value in figures.values())
    assert figures["imgcap caption, one photograph"] > 0.5 * figures["torch alone, import"]
    assert "torch" in found["machine"]


def test_the_table_names_the_machine(imgcap_here: Run, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_fastest", lambda command: 1.25)
    done = imgcap_here("bench", "--model", model_folder)
    assert done.returncode == 0, done.stderr
    assert "torch alone, import" in done.stdout
    assert re.search(r"torch alone, import +1\.25 +s", done.stdout)
    assert bench.machine(1).split(", ")[0] in done.stdout


def test_an_unknown_model_is_one_sentence(imgcap_here: Run) -> None:
    done = imgcap_here("bench", "--model", "barns")
    assert done.returncode == 1
    assert "There is no model 'barns'" in done.stderr


def test_the_rate_is_in_images_a_second(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = load_model(model_folder, "cpu")
    calls = []

    def encode(pixels: list[object]) -> list[object]:
        calls.append(len(pixels))
        time.sleep(0.02)
        return pixels

    encode.config = captioner.encoder.config  # type: ignore[attr-defined]
    captioner.encoder = encode  # type: ignore[assignment]
    assert 100 < bench.encoder_rate(captioner, 4, seconds=0.1) <= 200
    assert set(calls) == {4}
    assert len(calls) > 2


def test_a_photograph_is_a_jpeg_of_its_size_and_seed(tmp_path: Path) -> None:
    one, same, other = (
        bench.draw_photograph(tmp_path / f"{i}.jpg", seed, (200, 150)) for i, seed in enumerate((1, 1, 2))
    )
    with Image.open(one) as image:
        assert (image.format, image.size) == ("JPEG", (200, 150))
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_a_command_that_fails_is_not_a_figure() -> None:
    with pytest.raises(ImgcapError, match="failed: nothing works"):
        bench._fastest([sys.executable, "-c", "import sys; sys.exit('nothing works')"])
