"""Calibrated confidence: what agreement means, what the regression recovers, and how calibration is measured."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest

from imgcap.errors import ImgcapError
from imgcap.model.confidence import Calibration, agreement, expected_calibration_error, fit
from imgcap.model.search import Hypothesis
from imgcap.scoring.metrics.cider import CiderD


def make_hypotheses(count: int) -> list[Hypothesis]:
    rng = np.random.default_rng(0)
    rows = [-rng.exponential(1.0, size=rng.integers(3, 15)) for _ in range(count)]
    return [Hypothesis((4,) * (len(row) - 1), tuple(row.tolist()), 0.0) for row in rows]


def chance(hypothesis: Hypothesis) -> float:
    """An invented truth: captions with probable words agree more often."""
    words = hypothesis.word_log_probabilities
    return 1 / (1 + math.exp(-(3.0 + 2.0 * sum(words) / len(words) + 0.3 * min(words))))


def test_a_fit_recovers_the_probabilities_that_outcomes_were_drawn_with() -> None:
    hypotheses = make_hypotheses(6000)
    truth = np.array([chance(h) for h in hypotheses])
    outcomes = np.random.default_rng(1).random(len(truth)) < truth
    calibration = fit(hypotheses, outcomes)
    found = np.array([calibration.probability(h) for h in hypotheses])
    assert truth.std() > 0.15
    assert np.abs(found - truth).mean() < 0.02
    assert calibration.weights == pytest.approx((3.0, 2.0, 0.3), abs=0.5)
    assert calibration.images == 6000
    assert calibration.agreeing == outcomes.mean()
    assert calibration.calibration_error < 0.03


def test_the_calibration_error_is_that_of_images_that_were_not_seen() -> None:
    """With random outcomes, an overfitted calibration does not help."""
    hypotheses = make_hypotheses(20)
    outcomes = np.random.default_rng(2).random(20) < 0.5
    calibration = fit(hypotheses, outcomes)
    seen = np.array([calibration.probability(h) for h in hypotheses])
    assert calibration.calibration_error > expected_calibration_error(seen, outcomes)


@pytest.mark.parametrize("outcome", [True, False])
def test_equal_outcomes_leave_the_probability_below_one(outcome: bool) -> None:
    hypotheses = make_hypotheses(100)
    calibration = fit(hypotheses, np.full(100, outcome))
    wrong = [abs(calibration.probability(h) - outcome) for h in hypotheses]
    assert min(wrong) > 0
    assert max(wrong) < 0.1


def test_separable_outcomes_leave_the_weights_finite() -> None:
    hypotheses = make_hypotheses(200)
    means = np.array([sum(h.word_log_probabilities) / len(h.word_log_probabilities) for h in hypotheses])
    calibration = fit(hypotheses, means > np.median(means))
    found = np.array([calibration.probability(h) for h in hypotheses])
    assert ((found > 0.5) == (means > np.median(means))).mean() > 0.97
    assert (found > 0).all() and (found < 1).all()


def test_the_most_absurd_hypothesis_has_a_probability() -> None:
    calibration = Calibration((3.0, 2.0, 0.3), 100, 0.5, 0.0)
    assert calibration.probability(Hypothesis((4,), (-1e6, -1e6), 0.0)) == 0.0
    assert calibration.probability(Hypothesis((4,), (0.0, 0.0), 0.0)) == pytest.approx(0.9526, abs=1e-4)


def test_a_caption_agrees_if_it_could_replace_a_reference() -> None:
    references = [
        [["a", "dog", "runs", "on", "grass"], ["a", "brown", "dog", "runs", "on", "the", "grass"], ["two", "kites"]],
        [["a", "man", "climbs", "a", "rock"], ["a", "man", "climbs", "a", "steep", "rock"]],
        [["a", "girl", "sits", "on", "a", "bench"], ["a", "girl", "sits", "on", "a", "bench"]],
        [["snow"]] * 2,
    ]
    hypotheses = [["a", "dog", "runs"], ["red", "car"], ["a", "girl", "sits", "on", "a", "wall"], ["snow"]]
    assert agreement(hypotheses, references).tolist() == [True, False, False, True]


def test_agreement_equals_a_plain_loop_over_its_definition() -> None:
    rng = np.random.default_rng(3)
    words = ["a", "dog", "cat", "runs", "sits", "on", "the", "grass", "red", "ball"]

    def caption() -> list[str]:
        return rng.choice(words, size=rng.integers(3, 8)).tolist()  # type: ignore[no-any-return]

    references = [[caption() for _ in range(2 + i % 4)] for i in range(40)]
    hypotheses = [caption() for _ in references]
    expected = [False] * len(references)
    for k in range(5):
        rest = [own[:k] + own[k + 1 :] for own in references]
        cider = CiderD(rest)
        for i, own in enumerate(references):
            if k < len(own):
                ours, theirs = cider.score([hypotheses[i], own[k]], [i, i])
                expected[i] |= bool(ours >= theirs)
    assert agreement(hypotheses, references).tolist() == expected
    assert len(set(expected)) == 2


def test_expected_calibration_error_by_hand() -> None:
    probabilities = np.array([0.1, 0.15, 0.32, 0.38, 0.9, 1.0])
    outcomes = np.array([False, True, True, True, True, True])
    # Bins 1 (gap |0.25 - 1|), 3 (|0.7 - 2|) and 9 (|1.9 - 2|), in sums over six images.
    assert expected_calibration_error(probabilities, outcomes) == pytest.approx((0.75 + 1.3 + 0.1) / 6)
    assert expected_calibration_error(probabilities, outcomes, bins=1) == pytest.approx(abs(2.85 - 5) / 6)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": [1.0, 2.0]},
        {"weights": [1.0, 2.0, math.nan]},
        {"weights": "abc"},
        {"weights": [1.0, 2.0, "3"]},
        {"images": None},
        {"calibration_error": math.inf},
    ],
    ids=str,
)
def test_an_invalid_calibration_is_one_sentence(wrong: dict[str, object]) -> None:
    whole = asdict(Calibration((1.0, 2.0, 3.0), 100, 0.5, 0.01))
    assert Calibration(**{**whole, "weights": [1.0, 2.0, 3.0]}) == Calibration(**whole)
    with pytest.raises(ImgcapError, match="no calibration"):
        Calibration(**{**whole, **wrong})
