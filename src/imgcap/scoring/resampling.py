"""How far scores can be trusted: bootstrap intervals, and paired comparison of two sets of captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgcap.scoring.scores import METRICS, ImageScores, metrics_of_sums

DRAWS = 1000
"""Bootstrap draws behind an interval."""
SHUFFLES = 10_000
"""Random exchanges behind a p-value."""
SEED = 0
ALPHA = 0.05
"""Significance level: a difference with a smaller p-value is reported."""
FEWEST_IMAGES = 6
"""With fewer images, p cannot be below `ALPHA`: of 2^5 exchanges, two always leave the whole difference."""
VERDICT_METRIC = "cider_d"
"""The metric that decides the verdict. It is chosen in advance: of six metrics, some would differ by chance."""

_CELLS = 1 << 23
"""Maximum number of random numbers in memory."""

Values = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """How much higher one set of captions scores than another on the same images."""

    value: float
    interval: Interval
    """95 %, by paired bootstrap (Koehn 2004)."""
    p: float
    """Two-sided p-value by approximate randomisation, which exchanges the two captions of each image at random
    (Noreen 1989; Riezler and Maxwell 2005)."""


def intervals(images: ImageScores) -> dict[str, Interval]:
    """95 % percentile bootstrap interval of each of `METRICS` over the images (Efron and Tibshirani 1993).

    The statistics of the drawn images are summed, not computed again. The draws are always the same.
    """
    return _limits(_bootstrap(images))


def compare(ours: ImageScores, theirs: ImageScores) -> dict[str, Difference]:
    """The difference `ours` - `theirs` in each of `METRICS`, for the same images in the same order."""
    count = len(ours)
    total_ours, total_theirs = (p.summands.sum(0, keepdims=True) for p in (ours, theirs))
    observed = (metrics_of_sums(total_ours, count) - metrics_of_sums(total_theirs, count))[0]
    limits = _limits(_bootstrap(ours) - _bootstrap(theirs))
    as_large = np.zeros(len(METRICS))
    gap = ours.summands - theirs.summands
    random = np.random.default_rng(SEED)
    for size in _blocks(SHUFFLES, count):
        moved = random.integers(0, 2, (size, count), dtype=np.int8) @ gap
        shuffled = metrics_of_sums(total_ours - moved, count) - metrics_of_sums(total_theirs + moved, count)
        as_large += (np.abs(shuffled) >= np.abs(observed) - 1e-12).sum(0)
    p_values = (as_large + 1) / (SHUFFLES + 1)
    return {
        name: Difference(float(value), limits[name], float(p))
        for name, value, p in zip(METRICS, observed, p_values, strict=True)
    }


def verdict(differences: dict[str, Difference], ours: str, theirs: str, images: int) -> str:
    """The result of `compare` on this many images, in one or two sentences."""
    name, chosen = METRICS[VERDICT_METRIC], differences[VERDICT_METRIC]
    better, worse, (low, high) = ours, theirs, chosen.interval
    if chosen.value < 0:
        better, worse, (low, high) = theirs, ours, (-high, -low)
    if chosen.value == low == high == 0:
        return f"No difference: {ours} and {theirs} have the same {name} on every image."
    low, high = (round(limit, 4) + 0.0 for limit in (low, high))  # no "-0.0000"
    found = f"{abs(chosen.value):.4f} in {name} (95 % interval {low:.4f} to {high:.4f}, p = {chosen.p:.4f})"
    if chosen.p < ALPHA:
        sentence = f"{better} is better than {worse} by {found}: more than chance among these images explains."
    elif images < FEWEST_IMAGES:
        return (
            f"Too few images: {better} is ahead of {worse} by {found}, but fewer than {FEWEST_IMAGES} images can "
            "never tell a difference from chance."
        )
    else:
        sentence = (
            f"No verdict: {better} is ahead of {worse} by {found}, which chance among these images can explain. "
            f"With {images:,} images, a difference shows from about {(high - low) / 2:.2f} on."
        )
    against = [
        METRICS[other]
        for other, difference in differences.items()
        if difference.p < ALPHA and difference.value * chosen.value < 0
    ]
    return sentence + (f" But {', '.join(against)} says the opposite." if against and chosen.p < ALPHA else "")


def _bootstrap(images: ImageScores) -> Values:
    """`METRICS` of each draw: (DRAWS, 6)."""
    count = len(images)
    random = np.random.default_rng(SEED)
    found = [
        metrics_of_sums(random.multinomial(count, np.full(count, 1 / count), size) @ images.summands, count)
        for size in _blocks(DRAWS, count)
    ]
    return np.concatenate(found)


def _limits(draws: Values) -> dict[str, Interval]:
    low, high = np.percentile(draws, (2.5, 97.5), axis=0).tolist()
    return dict(zip(METRICS, zip(low, high, strict=True), strict=True))


def _blocks(total: int, count: int) -> Iterator[int]:
    """Block sizes that add up to `total`, each with at most `_CELLS` random numbers for `count` images."""
    size = max(1, _CELLS // count)
    while total > 0:
        yield min(size, total)
        total -= size
