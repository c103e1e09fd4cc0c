"""`imgcap bench`: the right figures in the right units."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers.data import Run
from imgcap import bench
from imgcap.captioning.captioner import load_model
from imgcap.errors import ImgcapError
from imgcap.model.encoder import automatic_precision
from imgcap.model.inception import InceptionV3
from imgcap.model.quantization import is_supported


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "BATCH_SIZES": (1, 2),
        "SECONDS": 0.01,
        "STARTS": 1,
        "PHOTOGRAPHS": 3,
        "PHOTOGRAPH_SIZE": (160, 120),
        "MATRIX": 32,
    }.items():
        monkeypatch.setattr(bench, name, value)


def test_the_command_prints_each_figure_with_its_unit(imgcap_here: Run, model_folder: Path) -> None:
    done = imgcap_here("bench", "--model", model_folder, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(figure["name"], figure["unit"]) for figure in found["figures"]] == [
        *(
            (name, unit)
            for size in (1, 2)
            for name, unit in (
                (f"encoder, batches of {size}", "images/s"),
                (f"encoder / plain torchvision, batches of {size}", "times"),
                (f"encoder / torch.mm, batches of {size}", "of its multiply-adds/s"),
            )
        ),
        *((f"encoder in int8, batches of {size}", "images/s") for size in (1, 2) if is_supported()),
        ("torch alone, import", "s"),
        ("imgcap caption, one photograph", "s"),
        ("folder of 3 photographs of 0 megapixels", "images/s"),
    ]
    figures = {figure["name"]: figure["value"] for figure in found["figures"]}
    assert all(value > 0 for value in figures.values())
    assert figures["imgcap caption, one photograph"] > 0.5 * figures["torch alone, import"]
    assert "torch" in found["machine"]
    assert found["auto_precision"] == ("int8" if is_supported() else "float32")


def test_the_table_names_the_machine(imgcap_here: Run, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_fastest", lambda command: 1.25)
    done = imgcap_here("bench", "--model", model_folder)
    assert done.returncode == 0, done.stderr
    assert "torch alone, import" in done.stdout
    assert re.search(r"torch alone, import +1\.25 +s", done.stdout)
    assert bench.machine(1).split(", ")[0] in done.stdout
    precision, why = automatic_precision(torch.device("cpu"))
    assert f"--precision auto chooses {precision} here, because {why}." in " ".join(done.stdout.split())


def test_an_unknown_model_is_one_sentence(imgcap_here: Run) -> None:
    done = imgcap_here("bench", "--model", "barns")
    assert done.returncode == 1
    assert "There is no model 'barns'" in done.stderr


def test_the_rate_is_in_images_per_second(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_model(model_folder, "cpu").encoder
    calls = []

    def encode(pixels: list[object]) -> list[object]:
        calls.append(len(pixels))
        time.sleep(0.02)
        return pixels

    encode.config = encoder.config  # type: ignore[attr-defined]
    assert 100 < bench.encoder_rate(encode, 4, seconds=0.1) <= 200  # type: ignore[arg-type]
    assert set(calls) == {4}
    assert len(calls) > 2


def test_a_photograph_is_a_jpeg_of_its_size_and_seed(tmp_path: Path) -> None:
    one, same, other = (
        bench.draw_photograph(tmp_path / f"{i}.jpg", seed, (200, 150)) for i, seed in enumerate((1, 1, 2))
    )
    with Image.open(one) as image:
        assert (image.format, image.size) == ("JPEG", (200, 150))
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_multiply_adds_are_those_of_all_convolutions() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 1, bias=False))
    assert bench.multiply_adds(network, 10) == 8 * 8 * (4 * 3 * 9 + 5 * 4)
    assert bench.multiply_adds(InceptionV3(count_padding=True), 299) == 5_711_168_096  # as in docs/performance.md


def test_calls_take_turns_of_equal_length_and_the_fastest_turn_counts() -> None:
    order: list[str] = []

    def sleep(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    calls: dict[str, Callable[[], object]] = {"slow": partial(sleep, "slow", 0.1), "fast": partial(sleep, "fast", 0.02)}
    fastest = bench.fastest_in_turns(calls, 0.3)
    assert order[:4] == ["slow", "fast", "slow", "fast"]  # to warm up, and to find the number of repeats
    turns = [list(turn) for _, turn in groupby(order[4:])]
    assert len(turns) >= 4
    assert {turn[0] for turn in turns[::2]} == {"slow"}
    assert {len(turn) for turn in turns[::2]} == {1}
    assert {len(turn) for turn in turns[1::2]} <= {3, 4, 5}
    assert fastest["slow"] >= 0.1 > fastest["fast"] >= 0.02


def test_without_torchvision_there_is_nothing_to_compare_with(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_module: str) -> None:
        raise ModuleNotFoundError("No module named 'torchvision'")

    monkeypatch.setattr(bench, "import_torchvision", fail)
    figures = list(bench.measure_encoder(load_model(model_folder, "cpu")))
    assert [figure.name for figure in figures] == ["encoder, batches of 1", "encoder, batches of 2"]


def test_a_command_that_fails_is_not_a_figure() -> None:
    with pytest.raises(ImgcapError, match="failed: nothing works"):
        bench._fastest([sys.executable, "-c", "import sys; sys.exit('nothing works')"])
