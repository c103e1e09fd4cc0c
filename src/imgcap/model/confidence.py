"""Calibrated confidence: how likely it is that a caption agrees with people as well as people agree with each other.

A caption is taken to agree if there is one among the image's references with which it may change places: its CIDEr-D
against the other references is at least that reference's own. The probability of this is a logistic function of what
the model's word probabilities look like (Platt 1999), fitted on the val split.
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
"""Images with two references, without which there is nothing to calibrate on."""

_WEIGHTS = 3
_FOLDS = 10
_RIDGE = 1e-3
_NEWTON_STEPS = 50

Values = npt.NDArray[np.float64]
Outcomes = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """From a hypothesis to a probability. Raises `ImgcapError` for values that make no sense."""

    weights: tuple[float, ...]
    """Of a constant 1, the mean log-probability of the words and `<end>`, and the lowest; they add up to a logit."""
    images: int
    """Val images that it was fitted on."""
    agreeing: float
    """Share of them whose captions agree with people, 0-1."""
    calibration_error: float
    """Expected calibration error, 0-1, on val images that were left out of the fit in turn."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        numbers = (*self.weights, self.images, self.agreeing, self.calibration_error)
        finite = all(type(n) in (int, float) and abs(n) <= sys.float_info.max for n in numbers)
        if len(self.weights) != _WEIGHTS or not finite:
            raise ImgcapError(f"There is no calibration with the values {numbers}.")

    def probability(self, hypothesis: Hypothesis) -> float:
        """Confidence in `hypothesis`, 0-1: the probability that it agrees with people."""
        return float(_logistic(_describe([hypothesis]) @ np.array(self.weights))[0])


def agreement(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Outcomes:
    """Whether each image's caption agrees with people as well as one of its references does, bool (N,).

    Every image needs two references or more.
    """
    agrees = np.zeros(len(hypotheses), dtype=bool)
    counts = np.array([len(captions) for captions in references])
    for left_out in range(counts.max(initial=0)):
        cider = CiderD([[*captions[:left_out], *captions[left_out + 1 :]] for captions in references])
        there = counts > left_out
        people = [captions[left_out] if len(captions) > left_out else () for captions in references]
        agrees |= there & (cider.score(hypotheses) >= cider.score(people))
    return agrees


def fit(hypotheses: Sequence[Hypothesis], outcomes: Outcomes) -> Calibration:
    """Calibrate on `hypotheses` and whether each agrees with people, bool (N,)."""
    described = _describe(hypotheses)
    folds = np.arange(len(outcomes)) % _FOLDS
    unseen = np.empty(len(outcomes))
    for fold in range(_FOLDS):
        weights = _regress(described[folds != fold], outcomes[folds != fold])
        unseen[folds == fold] = _logistic(described[folds == fold] @ weights)
    return Calibration(
        weights=tuple(_regress(described, outcomes).tolist()),
        images=len(outcomes),
        agreeing=float(outcomes.mean()),
        calibration_error=expected_calibration_error(unseen, outcomes),
    )


def expected_calibration_error(probabilities: Values, outcomes: Outcomes, bins: int = 10) -> float:
    """How far probabilities are from how often things come true, 0-1 (Guo et al. 2017, section 2).

    The mean difference within `bins` bins of equal width, weighted by how many of `probabilities`, (N,), lie in each.
    """
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(places, weights=probabilities - outcomes, minlength=bins)
    return float(np.abs(gaps).sum() / len(outcomes))


def _describe(hypotheses: Sequence[Hypothesis]) -> Values:
    """A constant 1, the mean log-probability of the words and `<end>`, and the lowest: float64 (N, 3)."""
    rows = []
    for hypothesis in hypotheses:
        words = hypothesis.word_log_probabilities
        rows.append((1.0, sum(words) / len(words), min(words)))
    return np.array(rows, dtype=np.float64)


def _logistic(logits: Values) -> Values:
    return 0.5 + 0.5 * np.tanh(logits / 2)  # never overflows


def _regress(described: Values, outcomes: Outcomes) -> Values:
    """Weights of a logistic regression, by Newton's method.

    As in Platt (1999), targets stay away from 0 and 1, so that the weights stay finite where all outcomes are the same;
    a small ridge does the same for columns that do not vary.
    """
    yes = int(outcomes.sum())
    targets = np.where(outcomes, (yes + 1) / (yes + 2), 1 / (len(outcomes) - yes + 2))
    weights = np.zeros(described.shape[1])
    for _ in range(_NEWTON_STEPS):
        probabilities = _logistic(described @ weights)
        gradient = described.T @ (probabilities - targets) + _RIDGE * weights
        curvature = (described.T * (probabilities * (1 - probabilities))) @ described
        weights -= np.linalg.solve(curvature + _RIDGE * np.eye(len(weights)), gradient)
    return weights
