"""Fixtures that all tests share."""

from __future__ import annotations

import os

# Set before torch loads, here and in the processes that tests start: with tiny tensors, threads only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from imgcap.cli import main
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.preparation import NamedEncoder, prepare
from imgcap.dataset.prepared import PreparedFolder
from imgcap.model.encoder import Encoder, EncoderConfig, save_encoder
from imgcap.model.inception import InceptionV3
from imgcap.training.trainer import train

if TYPE_CHECKING:
    from helpers.browser import Browser

from helpers import forked
from helpers.data import (
    NO_NETWORK,
    SHARED_DATA,
    SMALLEST_IMAGE,
    TINY_TRAINING,
    Run,
    write_data_set,
    write_telling_model,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED_DATA.is_dir():
        skip = pytest.mark.skip(reason=f"shared_data: the Flickr8k folder {SHARED_DATA} is not there")
        for item in items:
            if "shared_data" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def cache() -> Iterator[Path]:
    """An empty user cache for each test. It is removed with the test, for an encoder in it has 40 MB."""
    # Not the test's own monkeypatch: what that has replaced, such as `os.scandir`, must be back before the removal.
    with tempfile.TemporaryDirectory(prefix="imgcap-cache-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCAP_CACHE_DIR", folder)
        yield Path(folder)


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Inception V3 with random weights, for small images."""
    torch.manual_seed(0)
    network = InceptionV3(count_padding=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch sets the statistics, without which all features would be alike
    with torch.no_grad():
        network(torch.rand(16, 3, SMALLEST_IMAGE, SMALLEST_IMAGE) * 2 - 1)
    file = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    config = EncoderConfig(pixels=SMALLEST_IMAGE, count_padding=False)
    save_encoder(file, network.state_dict(), config, torch.float16)
    return file


@pytest.fixture(scope="session")
def encoder(encoder_file: Path) -> Encoder:
    return Encoder.load(encoder_file, torch.device("cpu"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, encoder_file: Path, encoder: Encoder) -> PreparedFolder:
    """24 images of coloured walls, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    dataset = read_dataset(folder / "images", write_data_set(folder))
    return prepare(dataset, NamedEncoder("test", encoder_file, encoder), folder / "prepared")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, prepared: PreparedFolder) -> Path:
    """A model that has learnt the coloured walls for two epochs."""
    folder = tmp_path_factory.mktemp("models") / "walls"
    train(prepared, TINY_TRAINING, folder)
    return folder


@pytest.fixture(scope="session")
def telling_model(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, prepared: PreparedFolder) -> Path:
    return write_telling_model(model_folder, prepared, tmp_path_factory.mktemp("telling") / "telling")


@pytest.fixture
def imgcap(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in a process of its own: `imgcap("caption", "photo.jpg")` -> the finished process, output as text."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return forked.run(forked.imgcap, arguments)

    return run


@pytest.fixture
def imgcap_fresh(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The installed command, started as a user starts it, which takes seconds.

    With `without_network=True`, any use of a socket ends the process.
    """
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object, without_network: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", NO_NETWORK] if without_network else [Path(sys.executable).with_name("imgcap")]
        command = [str(part) for part in (*command, *arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)

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


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from helpers.browser import CHROMIUM, DRIVER, Browser  # here, because few tests need selenium

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
    chromium.touch(False)
    assert chromium.driver.get_log("browser") == []  # type: ignore[no-untyped-call]
