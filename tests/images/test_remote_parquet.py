"""Parquet files of a data set on Hugging Face, from a stand-in for its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.archives import png
from helpers.data import COLOURS, Run
from helpers.hub import hub
from helpers.parquet import image, write_parquet
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
FILES = ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three Parquet files of four walls each, in a folder beside another file."""
    folder = tmp_path / "walls"
    for shift, name in enumerate(FILES):
        images = [image(png(colour, shift), f"{shift}-{colour}.png") for colour in COLOURS]
        captions = [[f"a {colour} wall", f"the wall is {colour}"] for colour in COLOURS]
        write_parquet(folder / "data" / f"{name}.parquet", {"image": images, "captions": captions})
    (folder / "README.md").write_text("walls")
    return folder


@pytest.fixture(autouse=True)
def server(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with hub(data) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        yield


def test_a_data_set_on_hugging_face_is_prepared_as_its_files_are(
    imgcap: Run, data: Path, encoder_file: Path, tmp_path: Path
) -> None:
    for images, out in ((data / "data", "local"), ("hf://datasets/somebody/walls", "remote")):
        done = imgcap("prepare", "--images", images, "--encoder", encoder_file, "-o", tmp_path / out)
        assert done.returncode == ExitCode.DONE, done.stderr
        assert "12 images (train 8, val 4) with 24 captions" in done.stderr
    local, remote = (PreparedFolder(tmp_path / out) for out in ("local", "remote"))
    assert list(remote.records) == list(local.records)
    rows = list(range(12))
    assert remote.features[rows].tobytes() == local.features[rows].tobytes()
    assert remote.metadata.image_root == "hf://datasets/somebody/walls/data"
    assert remote.metadata.archives == [f"{name}.parquet" for name in FILES]


def test_images_on_hugging_face_are_captioned(imgcap: Run, telling_model: Path) -> None:
    file = f"hf://datasets/somebody/walls/data/{FILES[2]}.parquet"
    done = imgcap("caption", file, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [
        f"{file}/2-{name}.png" for name in COLOURS
    ]


def test_a_data_set_that_is_not_there_is_one_sentence(imgcap: Run, encoder_file: Path, tmp_path: Path) -> None:
    url = "hf://datasets/somebody/doors"
    done = imgcap("prepare", "--images", url, "--encoder", encoder_file, "-o", tmp_path / "out")
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == f"imgcap: No archive matches {url}/**/*.parquet.\n"
