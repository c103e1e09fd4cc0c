"""Trainings that are interrupted: killed, stopped by Ctrl-C, resumed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.data import TINY_TRAINING
from helpers.refusal import refusal
from helpers.training import Killer
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, ENCODER_FILE, INDEX_FILE, MANIFEST_FILE, verify
from imgcap.training.checkpoint import CHECKPOINT_FILE, Checkpoint
from imgcap.training.options import TrainingOptions
from imgcap.training.progress import SilentListener
from imgcap.training.trainer import train


@pytest.mark.parametrize(
    "changes",
    [{}, {"word_dropout": 0.2, "average": 0.9}, {"fine_tune_encoder": True, "average": 0.9}, {"self_critical": True}],
)
def test_a_killed_and_resumed_training_ends_with_the_same_weights(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    start = str(model_folder) if "self_critical" in changes else "none"
    options = replace(TINY_TRAINING, epochs=2, encoder_learning_rate=1e-3, start_from=start, **changes)
    train(prepared, options, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(prepared, options, tmp_path / "killed", listener=Killer(2, RuntimeError))
    assert not (tmp_path / "killed" / DECODER_FILE).exists()
    train(prepared, TrainingOptions(), tmp_path / "killed", resume=True)
    for name in (DECODER_FILE, ENCODER_FILE, INDEX_FILE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / CHECKPOINT_FILE).exists()


def test_a_resumed_training_is_calibrated_as_an_uninterrupted_one(
    prepared: PreparedFolder, tmp_path: Path, calibrated_on_few: None
) -> None:
    train(prepared, TINY_TRAINING, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(prepared, TINY_TRAINING, tmp_path / "killed", listener=Killer(2, RuntimeError))
    train(prepared, TrainingOptions(), tmp_path / "killed", resume=True)
    whole, killed = (read_json(tmp_path / name / CONFIG_FILE)["confidence"] for name in ("whole", "killed"))
    assert whole == killed is not None


def test_ctrl_c_leaves_the_best_model_so_far_and_can_be_resumed(prepared: PreparedFolder, tmp_path: Path) -> None:
    options = replace(TINY_TRAINING, epochs=3)
    stopped = train(prepared, options, tmp_path / "stopped", listener=Killer(2, KeyboardInterrupt))
    assert stopped.interrupted
    assert stopped.epochs == 1
    verify(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / INDEX_FILE).exists()  # whoever presses Ctrl-C does not wait for it
    resumed = train(prepared, options, tmp_path / "stopped", resume=True)
    whole = train(prepared, options, tmp_path / "whole")
    assert not resumed.interrupted
    assert resumed.best.val_cider_d == whole.best.val_cider_d
    assert (tmp_path / "stopped" / DECODER_FILE).read_bytes() == (tmp_path / "whole" / DECODER_FILE).read_bytes()


def test_refuses_to_overwrite_an_interrupted_training(prepared: PreparedFolder, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(prepared, TINY_TRAINING, tmp_path / "model", listener=Killer(2, RuntimeError))
    with pytest.raises(ImgcapError, match="holds an interrupted training"):
        train(prepared, TINY_TRAINING, tmp_path / "model")
    with pytest.raises(UsageError, match="--seed"):
        train(prepared, replace(TINY_TRAINING, seed=5), tmp_path / "model", resume=True)


def test_refuses_to_resume_when_the_start_model_is_another_one(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    shutil.copytree(model_folder, start)
    options = replace(TINY_TRAINING, epochs=2, start_from=str(start))
    with pytest.raises(RuntimeError):
        train(prepared, options, out, listener=Killer(2, RuntimeError))
    manifest = (start / MANIFEST_FILE).read_text()
    (start / MANIFEST_FILE).write_text(manifest + "\n")
    with pytest.raises(ImgcapError, match=f"The model {start} is another one than when the training of {out} began"):
        train(prepared, TrainingOptions(), out, resume=True)
    (start / MANIFEST_FILE).write_text(manifest)
    start.rename(tmp_path / "moved")
    error = refusal(train, prepared, TrainingOptions(), out, resume=True)
    assert str(error) == f"The training of {out} needs the model that it started from: There is no model '{start}'."
    assert error.hint.startswith("Bring that model back, or start the training again in another folder.")
    (tmp_path / "moved").rename(start)
    assert train(prepared, TrainingOptions(), out, resume=True).epochs == 2


def test_a_torn_checkpoint_is_one_sentence(prepared: PreparedFolder, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / CHECKPOINT_FILE).write_bytes(b"half of a state")
    with pytest.raises(ImgcapError, match=r"The checkpoint .* cannot be read"):
        train(prepared, TINY_TRAINING, tmp_path / "model", resume=True)


def test_a_checkpoint_of_an_earlier_version_has_the_present_names(tmp_path: Path) -> None:
    names = ["now.decoder.picture.weight", "average.decoder.module.lstm.bias", "best.decoder.picture.bias"]
    checkpoint = Checkpoint(TINY_TRAINING, "digest", [], {name: torch.ones(1) for name in names})
    checkpoint.save(tmp_path / CHECKPOINT_FILE)
    loaded = Checkpoint.load(tmp_path / CHECKPOINT_FILE)
    assert sorted(loaded.tensors) == sorted(name.replace("picture", "image") for name in names)
    assert loaded.options == TINY_TRAINING


def test_a_resume_without_an_interrupted_training_says_that_it_starts(prepared: PreparedFolder, tmp_path: Path) -> None:
    plans = []

    class Planned(SilentListener):
        def on_start(self, epochs: int, plan: Sequence[str]) -> None:
            plans.append(plan[0])

    for resume in (True, False):
        train(prepared, TINY_TRAINING, tmp_path / f"model{resume}", resume=resume, listener=Planned())
    missing = f"{tmp_path / 'modelTrue'} holds no interrupted training, so this one starts from the beginning."
    assert plans == [missing, "Starts from random weights."]
