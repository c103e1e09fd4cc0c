"""Preparing features: what ends up on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageOps

from helpers.data import draw
from helpers.preparation import BROKEN, IMAGES, SIDE, FakeEncoder, NoEncoder, Prepare, content
from imgcap.dataset.features import FeatureOptions
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.prepared import FEATURES_FOLDER, LEFT_OUT_FILE, METADATA_FILE, RECORDS_FILE, PreparedFolder
from imgcap.dataset.records import Dataset
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.decoding import open_image, squash
from imgcap.model.encoder import Encoder
from imgcap.model.store import ENCODER_FILE


def test_features_are_what_the_encoder_computes(prepared: PreparedFolder, encoder: Encoder) -> None:
    assert len(prepared.records) == len(prepared.features) == 24
    pixels = [draw(("red", "green", "blue", "white")[i % 4], i) for i in (0, 7, 23)]
    expected = encoder([squash(image, encoder.config.pixels) for image in pixels]).numpy()
    assert [prepared.records[i].path for i in (0, 7, 23)] == ["000.png", "007.png", "023.png"]
    np.testing.assert_allclose(prepared.features[[0, 7, 23]], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_broken_images_are_left_out_and_listed(whole: Path, dataset: Dataset) -> None:
    prepared = PreparedFolder(whole)
    good = [i for i in range(IMAGES) if i not in BROKEN]
    assert [record.path for record in prepared.records] == [f"{i:03}.png" for i in good]
    assert tuple(prepared.records) == tuple(dataset.records[i] for i in good)
    left_out = {item.name: item.reason for item in prepared.left_out()}
    assert list(left_out) == ["nameless.png", *(f"{i:03}.png" for i in BROKEN)]
    assert left_out["nameless.png"] == "no caption names it"
    assert all("is not an image that can be read" in left_out[f"{i:03}.png"] for i in BROKEN)
    assert (prepared.metadata.images, prepared.metadata.captions, prepared.metadata.left_out) == (10, 20, 4)
    assert sum(prepared.metadata.splits.values()) == 10
    expected = FakeEncoder()([squash(draw(("red", "green", "blue", "white")[i % 4], i), SIDE) for i in good])
    np.testing.assert_array_equal(prepared.features[list(range(10))], expected.numpy())
    assert [len(np.load(file)) for file in sorted((whole / FEATURES_FOLDER).iterdir())] == [4, 4, 2]
    assert prepared.encoder_file.read_bytes()
    assert prepared.image_root == dataset.root


def test_progress_counts_every_image(run: Prepare, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(tmp_path / "out", on_progress=lambda *now: seen.append(now))
    assert seen == [(done, IMAGES) for done in (0, 2, 4, 6, 8, 10, 12, 13)]


def test_mirrored_features_are_those_of_the_mirrored_images(
    run: Prepare, dataset: Dataset, tmp_path: Path, whole: Path
) -> None:
    prepared = run(tmp_path / "mirrored", mirrored=True)
    plain = PreparedFolder(whole)
    rows = list(range(len(plain.records)))
    assert prepared.metadata.mirrored and not plain.metadata.mirrored and plain.mirrored is None
    assert prepared.mirrored is not None
    np.testing.assert_array_equal(prepared.features[rows], plain.features[rows])
    images = [open_image(Path(dataset.root, record.path)) for record in prepared.records]
    expected = FakeEncoder()([squash(ImageOps.mirror(image), FakeEncoder().config.pixels) for image in images])
    np.testing.assert_array_equal(prepared.mirrored[rows], expected.numpy())
    assert (prepared.mirrored[rows] != prepared.features[rows]).any()


def test_half_precision_takes_half_the_disk(run: Prepare, dataset: Dataset, tmp_path: Path, whole: Path) -> None:
    half, plain = run(tmp_path / "half", dtype="float16"), PreparedFolder(whole)
    rows = list(range(len(plain.records)))
    assert half.features[rows].dtype == np.float32
    np.testing.assert_array_equal(half.features[rows], plain.features[rows].astype(np.float16).astype(np.float32))
    for file in (whole / FEATURES_FOLDER).iterdir():
        header = 128
        assert 2 * ((half.root / FEATURES_FOLDER / file.name).stat().st_size - header) == file.stat().st_size - header
    with pytest.raises(ImgcapError, match="prepared from other inputs"):
        run(whole, dtype="float16")


def test_features_that_half_precision_cannot_hold_are_one_sentence(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEncoder, "__call__", lambda _, pixels: torch.full((len(pixels), 2048), 7e4))
    with pytest.raises(ImgcapError, match="too large for float16"):
        run(tmp_path / "half", dtype="float16")
    assert run(tmp_path / "whole", dtype="float32").features[[0]].max() == 7e4


def test_an_unknown_type_of_features_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="'int8'"):
        FeatureOptions(dtype="int8")


def test_asking_for_mirrored_features_later_needs_overwrite(run: Prepare, whole: Path) -> None:
    with pytest.raises(ImgcapError, match="prepared from other inputs"):
        run(whole, mirrored=True)
    assert run(whole, mirrored=True, overwrite=True).mirrored is not None


def test_an_output_folder_that_cannot_be_created_is_one_sentence(run: Prepare, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImgcapError, match="cannot be created"):
        run(tmp_path / "file" / "out")


def test_an_image_that_has_gone_is_left_out(source: Path, tmp_path: Path, run: Prepare) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    (folder / "images" / "000.png").unlink()
    (folder / "images" / "000.png").symlink_to("nowhere.png")
    data = read_dataset(folder / "images", folder / "captions.csv")
    prepared = run(tmp_path / "out", data)
    assert prepared.records[0].path == "001.png"
    assert any(item.name == "000.png" and "does not exist" in item.reason for item in prepared.left_out())


def test_images_that_are_all_broken_are_an_error(source: Path, tmp_path: Path, run: Prepare) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    for image in (folder / "images").iterdir():
        image.write_bytes(b"no image")
    data = read_dataset(folder / "images", folder / "captions.csv")
    with pytest.raises(ImgcapError, match="None of the 13 images could be decoded") as caught:
        run(tmp_path / "out", data, encoder=NoEncoder())
    assert "000.png" in caught.value.hint
    with pytest.raises(ImgcapError, match="not a prepared folder"):
        PreparedFolder(tmp_path / "out")
    for number in range(IMAGES):  # once they are mended, the same command works
        draw("red", number).save(folder / "images" / f"{number:03}.png")
    assert len(run(tmp_path / "out", data).records) == IMAGES


@pytest.mark.parametrize("name", [ENCODER_FILE, RECORDS_FILE, LEFT_OUT_FILE, FEATURES_FOLDER + "/mine.txt"])
def test_a_folder_with_other_files_under_our_names_is_left_alone(run: Prepare, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("dear to somebody")
    before = content(out)
    with pytest.raises(ImgcapError, match=f"not a prepared folder, but holds {name.split('/')[0]}"):
        run(out)
    assert content(out) == before
    assert len(run(out, overwrite=True).records) == 10


def test_the_metadata_records_where_the_features_come_from(whole: Path, dataset: Dataset) -> None:
    data = json.loads((whole / METADATA_FILE).read_text())
    assert data["encoder"] == "fake"
    assert data["encoder_config"] == {"pixels": SIDE, "resize": "squash-bicubic", "count_padding": True}
    assert Path(data["image_root"]) == Path(dataset.root).resolve()
