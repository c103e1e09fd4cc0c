"""Training: what it learns, how it resumes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.data import SMALLEST_IMAGE, TINY_TRAINING, with_records
from imgcap.captioning.captioner import load_model
from imgcap.captioning.explain import TrainingIndex
from imgcap.dataset.prepared import PreparedFolder
from imgcap.distributed import World
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, read_json_lines, write_json
from imgcap.images.decoding import BATCH_SIZE, load_batches
from imgcap.model.confidence import Calibration, agreement, fit
from imgcap.model.decoder import LSTMDecoder
from imgcap.model.folder import load_model_folder
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, ENCODER_FILE, INDEX_FILE, METRICS_FILE, verify
from imgcap.text.tokenizer import tokenize
from imgcap.text.vocabulary import PAD, START, UNKNOWN
from imgcap.training import trainer as training
from imgcap.training.trainer import (
    CURVES_FILE,
    STATE_FILE,
    Batch,
    EpochResult,
    Part,
    SilentListener,
    Trainer,
    TrainingOptions,
    finish,
    learning_curves,
    train,
)

CPU = torch.device("cpu")


class Killer(SilentListener):
    """Ends a training at a given step, as Ctrl-C or a crash would."""

    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        self.epoch, self.error = epoch, error

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if epoch == self.epoch and step == steps:
            raise self.error


class FakeFeatures:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        return self.values[rows]


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


@pytest.mark.parametrize(
    "changes",
    [{}, {"word_dropout": 0.2, "average": 0.9}, {"fine_tune_encoder": True, "average": 0.9}, {"self_critical": True}],
)
def test_a_killed_and_resumed_training_ends_with_the_same_weights(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    start = str(model_folder) if "self_critical" in changes else None
    options = replace(TINY_TRAINING, epochs=3, encoder_learning_rate=1e-3, start_from=start, **changes)
    train(prepared, options, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(prepared, options, tmp_path / "killed", listener=Killer(3, RuntimeError))
    assert not (tmp_path / "killed" / DECODER_FILE).exists()
    train(prepared, TrainingOptions(), tmp_path / "killed", resume=True)
    for name in (DECODER_FILE, ENCODER_FILE, INDEX_FILE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / STATE_FILE).exists()


@pytest.fixture
def calibrated_on_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgcap.training.trainer.FEWEST_IMAGES", 2)


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


def test_a_resumed_training_is_calibrated_as_an_uninterrupted_one(
    prepared: PreparedFolder, tmp_path: Path, calibrated_on_few: None
) -> None:
    train(prepared, TINY_TRAINING, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(prepared, TINY_TRAINING, tmp_path / "killed", listener=Killer(2, RuntimeError))
    train(prepared, TrainingOptions(), tmp_path / "killed", resume=True)
    whole, killed = (read_json(tmp_path / name / CONFIG_FILE)["confidence"] for name in ("whole", "killed"))
    assert whole == killed is not None


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


def test_a_model_is_finished_afterwards_as_by_its_training(
    prepared: PreparedFolder, tmp_path: Path, calibrated_on_few: None
) -> None:
    folder = tmp_path / "model"
    train(prepared, TINY_TRAINING, folder)
    whole = {name: (folder / name).read_bytes() for name in (INDEX_FILE, CONFIG_FILE, "manifest.json")}
    (folder / INDEX_FILE).unlink()
    write_json(folder / CONFIG_FILE, {**read_json(folder / CONFIG_FILE), "confidence": None})
    finish(prepared, folder, CPU)
    assert {name: (folder / name).read_bytes() for name in whole} == whole


def test_a_tuned_encoder_is_what_index_and_confidence_are_made_with(
    prepared: PreparedFolder, tmp_path: Path, calibrated_on_few: None
) -> None:
    options = replace(TINY_TRAINING, epochs=1, fine_tune_encoder=True, encoder_learning_rate=1e-5)
    train(prepared, options, tmp_path / "tuned")
    captioner = load_model(tmp_path / "tuned", device="cpu")
    row = prepared.rows("train")[0]
    own = captioner.encoder(next(load_batches([prepared.image_root / prepared.records[row].path], SMALLEST_IMAGE)))
    assert (own - torch.from_numpy(prepared.features[[row]])).abs().max() > 0.01
    [found] = TrainingIndex.load(tmp_path / "tuned" / INDEX_FILE).explain(own, [""])
    assert found.nearest[0][0] == prepared.records[row].path
    assert found.nearest[0][1] > 0.99
    assert captioner.model.config.confidence


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


@pytest.mark.parametrize("options", [{}, {"word_dropout": 0.4, "accumulation": 3}])
def test_images_are_decoded_a_few_batches_ahead_of_the_same_batches(
    prepared: PreparedFolder, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Eight copies of the data set are more than is decoded ahead."""
    rows = [row for row in range(len(prepared.records)) if prepared.records[row].split == "train"]
    trainer = Trainer(prepared, replace(TINY_TRAINING, fine_tune_encoder=True, **options), World(), SilentListener())
    trainer.train_rows = np.tile(rows, 8)
    made = 0

    def counted(batches: Iterator[Batch]) -> Iterator[Batch]:
        nonlocal made
        for batch in batches:
            made += len(batch.rows)
            yield batch

    whole = list(trainer._batches(1)[1])
    parts = trainer._with_parts(counted(trainer._batches(1)[1]))
    used = 0
    for expected, (batch, own) in zip(whole, parts, strict=True):
        assert made - used <= 4 * BATCH_SIZE + TINY_TRAINING.batch_size
        used += len(batch.rows)
        assert batch.rows == expected.rows
        for name in ("mirrored", "image", "ids", "targets", "lengths"):
            assert np.array_equal(getattr(batch, name), getattr(expected, name))
        for part in own:
            sources = [prepared.image_root / prepared.records[row].path for row in part.batch.rows]
            [pixels] = load_batches(sources, SMALLEST_IMAGE)
            assert np.array_equal(part.images, pixels)
    assert used == 8 * len(rows) > 4 * BATCH_SIZE + TINY_TRAINING.batch_size


@pytest.mark.parametrize(("most", "chosen"), [(2, [0, -1]), (1000, slice(None))])
def test_features_are_standardised_over_evenly_spaced_images(
    prepared: PreparedFolder, monkeypatch: pytest.MonkeyPatch, most: int, chosen: Any
) -> None:
    monkeypatch.setattr("imgcap.training.trainer._STATISTICS_IMAGES", most)
    decoder = Trainer(prepared, TINY_TRAINING, World(), SilentListener()).decoder
    features = torch.from_numpy(prepared.features[prepared.rows("train")[chosen]])
    torch.testing.assert_close(decoder.feature_mean, features.mean(0))
    torch.testing.assert_close(decoder.feature_std, features.std(0, correction=0).clamp(min=1e-3), atol=1e-4, rtol=1e-3)


def test_a_tuned_encoder_sees_what_is_indexed_alone(
    prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(prepared, replace(TINY_TRAINING, epochs=1, fine_tune_encoder=True), tmp_path / "tuned")
    monkeypatch.setattr("imgcap.captioning.explain.MAX_IMAGES", 3)
    seen: list[int] = []
    decoded = training._decoded
    monkeypatch.setattr(
        training, "_decoded", lambda prepared, rows, size: decoded(prepared, seen.extend(rows) or rows, size)
    )
    finish(prepared, tmp_path / "tuned", CPU)
    rows = prepared.rows("train")
    assert seen == [rows[0], rows[(len(rows) - 1) // 2], rows[-1], *prepared.rows("val")]
    assert len(TrainingIndex.load(tmp_path / "tuned" / INDEX_FILE).names) == 3


def test_the_average_of_the_weights_is_what_is_kept(prepared: PreparedFolder, tmp_path: Path) -> None:
    """With a decay of nearly 1, the average stays where the first step left it, and the weights move on."""
    first = replace(TINY_TRAINING, epochs=1, batch_size=10_000, patience=9)
    train(prepared, first, tmp_path / "first")
    train(prepared, replace(first, epochs=9, average=1 - 1e-9), tmp_path / "average")
    train(prepared, replace(first, epochs=9), tmp_path / "last")
    weights = {name: load_file(tmp_path / name / DECODER_FILE)["output.weight"] for name in ("average", "last")}
    assert (weights["average"] - weights["last"]).abs().max() > 0.005
    log = [row["val_cider_d"] for _, row in read_json_lines(tmp_path / "average" / "metrics.jsonl")]
    assert len(set(log)) == 1


def test_word_dropout_hides_words_from_the_decoder_but_not_from_the_loss(
    prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = LSTMDecoder.forward

    def spy(self: LSTMDecoder, features: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        seen.append(ids)
        return forward(self, features, ids, lengths)

    monkeypatch.setattr(LSTMDecoder, "forward", spy)
    train(prepared, replace(TINY_TRAINING, word_dropout=0.4, epochs=4), tmp_path / "model")
    ids = torch.cat([batch.flatten() for batch in seen])
    assert (torch.cat([batch[:, 0] for batch in seen]) == START).all()
    words = ids[(ids != PAD) & (ids != START)]
    assert 0.3 < (words == UNKNOWN).float().mean() < 0.5


def test_mirrored_features_are_seen_half_of_the_time(prepared: PreparedFolder, tmp_path: Path) -> None:
    both = PreparedFolder(prepared.root)
    rows = range(len(both.records))
    both.mirrored = FakeFeatures(-both.features[list(rows)])  # type: ignore[assignment]
    trainer = Trainer(both, replace(TINY_TRAINING, batch_size=1000), World(), SilentListener())
    signs, drawn = [], []
    for epoch in range(1, 21):
        _, (batch,) = trainer._batches(epoch)
        plain = torch.from_numpy(both.features[batch.rows])
        drawn.append((trainer._features(Part(batch, 1.0)), plain))
        signs.append((drawn[-1][0] * plain).sum(1).sign())
    signs = torch.cat(signs)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.3
    torch.testing.assert_close(drawn[0][0].abs(), drawn[0][1].abs())


def test_self_critical_training_raises_the_reward(prepared: PreparedFolder, tmp_path: Path) -> None:
    train(prepared, replace(TINY_TRAINING, epochs=6), tmp_path / "start")
    recorder = Recorder()
    options = replace(
        TINY_TRAINING, self_critical=True, start_from=str(tmp_path / "start"), epochs=30, patience=30, dropout=0.0
    )
    result = train(prepared, options, tmp_path / "critical", listener=recorder)
    rewards = [-row.loss for row in recorder.results]
    assert sum(rewards[-5:]) > 1.2 * sum(rewards[:5]) > 0
    assert result.best.val_cider_d >= recorder.results[0].val_cider_d


def test_self_critical_training_and_fine_tuning_go_together(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    options = replace(TINY_TRAINING, epochs=1, self_critical=True, fine_tune_encoder=True, start_from=str(model_folder))
    train(prepared, options, tmp_path / "tuned")
    before, after = (load_file(folder / ENCODER_FILE) for folder in (model_folder, tmp_path / "tuned"))
    assert not torch.equal(before["Mixed_7c.branch1x1.conv.weight"].float(), after["Mixed_7c.branch1x1.conv.weight"])


def test_self_critical_training_needs_a_model_to_start_from() -> None:
    with pytest.raises(UsageError, match="--start-from"):
        TrainingOptions(self_critical=True)
    with pytest.raises(UsageError, match="at least 2 samples"):
        TrainingOptions(self_critical=True, start_from="default", samples=1)


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
    assert training["images"]["train"] == len(prepared.rows("train"))
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
    "wrong",
    [
        {"epochs": 0},
        {"dropout": 1.0},
        {"average": 1.0},
        {"word_dropout": -0.1},
        {"learning_rate": -1.0},
        {"label_smoothing": 1.5},
        {"batch_size": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainingOptions(**wrong)  # type: ignore[arg-type]


def test_a_model_keeps_its_learning_curves(model_folder: Path, tmp_path: Path) -> None:
    drawn = learning_curves(model_folder)
    assert drawn == (model_folder / CURVES_FILE).read_text(encoding="utf-8")
    assert learning_curves(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[1]\n", '{"epoch": 1}\n', '{"epoch": 1, "loss": "x"}\n', "{"])
def test_a_damaged_record_of_a_training_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS_FILE).write_text(content)
    with pytest.raises(ImgcapError, match=r"is damaged|is not valid JSON"):
        learning_curves(tmp_path)
