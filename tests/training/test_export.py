"""The model folder that a training writes: settings, index, calibration."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.data import SMALLEST_IMAGE, TINY_TRAINING, with_records
from helpers.training import CPU
from imgcap.captioning.captioner import load_model
from imgcap.captioning.explain import TrainingIndex
from imgcap.dataset.prepared import PreparedFolder
from imgcap.files import read_json, read_json_lines, write_json
from imgcap.images.decoding import Pixels, load_batches
from imgcap.model.confidence import Calibration, agreement, fit
from imgcap.model.folder import load_model_folder
from imgcap.model.store import CONFIG_FILE, INDEX_FILE, verify
from imgcap.text.tokenizer import tokenize
from imgcap.training.export import finish
from imgcap.training.trainer import train


def test_confidence_is_calibrated_on_the_val_captions(
    prepared: PreparedFolder, tmp_path: Path, calibrated_on_few: None
) -> None:
    train(prepared, TINY_TRAINING, tmp_path / "model")
    verify(tmp_path / "model")
    model = load_model_folder(tmp_path / "model", CPU)
    rows = prepared.rows("val")
    found = [h[0] for h in model.search(torch.from_numpy(prepared.features[rows]), model.config.search)]
    references = [[tokenize(caption) for caption in prepared.records[row].captions] for row in rows]
    expected = fit(found, agreement([model.vocabulary.decode(h.ids) for h in found], references))
    assert isinstance(model.config.confidence, Calibration)
    assert model.config.confidence.images == len(rows)
    assert model.config.confidence.weights == pytest.approx(expected.weights, abs=1e-4)


def test_without_enough_val_images_of_two_captions_there_is_no_confidence(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, calibrated_on_few: None
) -> None:
    assert load_model_folder(model_folder, CPU).config.confidence is None  # they are fewer than 50
    records = [replace(record, captions=record.captions[:1]) for record in prepared.records]
    single = with_records(prepared, records, tmp_path / "single")
    train(single, TINY_TRAINING, tmp_path / "model")
    assert load_model_folder(tmp_path / "model", CPU).config.confidence is None


def test_the_model_folder_has_an_index_of_its_training_images(prepared: PreparedFolder, model_folder: Path) -> None:
    index = TrainingIndex.load(model_folder / INDEX_FILE)
    rows = prepared.rows("train")
    assert index.names == tuple(prepared.records[row].path for row in rows)
    [found] = index.explain(torch.from_numpy(prepared.features[rows[3:4]]), [prepared.records[rows[3]].captions[0]])
    assert found.nearest[0][0] == prepared.records[rows[3]].path
    assert found.verbatim
    assert INDEX_FILE in read_json(model_folder / "manifest.json")["files"]


def test_finishing_a_model_again_gives_the_same_files(
    prepared: PreparedFolder, tmp_path: Path, calibrated_on_few: None
) -> None:
    folder = tmp_path / "model"
    train(prepared, TINY_TRAINING, folder)
    whole = {name: (folder / name).read_bytes() for name in (INDEX_FILE, CONFIG_FILE, "manifest.json")}
    (folder / INDEX_FILE).unlink()
    write_json(folder / CONFIG_FILE, {**read_json(folder / CONFIG_FILE), "confidence": None})
    finish(prepared, folder, CPU)
    assert {name: (folder / name).read_bytes() for name in whole} == whole


def test_index_and_confidence_use_the_fine_tuned_encoder(prepared: PreparedFolder, tuned_folder: Path) -> None:
    captioner = load_model(tuned_folder, device="cpu")
    row = prepared.rows("train")[0]
    [pixels] = next(load_batches([prepared.image_root / prepared.records[row].path], SMALLEST_IMAGE))
    assert isinstance(pixels, np.ndarray)
    own = captioner.encoder([pixels])
    assert (own - torch.from_numpy(prepared.features[[row]])).abs().max() > 0.01
    [found] = TrainingIndex.load(tuned_folder / INDEX_FILE).explain(own, [""])
    assert found.nearest[0][0] == prepared.records[row].path
    assert found.nearest[0][1] > 0.99
    assert captioner.model.config.confidence


def test_a_fine_tuned_encoder_encodes_only_indexed_and_val_images(
    prepared: PreparedFolder, tuned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tuned_folder, tmp_path / "tuned")
    monkeypatch.setattr("imgcap.captioning.explain.MAX_IMAGES", 3)
    seen: list[int] = []
    decode = PreparedFolder.decode

    def spy(self: PreparedFolder, rows: Iterable[int], size: int) -> Iterator[Pixels]:
        rows = list(rows)
        seen.extend(rows)
        return decode(self, rows, size)

    monkeypatch.setattr(PreparedFolder, "decode", spy)
    finish(prepared, tmp_path / "tuned", CPU)
    rows = prepared.rows("train")
    assert seen == [rows[0], rows[(len(rows) - 1) // 2], rows[-1], *prepared.rows("val")]
    assert len(TrainingIndex.load(tmp_path / "tuned" / INDEX_FILE).names) == 3


def test_the_model_folder_records_the_training(model_folder: Path, prepared: PreparedFolder) -> None:
    training = read_json(model_folder / "config.json")["training"]
    assert training["options"]["seed"] == TINY_TRAINING.seed
    assert training["images"]["train"] == len(prepared.rows("train"))
    rows = [row for _, row in read_json_lines(model_folder / "metrics.jsonl")]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert training["val_cider_d"] == max(row["val_cider_d"] for row in rows)
    assert (model_folder / "curves.svg").read_text().startswith("<svg")
