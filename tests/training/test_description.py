"""A training in words."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from helpers.data import Run
from helpers.training import CPU
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode
from imgcap.model.folder import load_model_folder
from imgcap.text.vocabulary import SPECIAL_WORDS
from imgcap.training.description import describe, describe_model
from imgcap.training.options import TrainingOptions
from imgcap.training.settings import complete

OPTIONS = TrainingOptions(
    beam_size=3, length_penalty=0.7, start_from="none", learning_rate=1e-3, embedding_size=32, hidden_size=64
)
COMPLETE = complete(OPTIONS, 1200, 6000, from_model=False)


def training(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The `training` of a model's settings."""
    known = {"images": {"train": 1200, "val": 200}, "captions": 6000, "epochs": 20, "best_epoch": 12}
    return {"options": asdict(replace(COMPLETE, **options)), "imgcap": "1.0", "torch": "2.9", **known, **more}


def test_a_model_folder_tells_what_it_knows(imgcap_here: Run, model_folder: Path, prepared: PreparedFolder) -> None:
    done = imgcap_here("model", "show", model_folder)
    assert done.returncode == ExitCode.DONE, done.stderr
    told = dict(re.split(" {2,}", line, maxsplit=1) for line in done.stdout.splitlines())
    config = load_model_folder(model_folder, CPU).config
    assert config.training["val_cider_d"] is not None
    assert told == told | {
        "model": "walls",
        "folder": str(model_folder),
        "vocabulary": f"{config.decoder.vocabulary_size - len(SPECIAL_WORDS)} words",
        "sizes": "embeddings of 16 numbers and an LSTM of 16",
        "encoder": f"{config.encoder_fingerprint[:16]}, not the default model's",
        "search": "beam 2, length penalty 0.7, at most 24 words",
        "confidence": "none",
        "training: seed": "0",
        "val scores": f"CIDEr-D {config.training['val_cider_d']:.4f}, BLEU-4 {config.training['val_bleu'][3]:.4f}",
    }
    assert told["training: data"].startswith(f"{len(prepared.rows('train'))} images with ")


@pytest.mark.parametrize("training", [{"options": {"seed": 1}}, {"options": [1]}, {"options": {}}])
def test_a_model_folder_whose_training_is_odd_tells_the_rest(model_folder: Path, training: dict[str, Any]) -> None:
    model = load_model_folder(model_folder, CPU)
    told = dict(describe_model(replace(model, config=replace(model.config, training=training))))
    assert told["model"] == "walls"
    assert ("training" in told) == bool(training["options"])


def test_what_was_done_is_told() -> None:
    options = {"epochs": 30, "patience": 8, "start_from": "default"}
    found = dict(describe(training(options), seconds=3725))
    assert found == {
        "start": "the weights of default",
        "data": "1,200 images with 6,000 captions, and 200 val images",
        "words": "those of default that the captions have, and of the others those that occur 3 times or more",
        "epochs": "20 in 1 h 2 min; number 12 was kept, which has the highest CIDEr-D on the val images; stopped after "
        "8 epochs without a better one, of at most 30",
        "loss": "next word, label smoothing 0.1, dropout 0.5",
        "optimiser": "AdamW with a peak learning rate of 0.001 and a weight decay of 0.01, on batches of 128 captions",
        "encoder": "not trained",
        "search": "beam 3, length penalty 0.7",
        "seed": "0",
        "made by": "imgcap 1.0, torch 2.9",
    }


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({}, "start", "random weights, embeddings of 32 numbers and an LSTM of 64"),
        ({"min_count": 1}, "words", "all"),
        ({"min_count": 2}, "words", "those that occur 2 times or more"),
        ({"min_count": 1, "start_from": "x"}, "words", "those of x that the captions have, and of the others all"),
        ({"start_from": "x", "keep_words": True, "min_count": 1}, "words", "those of x, and of the others all"),
        ({"start_from": "x", "self_critical": True}, "words", "those of x"),
        ({"epochs": 20, "patience": 0}, "epochs", "20 in 1 s; number 12 was kept"),
        ({"word_dropout": 0.25, "val_share": 0.1}, "other options", "word dropout 0.25, val share 0.1"),
        (
            {"self_critical": True, "start_from": "x", "samples": 7, "batch_size": 16, "learning_rate": 2e-5},
            "loss",
            "CIDEr-D of 7 sampled captions of each image (self-critical training)",
        ),
        (
            {"fine_tune_encoder": True, "learning_rate": 2e-4, "batch_size": 32},
            "optimiser",
            "AdamW with a peak learning rate of 0.0002, 2e-05 for the encoder and a weight decay of 0.01, on batches "
            "of 32 images",
        ),
        ({"fine_tune_encoder": True}, "encoder", "trained too"),
    ],
)
def test_what_was_chosen_is_told(options: dict[str, Any], name: str, value: str) -> None:
    assert dict(describe(training(options), seconds=1))[name] == value


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s")])
def test_the_time_is_told(seconds: float, words: str) -> None:
    options = {"epochs": 20, "patience": 8}
    found = dict(describe(training(options, best_epoch=20), seconds))["epochs"]
    assert found == f"20 in {words}; the last one was kept, which has the highest CIDEr-D on the val images"


def test_a_training_without_val_images_tells_of_none() -> None:
    found = dict(describe(training({"patience": 0}, images={"train": 50, "val": 0}, captions=250), seconds=1))
    assert found["data"] == "50 images with 250 captions"
