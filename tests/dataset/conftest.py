"""A data set with broken images, and its preparation by a fake encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helpers.data import draw, write_data_set
from helpers.preparation import BATCH, BROKEN, IMAGES, ROWS, FakeEncoder, Prepare, rows_in_a_file
from imgcap.dataset import preparation
from imgcap.dataset.features import FeatureOptions
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.preparation import NamedEncoder, prepare
from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.records import Dataset
from imgcap.model.encoder import Encoder


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BATCH_SIZE", BATCH)
    rows_in_a_file(monkeypatch, ROWS)


@pytest.fixture(scope="module")
def tiny_encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of an encoder for a fingerprint."""
    file = tmp_path_factory.mktemp("tiny-encoder") / "encoder.safetensors"
    save_file({"weight": torch.arange(5.0)}, file)
    return file


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with broken images among its own and one without a caption; read only."""
    folder = tmp_path_factory.mktemp("source")
    write_data_set(folder, IMAGES)
    for number in BROKEN:
        (folder / "images" / f"{number:03}.png").write_bytes(b"no image")
    draw("red", 1).save(folder / "images" / "nameless.png")
    return folder


@pytest.fixture(scope="module")
def dataset(source: Path) -> Dataset:
    return read_dataset(source / "images", source / "captions.csv")


@pytest.fixture
def run(dataset: Dataset, tiny_encoder_file: Path, small_sizes: None) -> Prepare:
    """`run(out, ...)` prepares the data set with a fake encoder."""

    def run(out: Path, data: Dataset = dataset, encoder: Encoder | None = None, **options: Any) -> PreparedFolder:
        wanted = FeatureOptions(options.pop("mirrored", False), options.pop("dtype", "float32"))
        return prepare(data, NamedEncoder("fake", tiny_encoder_file, encoder or FakeEncoder()), out, wanted, **options)

    return run


@pytest.fixture
def whole(run: Prepare, tmp_path: Path) -> Path:
    """The folder of a preparation that nothing interrupted."""
    return run(tmp_path / "whole").root


@pytest.fixture
def other_data(dataset: Dataset) -> Dataset:
    """The same images, one caption changed."""
    first = replace(dataset.records[0], captions=("Quite another wall.",))
    return replace(dataset, records=(first, *dataset.records[1:]))
