"""Options of a training: what is refused, and what a resumed training keeps."""

from __future__ import annotations

import pytest

from imgcap.errors import UsageError
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


def test_self_critical_training_needs_a_model_to_start_from() -> None:
    with pytest.raises(UsageError, match="needs a trained model") as caught:
        TrainingOptions(self_critical=True, start_from="none")
    assert "--start-from" in caught.value.hint
    with pytest.raises(UsageError, match="at least 2 samples"):
        TrainingOptions(self_critical=True, start_from="default", samples=1)
