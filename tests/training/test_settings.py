"""The settings that follow from the number of images, and how the choice is said."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from imgcap.dataset.splits import FEW_IMAGES
from imgcap.training.options import TrainingOptions
from imgcap.training.settings import FROM_MODEL, FROM_SCRATCH, SELF_CRITICAL, Settings, complete, described


@pytest.mark.parametrize("table", [FROM_MODEL, FROM_SCRATCH, SELF_CRITICAL])
def test_a_table_ascends_and_ends_without_a_limit(table: dict[int | None, Settings]) -> None:
    *limits, last = table
    assert last is None
    assert limits == sorted(limit for limit in limits if limit)


@pytest.mark.parametrize(
    ("images", "from_model", "settings"),
    [
        (1, True, FROM_MODEL[500]),
        (499, True, FROM_MODEL[500]),
        (500, True, FROM_MODEL[5000]),
        (4999, True, FROM_MODEL[5000]),
        (5000, True, FROM_MODEL[None]),
        (10**6, True, FROM_MODEL[None]),
        (FEW_IMAGES - 1, False, FROM_SCRATCH[FEW_IMAGES]),
        (FEW_IMAGES, False, FROM_SCRATCH[None]),
    ],
)
def test_the_number_of_images_chooses_what_is_left_open(images: int, from_model: bool, settings: Settings) -> None:
    assert Settings.of(complete(TrainingOptions(), images, 5 * images, from_model)) == settings


def test_fewer_captions_an_image_mean_more_epochs() -> None:
    epochs = FROM_MODEL[500].epochs
    for captions, wanted in ((50, 5 * epochs), (250, epochs), (500, epochs)):
        assert Settings.of(complete(TrainingOptions(), 50, captions, True)).epochs == wanted
    assert Settings.of(complete(TrainingOptions(), 5000, 5000, True)).epochs == FROM_MODEL[None].epochs


def test_what_is_given_stays() -> None:
    given = Settings(epochs=3, patience=2, batch_size=7, learning_rate=0.5, dropout=0.0)
    assert Settings.of(complete(TrainingOptions(**asdict(given)), 10, 10, True)) == given


def test_self_critical_training_has_settings_of_its_own() -> None:
    options = complete(TrainingOptions(self_critical=True, start_from="default"), 10, 10, True)
    assert Settings.of(options) == SELF_CRITICAL[None]


def test_complete_options_stay_as_they_are() -> None:
    options = complete(TrainingOptions(), 50, 50, True)
    assert complete(options, 5000, 9000, False) == options


@pytest.mark.parametrize(
    ("images", "patience", "by_table", "sentence"),
    [
        (
            1,
            0,
            True,
            "1 training image: batches of 32, learning rate 0.001, dropout 0.25, 7 epochs, of which the last is kept, "
            "because with so few images a val score would choose by chance.",
        ),
        (
            50,
            2,
            True,
            "50 training images: batches of 32, learning rate 0.001, dropout 0.25, at most 7 epochs, of which the one "
            "with the best val score is kept.",
        ),
        (
            50,
            0,
            False,
            "50 training images: batches of 32, learning rate 0.001, dropout 0.25, 7 epochs, of which the last is "
            "kept.",
        ),
    ],
)
def test_the_choice_is_one_sentence(images: int, patience: int, by_table: bool, sentence: str) -> None:
    options = TrainingOptions(epochs=7, patience=patience, batch_size=32, learning_rate=1e-3, dropout=0.25)
    assert described(options, images, by_table) == sentence
