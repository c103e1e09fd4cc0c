"""Histograms of the score page: words in a caption, and CIDEr-D of an image and its gain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from imgcap.pages.interval_plot import round_up
from imgcap.pages.plots import Histogram, histogram_svg
from imgcap.pages.selection import SHOWN_AS_ZERO
from imgcap.text.tokenizer import tokenize

_LONGEST = 40
"""Words of a caption that has a bar of its own; longer ones share the last bar."""
_CIDER_BINS = 25


@dataclass(frozen=True)
class Figure:
    """A heading, an SVG drawing, and one sentence that describes it."""

    heading: str
    drawing: str
    text: str


def caption_lengths(captions: Iterable[str], references: Iterable[str]) -> Figure:
    """How many tokens captions and references have."""
    ours, theirs = ([len(tokenize(text)) for text in texts] for texts in (captions, references))
    both = ours + theirs
    lengths = range(min(_LONGEST, *both), min(_LONGEST, max(both)) + 1)

    def shares(counted: Sequence[int]) -> list[float]:
        counts = Counter(min(length, _LONGEST) for length in counted)
        return [100 * counts[length] / max(len(counted), 1) for length in lengths]

    names = [f"{n} words" if n < _LONGEST else f"{n} words or more" for n in lengths]
    x_label = "words" if lengths[-1] < _LONGEST else f"words (the last bar: {_LONGEST} or more)"
    histograms = [Histogram("captions", shares(ours)), Histogram("references", shares(theirs))]
    drawing = histogram_svg("share (%)", x_label, names, lengths[0] - 0.5, 1, histograms)
    text = f"Captions have {_mean_and_range(ours)}, references {_mean_and_range(theirs)}."
    return Figure("Words in a caption", drawing, text)


def cider_d_scores(values: Iterable[float]) -> Figure | None:
    """How CIDEr-D is distributed over the images; None if no value is finite."""
    scores = [value for value in values if math.isfinite(value)]
    if not scores:
        return None
    step = round_up(max(1.0, *scores) / _CIDER_BINS)
    counts = Counter(int(score / step) for score in scores)
    bins = range(max(counts) + 1)
    names = [f"{i * step:g} to {(i + 1) * step:g}" for i in bins]
    shares = Histogram("images", [100 * counts[i] / len(scores) for i in bins])
    drawing = histogram_svg("share (%)", "CIDEr-D", names, 0, step, [shares])
    zero = sum(score < SHOWN_AS_ZERO for score in scores)
    text = (
        f"The median of {len(scores):,} images is {median(scores):.2f}, the highest {max(scores):.2f}; "
        f"{zero:,} of them at 0.00."
    )
    return Figure("CIDEr-D of an image", drawing, text)


def cider_d_gains(values: Iterable[float]) -> Figure | None:
    """How the gains in CIDEr-D over other captions are distributed over the images; None if no value is finite."""
    gains = [value for value in values if math.isfinite(value)]
    if not gains:
        return None
    step = round_up(2 * max(1.0, *map(abs, gains)) / _CIDER_BINS)
    counts = Counter(math.floor(gain / step) for gain in gains)
    bins = range(min(0, *counts), max(0, *counts) + 1)
    names = [f"{i * step:g} to {(i + 1) * step:g}" for i in bins]
    shares = Histogram("images", [100 * counts[i] / len(gains) for i in bins])
    drawing = histogram_svg("share (%)", "gain in CIDEr-D", names, bins[0] * step, step, [shares])
    up, down = (sum(sign * gain >= SHOWN_AS_ZERO for gain in gains) for sign in (1, -1))
    text = (
        f"Images that gain: {up:,}, lose: {down:,}, stay the same: {len(gains) - up - down:,}; the mean is "
        f"{fmean(gains):+.2f}."
    )
    return Figure("Gain in CIDEr-D of an image", drawing, text)


def _mean_and_range(lengths: Sequence[int]) -> str:
    if not lengths:
        return "none"
    return f"{fmean(lengths):.1f} words on average, {min(lengths):,} to {max(lengths):,}"
