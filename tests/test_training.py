"""Training: what it learns, how it resumes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY_TRAINING
from safetensors.torch import load_file

from imgcap.errors import ImgcapError, UsageError
from imgcap.features import PreparedFolder
from imgcap.files import read_json, read_json_lines
from imgcap.model_store import DECODER_FILE, ENCODER_FILE, verify
from imgcap.training import STATE_FILE, EpochResult, SilentListener, TrainingOptions, train


class Killer(SilentListener):
    """Ends a training at a given step, as Ctrl-C or a crash would."""

    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        self.epoch, self.error = epoch, error

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if epoch == self.epoch and step == steps:
            raise self.error


class Recorder(SilentListener):
    def __init__(self) -> None:
        self.results: list[EpochResult] = []

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        self.results.append(result)


def test_learns_what_the_captions_say(prepared: PreparedFolder, tmp_path: Path) -> None:
    recorder = Recorder()
    options = replace(TINY_TRAINING, epochs=30, dropout=0.0, label_smoothing=0.0, patience=30)
    result = train(prepared, options, tmp_path / "model", listener=recorder)
    assert recorder.results[-1].loss < 0.5 * recorder.results[0].loss
    assert result.best.val_bleu[0] > recorder.results[0].val_bleu[0]
    assert result.best == max(recorder.results, key=lambda r: (r.val_cider_d, r.val_bleu[3], r.val_bleu[2]))


def test_the_same_seed_gives_the_same_model_and_another_does_not(prepared: PreparedFolder, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(prepared, replace(TINY_TRAINING, seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name / DECODER_FILE).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("fine_tune", [False, True])
def test_a_killed_and_resumed_training_ends_with_the_same_weights(
    prepared: PreparedFolder, tmp_path: Path, fine_tune: bool
) -> None:
    options = replace(TINY_TRAINING, epochs=3, fine_tune_encoder=fine_tune, encoder_learning_rate=1e-3)
    train(prepared, options, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(prepared, options, tmp_path / "killed", listener=Killer(3, RuntimeError))
    assert not (tmp_path / "killed" / DECODER_FILE).exists()
    train(prepared, TrainingOptions(), tmp_path / "killed", resume=True)
    for name in (DECODER_FILE, ENCODER_FILE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / STATE_FILE).exists()


def test_ctrl_c_leaves_the_best_model_so_far_and_can_be_resumed(prepared: PreparedFolder, tmp_path: Path) -> None:
    options = replace(TINY_TRAINING, epochs=3)
    stopped = train(prepared, options, tmp_path / "stopped", listener=Killer(2, KeyboardInterrupt))
    assert stopped.interrupted
    assert stopped.epochs == 1
    verify(tmp_path / "stopped")
    resumed = train(prepared, options, tmp_path / "stopped", resume=True)
    whole = train(prepared, options, tmp_path / "whole")
    assert not resumed.interrupted
    assert resumed.best.val_cider_d == whole.best.val_cider_d
    assert (tmp_path / "stopped" / DECODER_FILE).read_bytes() == (tmp_path / "whole" / DECODER_FILE).read_bytes()


def test_the_vocabulary_comes_from_the_training_split_alone(prepared: PreparedFolder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    records = tuple(
        replace(record, captions=("zebra zebra zebra",)) if record.split != "train" else record
        for record in prepared.records
    )
    changed = PreparedFolder(prepared.root)
    changed.records = records
    train(changed, TINY_TRAINING, folder)
    words = read_json(folder / "vocabulary.json")["words"]
    assert "wall" in words
    assert "zebra" not in words


def test_early_stopping_waits_for_patience_epochs(prepared: PreparedFolder, tmp_path: Path) -> None:
    result = train(prepared, replace(TINY_TRAINING, epochs=60, patience=2, learning_rate=1e-9), tmp_path / "model")
    assert result.epochs == result.best.epoch + 2


def test_fine_tuning_changes_the_encoder_and_stores_it(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    options = replace(TINY_TRAINING, epochs=1, fine_tune_encoder=True, start_from=str(model_folder))
    train(prepared, options, tmp_path / "tuned")
    before, after = (load_file(folder / ENCODER_FILE) for folder in (model_folder, tmp_path / "tuned"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["Mixed_7c.branch1x1.conv.weight"].float(), after["Mixed_7c.branch1x1.conv.weight"])
    fingerprints = [read_json(f / "config.json")["encoder_fingerprint"] for f in (model_folder, tmp_path / "tuned")]
    assert fingerprints[0] != fingerprints[1]
    with pytest.raises(ImgcapError, match="another encoder"):
        train(prepared, replace(TINY_TRAINING, start_from=str(tmp_path / "tuned")), tmp_path / "other")


def test_starting_from_a_model_keeps_its_words_and_sizes(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    options = replace(TINY_TRAINING, embedding_size=99, start_from=str(model_folder), learning_rate=1e-9)
    train(prepared, options, tmp_path / "next")
    theirs, ours = (load_file(folder / DECODER_FILE) for folder in (model_folder, tmp_path / "next"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=0)


def test_the_model_folder_tells_how_it_was_trained(model_folder: Path, prepared: PreparedFolder) -> None:
    training = read_json(model_folder / "config.json")["training"]
    assert training["options"]["seed"] == TINY_TRAINING.seed
    assert training["pictures"]["train"] == len(prepared.rows("train"))
    rows = [row for _, row in read_json_lines(model_folder / "metrics.jsonl")]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert training["val_cider_d"] == max(row["val_cider_d"] for row in rows)
    assert (model_folder / "curves.svg").read_text().startswith("<svg")


def test_refuses_a_folder_that_holds_a_model(prepared: PreparedFolder, model_folder: Path) -> None:
    with pytest.raises(ImgcapError, match="finished model"):
        train(prepared, TINY_TRAINING, model_folder)


def test_refuses_to_overwrite_an_interrupted_training(prepared: PreparedFolder, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(prepared, TINY_TRAINING, tmp_path / "model", listener=Killer(2, RuntimeError))
    with pytest.raises(ImgcapError, match="interrupted training"):
        train(prepared, TINY_TRAINING, tmp_path / "model")
    with pytest.raises(UsageError, match="seed"):
        train(prepared, replace(TINY_TRAINING, seed=5), tmp_path / "model", resume=True)


def test_a_torn_state_is_one_sentence(prepared: PreparedFolder, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / STATE_FILE).write_bytes(b"half of a state")
    with pytest.raises(ImgcapError, match="cannot be read"):
        train(prepared, TINY_TRAINING, tmp_path / "model", resume=True)


def test_a_vocabulary_without_words_is_one_sentence(prepared: PreparedFolder, tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match="No word stands 1000 times"):
        train(prepared, replace(TINY_TRAINING, min_count=1000), tmp_path / "model")


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"dropout": 1.0}, {"learning_rate": -1.0}, {"label_smoothing": 1.5}, {"batch_size": 0}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainingOptions(**wrong)  # type: ignore[arg-type]
