"""The images of a score page: which of them it shows, in which order, and in which groups."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgcap.images.archived import ArchivedFile

GROUP_SIZE = 60
"""Most images in each group."""
SHOWN_AS_ZERO = 0.005
"""Smaller scores and gains are 0.00 on a card."""

_SEED = 0
_RANDOM = {"random": "Random"}
_BY_SCORE = {"best": "Best", "worst": "Worst", **_RANDOM}
_BY_GAIN = {"gains": "Largest gains", "losses": "Largest losses", **_RANDOM}


@dataclass(frozen=True)
class ScoredImage:
    """A caption, its references, and its scores: CIDEr-D 0-10, BLEU-4 and ROUGE-L 0-1, NaN if it is not scored."""

    image_id: str
    caption: str
    references: tuple[str, ...]
    cider_d: float
    bleu_4: float
    rouge_l: float
    image: Path | ArchivedFile | None = None
    """None if it is not known where the image is."""
    compared: str | None = None
    """The caption that this one is compared with."""
    compared_cider_d: float = math.nan

    @property
    def gain(self) -> float:
        """How much higher the CIDEr-D is than that of the caption compared with."""
        return self.cider_d - self.compared_cider_d


@dataclass(frozen=True)
class Selection:
    """The images to show."""

    groups: Mapping[int, Sequence[str]]
    """Places of the images, in the order of the page, and the groups of each."""
    labels: Mapping[str, str]
    """Names of the groups on the page."""
    text: str
    """Which images these are, in words."""

    @property
    def counts(self) -> list[tuple[str, str, int]]:
        """Name, label and size of each group, all images first."""
        sizes = Counter(name for names in self.groups.values() for name in names)
        return [("all", "All", len(self.groups)), *((name, label, sizes[name]) for name, label in self.labels.items())]


def select(images: Sequence[ScoredImage], comparing: bool = False) -> Selection:
    """All `images` if they are few, else the most telling ones and some drawn at random.

    Most telling are those with the highest and the lowest CIDEr-D or, if it is `comparing`, those that gain and lose
    most. Without scores, the images keep their order. Images that fit into one group are not grouped.
    """
    values = [image.gain if comparing else image.cider_d for image in images]
    scored = sorted((place for place, value in enumerate(values) if math.isfinite(value)), key=lambda i: -values[i])
    drawn = set(random.Random(_SEED).sample(range(len(images)), min(GROUP_SIZE, len(images))))
    labels = (_BY_GAIN if comparing else _BY_SCORE) if scored else _RANDOM
    first, last = _extremes(scored, values, comparing)
    members = dict(zip(labels, (first, last, drawn) if scored else (drawn,), strict=True))
    order = scored + [place for place, value in enumerate(values) if not math.isfinite(value)]
    groups = {place: [name for name in members if place in members[name]] for place in order}
    if len(images) > GROUP_SIZE * len(_BY_SCORE):
        groups = {place: names for place, names in groups.items() if names}
    text = _text(images, groups, {name: len(each) for name, each in members.items()})
    if len(images) <= GROUP_SIZE:
        groups, labels = {place: [] for place in order}, {}
    return Selection(groups, labels, text)


def _extremes(scored: Sequence[int], values: Sequence[float], comparing: bool) -> tuple[set[int], set[int]]:
    """The first and the last of the `scored` places: halves, or those that gain and those that lose."""
    if comparing:
        gains = [place for place in scored if values[place] >= SHOWN_AS_ZERO]
        losses = [place for place in scored if values[place] <= -SHOWN_AS_ZERO]
        return set(gains[:GROUP_SIZE]), set(losses[-GROUP_SIZE:])
    half = min(GROUP_SIZE, (len(scored) + 1) // 2)
    return set(scored[:half]), set(scored[len(scored) - half :])


def _text(images: Sequence[ScoredImage], shown: Mapping[int, Sequence[str]], sizes: Mapping[str, int]) -> str:
    if not images:
        return "There are no images."
    order, drawn = "", f"{sizes['random']} drawn at random, always the same"
    if "best" in sizes:
        order = "the highest CIDEr-D first"
        drawn = f"those with the {sizes['best']} highest and the {sizes['worst']} lowest CIDEr-D, and {drawn}"
    elif "gains" in sizes:
        order = "the largest gain in CIDEr-D first"
        drawn = f"the {sizes['gains']} that gain most and the {sizes['losses']} that lose most in CIDEr-D, and {drawn}"
    if len(shown) == len(images):
        which = f"All images, {order}." if order else "All images."
    else:
        which = f"Of {len(images):,} images, {drawn}{'; ' if order else ''}{order}."
    return f"{which} References are below the captions; underlined words are in one of them."
