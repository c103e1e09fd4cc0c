"""Options of a training: what is refused, and what a resumed training keeps."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from imgcap.errors import UsageError
from imgcap.model.search_options import SearchOptions
from imgcap.training.options import TrainingOptions, resumed_options


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
    [(name, value)] = wrong.items()
    with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} must be .*, not {value}.$"):
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
    with pytest.raises(UsageError, match=r"--samples must be at least 2, not 1\."):
        TrainingOptions(self_critical=True, start_from="default", samples=1)


def test_a_resumed_training_refuses_other_values_and_has_its_own() -> None:
    saved = TrainingOptions(beam_size=5, min_count=2)
    given = replace(saved, beam_size=7, min_count=9, keep_words=True)
    with pytest.raises(UsageError) as caught:
        resumed_options(given, saved)
    assert str(caught.value) == (
        "A resumed training keeps its options, but other values are given: --min-count, --keep-words, --beam-size."
    )
    assert caught.value.hint == (
        "It began with --min-count 2, without --keep-words, with --beam-size 5. Leave these out, or start a new "
        "training in another folder."
    )
