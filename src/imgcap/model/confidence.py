"""Calibrated confidence: the probability that a caption agrees with people as well as people agree with each other.

A caption agrees if it could replace one of the image's references: its CIDEr-D against the other references is at least
that reference's own. The probability is a logistic function of the word probabilities (Platt 1999), fitted on the val
split. Agreement is measured with CIDEr-D, so the package `model` is above `scoring`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgcap.errors import ImgcapError
from imgcap.model.search import Hypothesis
from imgcap.scoring.metrics.cider import CiderD
from imgcap.scoring.metrics.ngrams import Tokens

FEWEST_IMAGES = 50
"""Minimum number of images with two references for a calibration."""

_NUM_WEIGHTS = 3
_FOLDS = 10
_RIDGE = 1e-3
_NEWTON_STEPS = 50

Values = npt.NDArray[np.float64]
Outcomes = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """Maps a hypothesis to a probability. Raises `ImgcapError` if the values are not finite numbers."""

    weights: tuple[float, ...]
    """Weights of 1, and of the mean and the lowest log-probability of the words and `<end>`; the sum is a logit."""
    images: int
    """Number of val images used for the fit."""
    agreeing: float
    """Fraction of them whose captions agree with people, 0-1."""
    calibration_error: float
    """Expected calibration error, 0-1, from cross-validation on the val images."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        numbers = (*self.weights, self.images, self.agreeing, self.calibration_error)
        finite = all(type(n) in (int, float) and abs(n) <= sys.float_info.max for n in numbers)
        if len(self.weights) != _NUM_WEIGHTS or not finite:
            raise ImgcapError(f"There is no calibration with the values {numbers}.")

    def probability(self, hypothesis: Hypothesis) -> float:
        """The probability, 0-1, that `hypothesis` agrees with people."""
        return float(_logistic(_inputs([hypothesis]) @ np.array(self.weights))[0])


def agreement(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Outcomes:
    """Whether each image's caption agrees with people as well as one of its references does, bool (N,).

    Every image needs at least two references.
    """
    agrees = np.zeros(len(hypotheses), dtype=bool)
    counts = np.array([len(captions) for captions in references])
    for left_out in range(counts.max(initial=0)):
        cider = CiderD([[*captions[:left_out], *captions[left_out + 1 :]] for captions in references])
        has_reference = counts > left_out
        people = [captions[left_out] if len(captions) > left_out else () for captions in references]
        agrees |= has_reference & (cider.score(hypotheses) >= cider.score(people))
    return agrees


def fit(hypotheses: Sequence[Hypothesis], outcomes: Outcomes) -> Calibration:
    """Calibrate on `hypotheses` and on whether each of them agrees with people, bool (N,)."""
    inputs = _inputs(hypotheses)
    folds = np.arange(len(outcomes)) % _FOLDS
    held_out = np.empty(len(outcomes))  # the probability of each outcome, from a fit without it
    for fold in range(_FOLDS):
        weights = _regress(inputs[folds != fold], outcomes[folds != fold])
        held_out[folds == fold] = _logistic(inputs[folds == fold] @ weights)
    return Calibration(
        weights=tuple(_regress(inputs, outcomes).tolist()),
        images=len(outcomes),
        agreeing=float(outcomes.mean()),
        calibration_error=expected_calibration_error(held_out, outcomes),
    )


def expected_calibration_error(probabilities: Values, outcomes: Outcomes, bins: int = 10) -> float:
    """Mean difference between predicted probabilities and outcomes, both (N,); 0-1 (Guo et al. 2017, section 2).

    Differences are taken in `bins` bins of equal width and weighted by the number of probabilities in each.
    """
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(places, weights=probabilities - outcomes, minlength=bins)
    return float(np.abs(gaps).sum() / len(outcomes))


def _inputs(hypotheses: Sequence[Hypothesis]) -> Values:
    """Inputs of the regression, float64 (N, 3): 1, and the mean and lowest log-probability of the words and `<end>`."""
    rows = []
    for hypothesis in hypotheses:
        words = hypothesis.word_log_probabilities
        rows.append((1.0, sum(words) / len(words), min(words)))
    return np.array(rows, dtype=np.float64)


def _logistic(logits: Values) -> Values:
    return 0.5 + 0.5 * np.tanh(logits / 2)  # never overflows


def _regress(inputs: Values, outcomes: Outcomes) -> Values:
    """Weights of a logistic regression, by Newton's method.

    As in Platt (1999), the targets are not quite 0 and 1, which keeps the weights finite if all outcomes are equal. A
    small ridge penalty does the same for constant columns.
    """
    yes = int(outcomes.sum())
    targets = np.where(outcomes, (yes + 1) / (yes + 2), 1 / (len(outcomes) - yes + 2))
    weights = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON_STEPS):
        probabilities = _logistic(inputs @ weights)
        gradient = inputs.T @ (probabilities - targets) + _RIDGE * weights
        curvature = (inputs.T * (probabilities * (1 - probabilities))) @ inputs
        weights -= np.linalg.solve(curvature + _RIDGE * np.eye(len(weights)), gradient)
    return weights
