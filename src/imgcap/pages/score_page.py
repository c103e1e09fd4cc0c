"""One self-contained HTML page of scores: intervals, distributions, learning curves, and images."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgcap.files import make_folder, write_text, writing
from imgcap.images.archives import ArchivedFile
from imgcap.pages.distributions import Figure, caption_lengths, cider_d_scores
from imgcap.pages.interval_plot import IntervalPlot, Measure
from imgcap.pages.parts import read_asset, render, thumbnail
from imgcap.text.tokenizer import tokenize

GROUP_SIZE = 60
"""Most images in each of the groups best, worst and random."""

_GROUPS = {"best": "Best", "worst": "Worst", "random": "Random"}
_SEED = 0


@dataclass(frozen=True)
class ScoredImage:
    """A caption, its references, and its scores: CIDEr-D 0-10, BLEU-4 and ROUGE-L 0-1."""

    image_id: str
    caption: str
    references: tuple[str, ...]
    cider_d: float
    bleu_4: float
    rouge_l: float
    image: Path | ArchivedFile | None = None
    compared: str | None = None
    """The caption that this one is compared with."""


@dataclass(frozen=True)
class _Card:
    """What the page shows of an image."""

    image: ScoredImage
    groups: Sequence[str]
    words: int
    caption: Sequence[tuple[str, bool]]
    """The caption in parts, and whether a reference has the words of the part."""
    compared: Sequence[tuple[str, bool]] | None
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
    curves: str | None = None,
    verdict: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a page that needs no other file and no network, and JavaScript only for its filters.

    It shows the best, the worst and some random `images` by CIDEr-D. `curves` is an SVG of `plot_svg`, `facts` are
    names and values, `verdict` is one sentence, `notes` are sentences. Numbers that are not finite are shown as
    missing. The page appears under its name once it is complete. Raises `ImgcapError` if it cannot be written.
    """
    script = read_asset("score_page.js")
    groups = _choose(images)
    page = render(
        "score_page.html",
        style=read_asset("page.css", "score_page.css"),
        script=script,
        script_hash=_script_hash(script),
        title=title,
        verdict=verdict,
        facts=facts,
        measures=[(measure, IntervalPlot.of(measure)) for measure in measures],
        comparing=any(measure.compared is not None for measure in measures),
        notes=notes,
        figures=list(_figures(images)),
        curves=curves,
        choice=_choice(len(groups), len(images)),
        groups=_group_counts(groups),
        group_labels=_GROUPS,
        count=f"{len(groups):,} {'image' if len(groups) == 1 else 'images'}",
        cards=(_Card.of(images[place], names) for place, names in groups.items()),
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
    if scores := cider_d_scores(image.cider_d for image in images):
        yield scores


def _choose(images: Sequence[ScoredImage]) -> dict[int, list[str]]:
    """Places of the images to show, the highest CIDEr-D first, and the groups of each."""
    finite = [math.isfinite(image.cider_d) for image in images]
    ranked = sorted(range(len(images)), key=lambda place: -images[place].cider_d if finite[place] else math.inf)
    scored = [place for place in ranked if finite[place]]
    half = min(GROUP_SIZE, (len(scored) + 1) // 2)
    members = {
        "best": set(scored[:half]),
        "worst": set(scored[len(scored) - half :]),
        "random": set(random.Random(_SEED).sample(range(len(images)), min(GROUP_SIZE, len(images)))),
    }
    groups = {place: [name for name in members if place in members[name]] for place in ranked}
    if len(images) <= GROUP_SIZE * len(members):
        return groups
    return {place: names for place, names in groups.items() if names}


def _choice(shown: int, images: int) -> str:
    """Which images the page shows, in words."""
    if not images:
        return "There are no images."
    if shown == images:
        which = "All images, the highest CIDEr-D first."
    else:
        which = (
            f"Of {images:,} images, those with the {GROUP_SIZE} highest and the {GROUP_SIZE} lowest CIDEr-D, and "
            f"{GROUP_SIZE} drawn at random, always the same; the highest CIDEr-D first."
        )
    return which + " References are below the captions; underlined words are in one of them."


def _group_counts(groups: Mapping[int, Sequence[str]]) -> list[tuple[str, str, int]]:
    """Name, label and size of each group, all images first."""
    counts = Counter(name for names in groups.values() for name in names)
    return [("all", "All", len(groups)), *((name, label, counts[name]) for name, label in _GROUPS.items())]


def _shared_parts(caption: str, known: Container[str]) -> list[tuple[str, bool]]:
    """`caption` cut at its spaces, and of each part whether all its tokens are `known`."""
    parts = [part for part in re.split("( +)", caption) if part]
    return [(part, bool(found := tokenize(part)) and all(token in known for token in found)) for part in parts]
