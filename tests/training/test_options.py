"""Options of a training: what is refused, and what a resumed training keeps."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from imgcap.errors import UsageError
from imgcap.model.search_options import SearchOptions
from imgcap.training.options import TrainingOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"patience": -1},
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


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"beam_size": 0}, "The beam size must be between 1 and 1000, not 0."),
        ({"length_penalty": 11.0}, "The length penalty must be between 0 and 10, not 11.0."),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainingOptions(**wrong)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_options_of_an_earlier_version_keep_their_search() -> None:
    saved = asdict(TrainingOptions(start_from="none"))
    del saved["beam_size"], saved["length_penalty"]
    saved["search"] = asdict(SearchOptions(beam_size=4, length_penalty=0.9))
    assert TrainingOptions.from_dict(saved) == TrainingOptions(start_from="none", beam_size=4, length_penalty=0.9)


def test_self_critical_training_needs_a_model_to_start_from() -> None:
    with pytest.raises(UsageError, match="needs a trained model") as caught:
        TrainingOptions(self_critical=True, start_from="none")
    assert "--start-from" in caught.value.hint
    with pytest.raises(UsageError, match="at least 2 samples"):
        TrainingOptions(self_critical=True, start_from="default", samples=1)
