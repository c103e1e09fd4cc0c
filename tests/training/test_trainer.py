"""Training: what it learns, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.data import TINY_TRAINING, with_records
from helpers.refusal import refusal
from helpers.training import Recorder
from imgcap.dataset.prepared import METADATA_FILE, PreparedFolder
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, write_json
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, ENCODER_FILE, write_manifest
from imgcap.training.options import TrainingOptions
from imgcap.training.trainer import train


def test_learns_what_the_captions_say(prepared: PreparedFolder, tmp_path: Path) -> None:
    recorder = Recorder()
    options = replace(TINY_TRAINING, epochs=30, dropout=0.0, label_smoothing=0.0, patience=30)
    result = train(prepared, options, tmp_path / "model", listener=recorder)
    assert recorder.results[-1].loss < 0.5 * recorder.results[0].loss
    scores = [(r.val_cider_d or 0, *reversed(r.val_bleu or ())) for r in recorder.results]
    assert scores[result.best.epoch - 1] == max(scores)
    assert scores[result.best.epoch - 1][-1] > scores[0][-1]


def test_the_same_seed_gives_the_same_model_and_another_does_not(prepared: PreparedFolder, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(prepared, replace(TINY_TRAINING, seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name / DECODER_FILE).read_bytes() for name in "abc")
    assert a == b != c


def test_the_vocabulary_comes_from_the_training_split_alone(prepared: PreparedFolder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    records = [
        replace(record, captions=("zebra zebra zebra",)) if record.split != "train" else record
        for record in prepared.records
    ]
    changed = with_records(prepared, records, tmp_path / "changed")
    train(changed, TINY_TRAINING, folder)
    words = read_json(folder / "vocabulary.json")["words"]
    assert "wall" in words
    assert "zebra" not in words


def test_early_stopping_waits_for_patience_epochs(prepared: PreparedFolder, tmp_path: Path) -> None:
    result = train(prepared, replace(TINY_TRAINING, epochs=60, patience=2, learning_rate=1e-9), tmp_path / "model")
    assert result.epochs == result.best.epoch + 2


def test_self_critical_training_raises_the_reward(prepared: PreparedFolder, tmp_path: Path) -> None:
    train(prepared, replace(TINY_TRAINING, epochs=6), tmp_path / "start")
    recorder = Recorder()
    options = replace(
        TINY_TRAINING, self_critical=True, start_from=str(tmp_path / "start"), epochs=30, patience=30, dropout=0.0
    )
    result = train(prepared, options, tmp_path / "critical", listener=recorder)
    rewards = [-row.loss for row in recorder.results]
    assert sum(rewards[-5:]) > 1.2 * sum(rewards[:5]) > 0
    assert result.best.val_cider_d == max(row.val_cider_d or 0 for row in recorder.results)


def test_self_critical_training_and_fine_tuning_go_together(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    options = replace(TINY_TRAINING, epochs=1, self_critical=True, fine_tune_encoder=True, start_from=str(model_folder))
    train(prepared, options, tmp_path / "tuned")
    before, after = (load_file(folder / ENCODER_FILE) for folder in (model_folder, tmp_path / "tuned"))
    assert not torch.equal(before["Mixed_7c.branch1x1.conv.weight"].float(), after["Mixed_7c.branch1x1.conv.weight"])


def test_a_model_is_not_written_over_a_prepared_folder(prepared: PreparedFolder) -> None:
    error = refusal(train, prepared, TINY_TRAINING, prepared.root)
    assert str(error) == f"{prepared.root} is a prepared folder."


def test_a_finished_model_is_not_trained_again_but_can_be_started_from(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared.root, tmp_path / "other")
    metadata = read_json(prepared.root / METADATA_FILE)
    write_json(tmp_path / "other" / METADATA_FILE, metadata | {"digest": "0" * 64})
    other = PreparedFolder(tmp_path / "other")
    for data, resume in ((prepared, False), (other, True)):
        error = refusal(train, data, TINY_TRAINING, model_folder, resume=resume)
        assert str(error) == f"{model_folder} already holds a finished model."
        assert error.hint == (
            "To start over, remove it or give another folder. To train it further, start from it in another folder: "
            f"--start-from {model_folder} -o OTHER."
        )


def test_a_finished_training_is_resumed_by_doing_nothing(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    recorder = Recorder()
    for options in (TINY_TRAINING, TrainingOptions()):
        result = train(prepared, options, model, resume=True, listener=recorder)
        assert (result.was_finished, result.interrupted, result.epochs) == (True, False, 2)
        assert result.best.epoch == read_json(model / CONFIG_FILE)["training"]["best_epoch"]
    assert recorder.results == []
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    with pytest.raises(UsageError, match=r"A resumed training keeps its options, .* --epochs\."):
        train(prepared, replace(TINY_TRAINING, epochs=9), model, resume=True)
    (model / DECODER_FILE).write_bytes(b"damaged")
    with pytest.raises(ImgcapError, match="damaged"):
        train(prepared, TINY_TRAINING, model, resume=True)


@pytest.mark.parametrize("training", [{}, [], {"options": None}, {"options": {"epochs": "x"}}])
def test_a_finished_model_that_does_not_tell_of_its_training_is_not_resumed(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, training: Any
) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    if training and isinstance(training, dict):
        training["prepared"] = prepared.metadata.digest
    write_json(model / CONFIG_FILE, read_json(model / CONFIG_FILE) | {"training": training})
    write_manifest(model)
    with pytest.raises(ImgcapError, match="already holds a finished model"):
        train(prepared, TINY_TRAINING, model, resume=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_count": 1000}, "No word occurs 1000 times in the training captions"),
        ({"start_from": "nowhere"}, "There is no model 'nowhere'"),
    ],
)
def test_a_training_that_is_refused_leaves_nothing_behind(
    prepared: PreparedFolder, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ImgcapError, match=sentence):
        train(prepared, replace(TINY_TRAINING, **changes), tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_named_only_where_epochs_are_compared(prepared: PreparedFolder, tmp_path: Path) -> None:
    for patience, best in ((0, [False, False]), (8, [True])):
        recorder = Recorder()
        train(prepared, replace(TINY_TRAINING, patience=patience), tmp_path / str(patience), listener=recorder)
        assert recorder.best[: len(best)] == best
