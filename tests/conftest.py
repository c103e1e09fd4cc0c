"""Pictures, data sets and models small enough for tests; everything is built here, nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from imgcap.cli import main
from imgcap.datasets import Record, read_dataset
from imgcap.decoder import LSTMDecoder
from imgcap.encoder import Encoder, EncoderConfig, save_encoder
from imgcap.features import PreparedFolder, write_records
from imgcap.inception import InceptionV3
from imgcap.model import load_model_folder, save_decoder
from imgcap.model_store import ENCODER_FILE, write_manifest
from imgcap.preparation import prepare
from imgcap.search import SearchOptions
from imgcap.training import TrainingOptions, train

if TYPE_CHECKING:
    from browser import Browser

torch.set_num_threads(1)  # tiny tensors: more threads only get in each other's way

SHARED_DATA = Path(__file__).parents[2] / "shared" / "flickr8k"
EXAMPLES = Path(__file__).parents[1] / "examples"

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (250, 250, 250)}
SMALLEST_PICTURE = 75
"""Side of the smallest picture that Inception V3 takes; test encoders use it because it is fast."""

TINY_TRAINING = TrainingOptions(
    epochs=2,
    batch_size=8,
    embedding_size=16,
    hidden_size=16,
    min_count=1,
    learning_rate=0.01,
    search=SearchOptions(beam_size=2, max_length=8),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED_DATA.is_dir():
        skip = pytest.mark.skip(reason=f"shared_data: the Flickr8k folder {SHARED_DATA} is not there")
        for item in items:
            if "shared_data" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IMGCAP_CACHE_DIR", str(folder))
    return folder


def draw(colour: str, number: int, size: int = 64) -> Image.Image:
    """A picture of one colour with a stripe whose place is `number`."""
    pixels = np.full((size, size, 3), COLOURS[colour], np.uint8)
    pixels[:, number * 5 % size :][:, :6] = 0
    return Image.fromarray(pixels)


def write_data_set(folder: Path, count: int = 24) -> Path:
    """`count` pictures in `folder`/images and a Kaggle-style CSV with two captions each; returns the CSV."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,caption"]
    for i in range(count):
        colour = list(COLOURS)[i % len(COLOURS)]
        draw(colour, i).save(folder / "images" / f"{i:03}.png")
        lines += [f"{i:03}.png,A {colour} wall .", f'{i:03}.png,"The wall is {colour}, with a stripe."']
    captions = folder / "captions.csv"
    captions.write_text("\n".join(lines) + "\n")
    return captions


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Inception V3 with random weights, for small pictures."""
    torch.manual_seed(0)
    network = InceptionV3(count_padding=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch sets the statistics, without which all features would be alike
    with torch.no_grad():
        network(torch.rand(16, 3, SMALLEST_PICTURE, SMALLEST_PICTURE) * 2 - 1)
    file = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    config = EncoderConfig(pixels=SMALLEST_PICTURE, count_padding=False)
    save_encoder(file, network.state_dict(), config, torch.float16)
    return file


@pytest.fixture(scope="session")
def encoder(encoder_file: Path) -> Encoder:
    return Encoder.load(encoder_file, torch.device("cpu"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, encoder_file: Path, encoder: Encoder) -> PreparedFolder:
    """24 pictures of coloured walls, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    dataset = read_dataset(folder / "images", write_data_set(folder))
    return prepare(dataset, encoder_file, encoder, "test", folder / "prepared")


def with_records(prepared: PreparedFolder, records: Iterable[Record], folder: Path) -> PreparedFolder:
    """A copy of `prepared` in `folder` with other records of the same pictures."""
    shutil.copytree(prepared.root, folder)
    write_records(folder, records)
    return PreparedFolder(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, prepared: PreparedFolder) -> Path:
    """A model that has learnt the coloured walls for two epochs."""
    folder = tmp_path_factory.mktemp("models") / "walls"
    train(prepared, TINY_TRAINING, folder)
    return folder


def write_telling_model(model_folder: Path, prepared: PreparedFolder, folder: Path) -> Path:
    """A model in `folder` whose captions mean nothing, but differ from picture to picture."""
    model = load_model_folder(model_folder, torch.device("cpu"))
    torch.manual_seed(0)
    decoder = LSTMDecoder(model.config.decoder).requires_grad_(False)
    features = torch.from_numpy(prepared.features[list(range(len(prepared.records)))])
    decoder.feature_mean.copy_(features.mean(0))
    decoder.feature_std.copy_(features.std(0) + 1e-30)
    for parameter in decoder.parameters():
        parameter.mul_(4)
    decoder.embedding.weight.mul_(0.1)  # the picture says more than the words before
    size = model.config.decoder.hidden_size
    dict(decoder.lstm.named_parameters())["bias_hh_l0"][size : 2 * size] += 2  # and is not forgotten
    folder.mkdir()
    save_decoder(folder, decoder.state_dict(), model.vocabulary, replace(model.config, name="telling"))
    shutil.copyfile(model.encoder_file, folder / ENCODER_FILE)
    write_manifest(folder)
    return folder


@pytest.fixture(scope="session")
def telling_model(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, prepared: PreparedFolder) -> Path:
    return write_telling_model(model_folder, prepared, tmp_path_factory.mktemp("telling") / "telling")


Run = Callable[..., subprocess.CompletedProcess[str]]

NO_NETWORK = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        os.write(2, b"imgcap used the network: " + event.encode())
        os._exit(99)
sys.addaudithook(refuse)
from imgcap.cli import main
sys.argv[0] = "imgcap"
main()
"""
"""A program that runs the command and dies at the first use of the network."""


@pytest.fixture
def imgcap() -> Run:
    """The installed command: `imgcap("caption", "photo.jpg")` -> the finished process, its output as text.

    With `without_network=True`, any use of a socket ends the process.
    """
    command = Path(sys.executable).with_name("imgcap")

    def run(*arguments: object, without_network: bool = False) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-c", NO_NETWORK] if without_network else [str(command)]
        return subprocess.run(
            [*start, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
            timeout=900,
            check=False,
        )

    return run


@pytest.fixture
def imgcap_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, called like `imgcap`: fast, for what needs no process of its own."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["imgcap", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(command, int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from browser import CHROMIUM, DRIVER, Browser  # here, because few tests need selenium

    if not CHROMIUM or not DRIVER:
        pytest.skip("needs Chromium and its chromedriver")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.requests()
    yield chromium
    chromium.resize(1200, 900)
    chromium.emulate("light")
    assert chromium.driver.get_log("browser") == []
