"""The model that a training starts from, and the words that it takes over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from helpers.data import TINY_TRAINING, with_records
from helpers.training import CPU, Killer, Recorder
from imgcap.captioning.split import caption_split
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ImgcapError
from imgcap.files import read_json, write_json
from imgcap.model.folder import Model, load_model_folder
from imgcap.model.search_options import SearchOptions
from imgcap.model.store import (
    CONFIG_FILE,
    DECODER_FILE,
    INDEX_FILE,
    METRICS_FILE,
    VOCABULARY_FILE,
    verify,
    write_manifest,
)
from imgcap.text.vocabulary import SPECIAL_WORDS, Vocabulary
from imgcap.training import start as start_module
from imgcap.training.options import SEARCH, TrainingOptions
from imgcap.training.start import adapted_vocabulary, adapted_weights, choose_start, described, doubts, wants_default
from imgcap.training.trainer import train

OPEN = replace(TINY_TRAINING, embedding_size=None, hidden_size=None, patience=None)


@pytest.fixture
def purple(prepared: PreparedFolder, tmp_path: Path) -> PreparedFolder:
    """The coloured walls with other words: purple for red, and no stripe."""
    records = [
        replace(record, captions=tuple(text.replace("red", "purple").split(",")[0] for text in record.captions))
        for record in prepared.records
    ]
    return with_records(prepared, records, tmp_path / "purple")


@pytest.fixture
def start(model_folder: Path) -> Model:
    return load_model_folder(model_folder, CPU)


@pytest.fixture
def default_is_walls(monkeypatch: pytest.MonkeyPatch, model_folder: Path, prepared: PreparedFolder) -> None:
    """The model of the coloured walls is the default model."""
    fingerprint = prepared.metadata.encoder_fingerprint
    monkeypatch.setattr(start_module, "DEFAULT_MODEL", str(model_folder))
    monkeypatch.setattr(start_module, "default_encoder_fingerprint", lambda: fingerprint)


def vocabulary(*words: str) -> Vocabulary:
    return Vocabulary((*SPECIAL_WORDS, *words))


def test_words_stay_if_the_captions_have_them_and_new_ones_need_the_count() -> None:
    old = vocabulary("wall", "red", "stripe")
    captions = ["A purple wall", "a purple, purple wall", "a red wall and a dog"]
    assert adapted_vocabulary(old, captions, 3, keep_words=False) == vocabulary("wall", "red", "a", "purple")
    assert adapted_vocabulary(old, captions, 3, keep_words=True) == vocabulary("wall", "red", "stripe", "a", "purple")
    assert adapted_vocabulary(old, captions, 99, keep_words=False) == vocabulary("wall", "red")


def test_known_words_keep_their_weights_and_new_ones_begin_with_the_mean(start: Model) -> None:
    words = vocabulary("purple", "wall", "dog")
    before, after = start.decoder.state_dict(), adapted_weights(start, words)
    wall = start.vocabulary.words.index("wall")
    for name in ("embedding.weight", "output.weight", "output.bias"):
        torch.testing.assert_close(after[name][:4], before[name][:4], rtol=0, atol=0)
        torch.testing.assert_close(after[name][5], before[name][wall], rtol=0, atol=0)
        for new in (4, 6):
            torch.testing.assert_close(after[name][new], before[name][4:].mean(0))
    others = before.keys() - {"embedding.weight", "output.weight", "output.bias"}
    assert all(after[name] is not None and torch.equal(after[name], before[name]) for name in others)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("wall", "red"), "2 of its 10 words stay, 0 are new."),
        (("wall", "red", "purple"), "2 of its 10 words stay, 1 is new."),
        (("mur",), "0 of its 10 words stay, 1 is new."),
    ],
)
def test_what_becomes_of_the_words_is_one_sentence(start: Model, words: tuple[str, ...], sentence: str) -> None:
    assert described(start, vocabulary(*words)) == f"Starts from the model 'walls': {sentence}"
    assert described(None, vocabulary(*words)) == "Starts from random weights."


def test_rare_words_and_few_images_are_said_before_the_training(start: Model) -> None:
    few = "So few images often make a model worse: compare its captions with those of 'walls' before you use it."
    rare = "{} of the training captions that {} fewer than 3 times {} left out (--min-count)."
    assert doubts(start, 99, 0, 3) == [few]
    assert doubts(start, 100, 1, 3) == [rare.format("1 word", "occurs", "is")]
    assert doubts(start, 99, 1200, 3) == [rare.format("1,200 words", "occur", "are"), few]
    assert doubts(None, 99, 0, 3) == []


def test_features_of_another_encoder_are_the_named_reason_for_random_weights() -> None:
    sentence = described(None, vocabulary("wall"), wants_default(TrainingOptions()))
    assert "because the features come from another encoder than the default model's" in sentence
    for own_choice in (TrainingOptions(start_from="none"), TrainingOptions(hidden_size=8)):
        assert not wants_default(own_choice)


def test_the_default_model_is_the_start_if_the_features_are_its_own(
    prepared: PreparedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_start(TrainingOptions(), prepared) == "none"
    fingerprint = prepared.metadata.encoder_fingerprint
    monkeypatch.setattr(start_module, "default_encoder_fingerprint", lambda: fingerprint)
    assert choose_start(TrainingOptions(), prepared) == "default"
    assert choose_start(TrainingOptions(start_from="none"), prepared) == "none"
    assert choose_start(TrainingOptions(start_from="mine"), prepared) == "mine"
    assert choose_start(TrainingOptions(hidden_size=8), prepared) == "none"


def test_self_critical_training_without_a_start_is_one_sentence(prepared: PreparedFolder) -> None:
    with pytest.raises(ImgcapError, match=r"^Self-critical training needs a trained model to start from\.$") as caught:
        choose_start(TrainingOptions(self_critical=True), prepared)
    assert caught.value.hint == "Add --start-from MODEL."


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, SearchOptions(beam_size=4, length_penalty=0.9, max_length=6)),
        ({"length_penalty": 0.5}, SearchOptions(beam_size=4, length_penalty=0.5, max_length=6)),
        ({"beam_size": 1}, SearchOptions(beam_size=1, length_penalty=0.9, max_length=6)),
        ({"start_from": "none", "hidden_size": 8}, SEARCH),
    ],
)
def test_the_search_is_that_of_the_start_model_unless_it_is_given(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, given: dict[str, Any], wanted: SearchOptions
) -> None:
    start = copytree(model_folder, tmp_path / "start")
    config = read_json(start / CONFIG_FILE)
    config["search"] |= {"beam_size": 4, "length_penalty": 0.9, "max_length": 6}
    write_json(start / CONFIG_FILE, config)
    write_manifest(start)
    options = replace(OPEN, start_from=str(start), beam_size=None, epochs=1)
    train(prepared, replace(options, **given), tmp_path / "mine")
    assert load_model_folder(tmp_path / "mine", CPU).config.search == wanted


@pytest.mark.usefixtures("default_is_walls")
@pytest.mark.parametrize("changes", [{}, {"keep_words": True, "average": 0.9}, {"fine_tune_encoder": True}])
def test_other_words_are_learnt_saved_and_said_and_a_resumed_training_ends_alike(
    purple: PreparedFolder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    options = replace(OPEN, epochs=4 if "fine_tune_encoder" in changes else 25, dropout=0.0, **changes)
    recorder = Recorder()
    result = train(purple, options, tmp_path / "mine", listener=recorder)
    assert result.best == recorder.results[-1]
    kept = (
        "Starts from the model 'walls': 10 of its 10" if "keep_words" in changes else "walls': 7 of its 10",
        "1 is new",
    )
    assert all(part in recorder.plan[0] for part in kept)
    words = read_json(tmp_path / "mine" / VOCABULARY_FILE)["words"]
    assert "purple" in words
    assert ("red" in words) is ("keep_words" in changes)
    if "fine_tune_encoder" not in changes:
        said = {record.caption for record in caption_split(purple.root, str(tmp_path / "mine"), "train").records}
        assert any("purple" in caption for caption in said)

    with pytest.raises(RuntimeError):
        train(purple, options, tmp_path / "killed", listener=Killer(2, RuntimeError))
    train(purple, TrainingOptions(), tmp_path / "killed", resume=True)
    for name in (DECODER_FILE, INDEX_FILE, VOCABULARY_FILE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "mine" / name).read_bytes()


def test_self_critical_training_keeps_the_words_of_its_start(
    purple: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    options = replace(OPEN, self_critical=True, start_from=str(model_folder), epochs=1, patience=1)
    train(purple, options, tmp_path / "critical")
    names = [read_json(folder / VOCABULARY_FILE) for folder in (model_folder, tmp_path / "critical")]
    assert names[0] == names[1]


def test_captions_in_another_language_share_no_word_and_can_be_learnt(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    records = [replace(record, captions=("Ein Haus am See",)) for record in prepared.records]
    german = with_records(prepared, records, tmp_path / "german")
    recorder = Recorder()
    train(german, replace(OPEN, start_from=str(model_folder), epochs=20), tmp_path / "mine", listener=recorder)
    assert recorder.plan[0] == "Starts from the model 'walls': 0 of its 10 words stay, 4 are new."
    captions = {record.caption for record in caption_split(german.root, str(tmp_path / "mine"), "test").records}
    assert captions == {"ein haus am see"}


def test_few_images_need_no_val_split_and_keep_the_last_epoch(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    one = [replace(record, split="train" if row == 0 else None) for row, record in enumerate(prepared.records)]
    single = with_records(prepared, one, tmp_path / "single")
    recorder = Recorder()
    options = replace(OPEN, start_from=str(model_folder))
    result = train(single, options, tmp_path / "mine", listener=recorder)
    assert recorder.plan[1].startswith("1 training image: ")
    assert [row.val_cider_d for row in recorder.results] == [None, None]
    assert result.best.epoch == 2
    verify(tmp_path / "mine")
    config = read_json(tmp_path / "mine" / CONFIG_FILE)
    assert (config["training"]["images"], config["confidence"]) == ({"train": 1, "val": 0}, None)
    assert config["training"]["options"]["start_from"] == str(model_folder)


def test_a_val_split_of_few_images_is_only_scored_at_the_end(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    recorder = Recorder()
    train(prepared, replace(OPEN, start_from=str(model_folder), epochs=3), tmp_path / "mine", listener=recorder)
    assert [row.val_cider_d is None for row in recorder.results] == [True, True, False]
    assert (tmp_path / "mine" / METRICS_FILE).exists()
