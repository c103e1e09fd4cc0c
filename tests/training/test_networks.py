"""The networks that are trained: how they are built, averaged and started from others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.data import TINY_TRAINING
from imgcap.dataset.prepared import PreparedFolder
from imgcap.distributed import World
from imgcap.errors import ImgcapError
from imgcap.files import read_json, read_json_lines
from imgcap.model.store import DECODER_FILE, ENCODER_FILE
from imgcap.training.progress import SilentListener
from imgcap.training.trainer import Trainer, train


@pytest.mark.parametrize(("most", "chosen"), [(2, [0, -1]), (1000, slice(None))])
def test_features_are_standardised_over_evenly_spaced_images(
    prepared: PreparedFolder, monkeypatch: pytest.MonkeyPatch, most: int, chosen: Any
) -> None:
    monkeypatch.setattr("imgcap.training.networks._MAX_STATISTICS_IMAGES", most)
    decoder = Trainer(prepared, TINY_TRAINING, World(), SilentListener()).networks.decoder
    features = torch.from_numpy(prepared.features[prepared.rows("train")[chosen]])
    torch.testing.assert_close(decoder.feature_mean, features.mean(0))
    torch.testing.assert_close(decoder.feature_std, features.std(0, correction=0).clamp(min=1e-3), atol=1e-4, rtol=1e-3)


def test_the_average_of_the_weights_is_scored_and_saved(prepared: PreparedFolder, tmp_path: Path) -> None:
    """With a decay of nearly 1, the average stays where the first step left it, and the weights move on."""
    first = replace(TINY_TRAINING, epochs=1, batch_size=10_000, patience=9)
    train(prepared, first, tmp_path / "first")
    train(prepared, replace(first, epochs=9, average=1 - 1e-9), tmp_path / "average")
    train(prepared, replace(first, epochs=9), tmp_path / "last")
    weights = {name: load_file(tmp_path / name / DECODER_FILE)["output.weight"] for name in ("average", "last")}
    assert (weights["average"] - weights["last"]).abs().max() > 0.005
    log = [row["val_cider_d"] for _, row in read_json_lines(tmp_path / "average" / "metrics.jsonl")]
    assert len(set(log)) == 1


def test_fine_tuning_changes_the_encoder_and_stores_it(
    prepared: PreparedFolder, model_folder: Path, tuned_folder: Path, tmp_path: Path
) -> None:
    before, after = (load_file(folder / ENCODER_FILE) for folder in (model_folder, tuned_folder))
    assert before.keys() == after.keys()
    assert not torch.equal(before["Mixed_7c.branch1x1.conv.weight"].float(), after["Mixed_7c.branch1x1.conv.weight"])
    fingerprints = [read_json(f / "config.json")["encoder_fingerprint"] for f in (model_folder, tuned_folder)]
    assert fingerprints[0] != fingerprints[1]
    with pytest.raises(ImgcapError, match="another encoder"):
        train(prepared, replace(TINY_TRAINING, start_from=str(tuned_folder)), tmp_path / "other")


def test_starting_from_a_model_keeps_its_sizes_and_the_words_that_the_captions_have(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    options = replace(TINY_TRAINING, embedding_size=99, start_from=str(model_folder), learning_rate=1e-9)
    train(prepared, options, tmp_path / "next")
    theirs, ours = (load_file(folder / DECODER_FILE) for folder in (model_folder, tmp_path / "next"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=0)
