"""One self-contained HTML page of scores: intervals, distributions, training, and images."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgcap.files import make_folder, write_text, writing
from imgcap.pages.distributions import Figure, caption_lengths, cider_d_gains, cider_d_scores
from imgcap.pages.interval_plot import IntervalPlot, Measure
from imgcap.pages.parts import read_asset, render, thumbnail
from imgcap.pages.selection import ScoredImage, select
from imgcap.text.tokenizer import tokenize

_FEW = 12
"""Images that are seen at a glance, and need neither filters nor another order."""

_Parts = Sequence[tuple[str, bool]]
"""A caption in parts, and whether a reference has the words of the part."""

_BY_GAIN = [("gain-down", "Gain, largest first"), ("gain-up", "Loss, largest first")]
_BY_SCORE = [("cider-down", "CIDEr-D, highest first"), ("cider-up", "CIDEr-D, lowest first")]
_BY_BLEU = [("bleu-down", "BLEU-4, highest first"), ("bleu-up", "BLEU-4, lowest first")]
_UNSORTED = [("place-up", "As in the data set")]
_BY_LENGTH = [("words-down", "Caption, longest first"), ("words-up", "Caption, shortest first")]


@dataclass(frozen=True)
class _Card:
    """What the page shows of an image."""

    image: ScoredImage
    groups: Sequence[str]
    words: int
    caption: _Parts
    compared: _Parts | None
    thumbnail: str

    @classmethod
    def of(cls, image: ScoredImage, groups: Sequence[str]) -> _Card:
        known = {word for reference in image.references for word in tokenize(reference)}
        return cls(
            image=image,
            groups=groups,
            words=len(tokenize(image.caption)),
            caption=_shared_parts(image.caption, known),
            compared=None if image.compared is None else _shared_parts(image.compared, known),
            thumbnail=thumbnail(image.image),
        )


def write_score_page(
    file: Path,
    *,
    title: str,
    measures: Sequence[Measure],
    facts: Sequence[tuple[str, str]],
    images: Sequence[ScoredImage],
    labels: tuple[str, str] | None = None,
    curves: Sequence[str] = (),
    settings: Sequence[tuple[str, str]] = (),
    verdict: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a page that needs no other file and no network, and JavaScript only for its filters.

    It shows the images that tell most (see `select`). `labels` name the captions compared with and these captions, if
    there is a comparison. `curves` are SVGs of `plot_svg`, `settings` describe the training and `facts` the captions
    as names and values, `verdict` is a sentence or two, `notes` are sentences. Numbers that are not finite are shown
    as missing; without `measures` there are no scores. The page appears under its name once it is complete. Raises
    `ImgcapError` if it cannot be written.
    """
    script = read_asset("score_page.js")
    chosen = select(images, comparing=labels is not None)
    scored = any(math.isfinite(image.cider_d) for image in images)
    cards = [_Card.of(images[place], names) for place, names in chosen.groups.items()]
    page = render(
        "score_page.html",
        style=read_asset("page.css", "score_page.css"),
        script=script,
        script_hash=_script_hash(script),
        title=title,
        verdict=verdict,
        facts=facts,
        measures=[(measure, IntervalPlot.of(measure)) for measure in measures],
        scored=scored,
        labels=labels,
        notes=notes,
        figures=list(_figures(images)),
        curves=curves,
        settings=settings,
        choice=f"{chosen.text}{_missing(cards)}",
        groups=chosen.counts,
        group_labels=chosen.labels,
        filtered=len(cards) > _FEW,
        sorts=_sorts(scored, comparing=labels is not None),
        count=f"{len(cards):,} {'image' if len(cards) == 1 else 'images'}",
        cards=cards,
    )
    make_folder(file.absolute().parent)
    with writing(f"The page {file}"):
        write_text(file, page)


def _script_hash(script: str) -> str:
    """What allows this script and no other, whatever the rest of the page holds (Content Security Policy Level 2)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()


def _figures(images: Sequence[ScoredImage]) -> Iterator[Figure]:
    if not images:
        return
    references = [reference for image in images for reference in image.references]
    yield caption_lengths([image.caption for image in images], references)
    if gains := cider_d_gains(image.gain for image in images):
        yield gains
    elif scores := cider_d_scores(image.cider_d for image in images):
        yield scores


def _missing(cards: Sequence[_Card]) -> str:
    """A sentence on images that are no longer where they were, with a space before it."""
    gone = sum(card.image.image is not None and not card.thumbnail for card in cards)
    if not gone:
        return ""
    if gone == len(cards):
        return " None of the images can be read any more."
    return f" {gone:,} of the images shown here can no longer be read."


def _sorts(scored: bool, comparing: bool) -> list[tuple[str, str]]:
    """Orders of the images that the page offers, the present one first: their names and labels."""
    if not scored:
        return [*_UNSORTED, *_BY_LENGTH]
    return [*(_BY_GAIN if comparing else []), *_BY_SCORE, *([] if comparing else _BY_BLEU), *_BY_LENGTH]


def _shared_parts(caption: str, known: Container[str]) -> list[tuple[str, bool]]:
    """`caption` cut at its spaces, and of each part whether all its tokens are `known`."""
    parts = [part for part in re.split("( +)", caption) if part]
    return [(part, bool(found := tokenize(part)) and all(token in known for token in found)) for part in parts]
