"""One self-contained HTML page of scores: intervals, distributions, learning curves, and images to look at."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, median
from typing import TypeGuard

from imgcap.errors import ImgcapError
from imgcap.files import make_folder, reason, write_text
from imgcap.images.archives import ArchivedFile
from imgcap.pages.parts import as_html, theme, thumbnail
from imgcap.pages.plots import Histogram, histogram_svg
from imgcap.text.tokenizer import tokenize

GROUP_SIZE = 60
"""Most images in each of the groups best, worst and random."""

_GROUPS = {"best": "Best", "worst": "Worst", "random": "Random"}
_SEED = 0
_LONGEST = 40
"""Words of a caption that has a bar of its own; longer ones share the last bar."""
_CIDER_BINS = 25
_ROUND = (1, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Measure:
    """One score of all captions."""

    name: str
    value: float
    low: float
    """95 % interval."""
    high: float
    floor: float | None
    """The score of one constant caption."""
    ceiling: float | None
    """The score of one person's captions against the others'."""
    compared: float | None = None
    """The score of the captions that these are compared with."""
    top: float = 1.0
    """Largest value that the score can have."""


@dataclass(frozen=True)
class ScoredImage:
    """A caption, what people wrote, and its scores: CIDEr-D 0-10, BLEU-4 and ROUGE-L 0-1."""

    image_id: str
    caption: str
    references: tuple[str, ...]
    cider_d: float
    bleu_4: float
    rouge_l: float
    image: Path | ArchivedFile | None = None
    compared: str | None = None
    """The caption that this one is compared with."""


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
    """Write a page that needs no other file, no network and, but for its filters, no JavaScript.

    It shows the best, the worst and some random `images` by CIDEr-D, and says so. `curves` is an SVG of `plot_svg`,
    `facts` are names and values, `verdict` is one sentence, `notes` are sentences. Numbers that are not finite are
    shown as missing. The page appears under its name when it is whole. Raises `ImgcapError` if it cannot be written.
    """
    template = files("imgcap.pages").joinpath("score_page.html").read_text(encoding="utf-8")
    groups = _choose(images)
    parts = {
        "theme": theme(),
        "script_hash": _script_hash(template),
        "title": as_html(title),
        "verdict": f'<p class="verdict">{as_html(verdict)}</p>' if verdict else "",
        "facts": "".join(f"<dt>{as_html(name)}</dt><dd>{as_html(value)}</dd>" for name, value in facts),
        "scores": _scores(measures),
        "notes": f'<ul class="notes">{"".join(f"<li>{as_html(note)}</li>" for note in notes)}</ul>' if notes else "",
        "distributions": _distributions(images) if images else "",
        "curves": _CURVES.format(curves) if curves else "",
        "chosen": _chosen(len(groups), len(images)),
        "groups": _group_buttons(groups),
        "count": f"{len(groups):,} {'image' if len(groups) == 1 else 'images'}",
        "cards": "\n".join(_card(images[place], names) for place, names in groups.items()),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)
    make_folder(file.absolute().parent)
    try:
        write_text(file, page)
    except OSError as error:
        raise ImgcapError(f"The page {file} cannot be written: {reason(error)}.") from None


_CURVES = """<section aria-labelledby="curves-title">
<h2 id="curves-title">Learning curves</h2>
<figure><div class="drawing wide" tabindex="0" role="group" aria-labelledby="curves-title">{}</div></figure>
</section>"""


def _script_hash(template: str) -> str:
    """What allows the page's own script and no other, whatever the rest of the page holds (CSP Level 2)."""
    script = template.split("<script>")[1].split("</script>")[0]
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# Scores.


def _scores(measures: Sequence[Measure]) -> str:
    compared = any(measure.compared is not None for measure in measures)
    heads = ["Score", "Value", "95 % interval", *(["Compared with"] if compared else [])]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = "\n".join(_score_row(measure, compared) for measure in measures)
    return (
        f'<table><thead><tr>{head}<th scope="col" class="plot">Between floor and ceiling, each on its own scale</th>'
        f"</tr></thead>\n<tbody>\n{rows}\n</tbody></table>\n{_key(compared)}"
    )


def _score_row(measure: Measure, compared: bool) -> str:
    other = f'<td data-label="Compared with">{_number(measure.compared)}</td>' if compared else ""
    return (
        f'<tr><th scope="row">{as_html(measure.name)}</th><td class="value">{_number(measure.value)}</td>'
        f'<td data-label="95 % interval">{_interval(measure)}</td>{other}'
        f'<td class="plot"><div class="scale"><span>0</span>{_interval_svg(measure)}'
        f"<span>{_axis_end(measure):g}</span></div></td></tr>"
    )


def _interval(measure: Measure) -> str:
    known = _known(measure.low) and _known(measure.high)
    return f"{_number(measure.low)} to {_number(measure.high)}" if known else _number(None)


def _interval_svg(measure: Measure) -> str:
    """Floor and ceiling, with their values above and below the axis, and the score as a dot on its interval."""
    end = _axis_end(measure)

    def at(value: float) -> str:
        return f"{100 * min(max(value / end, 0), 1):.2f}%"

    label = f"{measure.name}: {_number(measure.value)}, 95 % interval {_interval(measure)}"
    parts = []
    if _known(measure.floor) and _known(measure.ceiling):
        width = 100 * min(max((measure.ceiling - measure.floor) / end, 0), 1)
        parts.append(f'<rect class="span" x="{at(measure.floor)}" y="16" width="{width:.2f}%" height="20"/>')
    parts.append('<line class="axis" x2="100%" y1="26" y2="26"/>')
    for name, limit, baseline in (("floor", measure.floor, 11), ("ceiling", measure.ceiling, 49)):
        if _known(limit):
            label += f", {name} {_number(limit)}"
            anchor = "start" if limit < end / 2 else "end"
            parts.append(f'<line class="limit" x1="{at(limit)}" x2="{at(limit)}" y1="16" y2="36"/>')
            parts.append(f'<text x="{at(limit)}" y="{baseline}" text-anchor="{anchor}">{name} {_number(limit)}</text>')
    if _known(measure.low) and _known(measure.high):
        low, high = at(measure.low), at(measure.high)
        parts.append(f'<line class="interval" x1="{low}" x2="{high}" y1="26" y2="26"/>')
        parts += [f'<line class="interval" x1="{x}" x2="{x}" y1="20" y2="32"/>' for x in (low, high)]
    if _known(measure.compared):
        label += f", compared with {_number(measure.compared)}"
        parts.append(f'<svg x="{at(measure.compared)}" y="26" overflow="visible">{_DIAMOND}</svg>')
    if _known(measure.value):
        parts.append(f'<circle class="dot" cx="{at(measure.value)}" cy="26" r="5"/>')
    return f'<svg role="img" aria-label="{as_html(label)}">{"".join(parts)}</svg>'


_DIAMOND = '<path class="diamond" d="M0-6 6 0 0 6-6 0Z"/>'


def _key(compared: bool) -> str:
    marks = [
        (
            '<path class="interval" d="M1 8H25M1 3v10M25 3v10"/><circle class="dot" cx="13" cy="8" r="5"/>',
            "score and 95 % interval",
        ),
        (
            '<path class="limit" d="M13 0v16"/>',
            "floor: the same caption for every image; ceiling: one person against the others",
        ),
    ]
    if compared:
        marks.insert(1, (f'<g transform="translate(13 8)">{_DIAMOND}</g>', "the captions compared with"))
    spans = "".join(
        f'<span><svg viewBox="0 0 26 16" aria-hidden="true">{mark}</svg>{as_html(text)}</span> ' for mark, text in marks
    )
    return f'<p class="quiet key">{spans}</p>'


def _axis_end(measure: Measure) -> float:
    """A round number at or just above all that is drawn; the score's largest value where all is 0.000 or missing."""
    drawn = (measure.value, measure.low, measure.high, measure.floor, measure.ceiling, measure.compared)
    largest = max((value for value in drawn if _known(value)), default=0.0)
    return _round_up(largest) if largest >= 0.0005 else measure.top


# Distributions.


def _distributions(images: Sequence[ScoredImage]) -> str:
    return (
        '<section aria-labelledby="distributions-title"><h2 id="distributions-title">Distributions</h2>'
        f'<div class="figures">{_lengths(images)}{_cider_d(images)}</div></section>'
    )


def _lengths(images: Sequence[ScoredImage]) -> str:
    captions = [len(tokenize(image.caption)) for image in images]
    references = [len(tokenize(reference)) for image in images for reference in image.references]
    both = captions + references
    lengths = range(min(_LONGEST, *both), min(_LONGEST, max(both)) + 1)

    def shares(counted: Sequence[int]) -> list[float]:
        counts = Counter(min(length, _LONGEST) for length in counted)
        return [100 * counts[length] / max(len(counted), 1) for length in lengths]

    names = [f"{n} words" if n < _LONGEST else f"{n} words or more" for n in lengths]
    x_label = "words" if lengths[-1] < _LONGEST else f"words (the last bar: {_LONGEST} or more)"
    histograms = [Histogram("captions", shares(captions)), Histogram("references", shares(references))]
    drawing = histogram_svg("share (%)", x_label, names, lengths[0] - 0.5, 1, histograms)
    text = f"Captions have {_mean_and_range(captions)}, references {_mean_and_range(references)}."
    return _figure("Words in a caption", drawing, text)


def _mean_and_range(lengths: Sequence[int]) -> str:
    if not lengths:
        return "none"
    return f"{fmean(lengths):.1f} words on average, {min(lengths):,} to {max(lengths):,}"


def _cider_d(images: Sequence[ScoredImage]) -> str:
    scores = [image.cider_d for image in images if math.isfinite(image.cider_d)]
    if not scores:
        return ""
    step = _round_up(max(1.0, *scores) / _CIDER_BINS)
    counts = Counter(int(score / step) for score in scores)
    bins = range(max(counts) + 1)
    names = [f"{i * step:g} to {(i + 1) * step:g}" for i in bins]
    shares = Histogram("images", [100 * counts[i] / len(scores) for i in bins])
    drawing = histogram_svg("share (%)", "CIDEr-D", names, 0, step, [shares])
    zero = sum(score < 0.005 for score in scores)  # what a card shows as 0.00
    text = (
        f"The median of {len(scores):,} images is {median(scores):.2f}, the highest {max(scores):.2f}; "
        f"{zero:,} of them at 0.00."
    )
    return _figure("CIDEr-D of an image", drawing, text)


def _figure(heading: str, drawing: str, text: str) -> str:
    return f'<figure><h3>{heading}</h3><div class="drawing">{drawing}</div><figcaption>{text}</figcaption></figure>'


# Images.


def _choose(images: Sequence[ScoredImage]) -> dict[int, list[str]]:
    """Places of the images to show, the highest CIDEr-D first, and the groups that each belongs to."""
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


def _chosen(shown: int, images: int) -> str:
    if not images:
        return "There are no images."
    if shown == images:
        which = "All images, the highest CIDEr-D first."
    else:
        which = (
            f"Of {images:,} images, those with the {GROUP_SIZE} highest and the {GROUP_SIZE} lowest CIDEr-D, and "
            f"{GROUP_SIZE} drawn at random, always the same; the highest CIDEr-D first."
        )
    return which + " References stand below the captions; a word that is underlined stands in one of them, too."


def _group_buttons(groups: Mapping[int, Sequence[str]]) -> str:
    counts = Counter(name for names in groups.values() for name in names)
    return "".join(
        f'<label><input class="unseen" type="radio" name="group" value="{name}" autocomplete="off"{checked}>'
        f"{label} <b>{count}</b></label>"
        for name, label, count, checked in [
            ("all", "All", len(groups), " checked"),
            *((name, label, counts[name], "") for name, label in _GROUPS.items()),
        ]
    )


def _card(image: ScoredImage, groups: Sequence[str]) -> str:
    words = {word for reference in image.references for word in tokenize(reference)}
    captions = _caption(image.caption, words)
    if image.compared is not None:
        captions += _caption(image.compared, words, "<small>Compared with</small>")
    references = "".join(f'<li dir="auto">{as_html(reference)}</li>' for reference in image.references)
    scores = "".join(
        f"<div><dt>{name}</dt><dd>{_number(value, 2)}</dd></div>"
        for name, value in (("CIDEr-D", image.cider_d), ("BLEU-4", image.bleu_4), ("ROUGE-L", image.rouge_l))
    )
    tags = "".join(f"<b>{_GROUPS[name]}</b>" for name in groups)
    encoded = thumbnail(image.image)
    # The caption below it says what the image shows.
    tag = f'<img src="data:image/webp;base64,{encoded}" alt="" loading="lazy" decoding="async">' if encoded else ""
    return (
        f'<li class="card" data-groups="{" ".join(groups)}" data-cider="{image.cider_d:.6g}" '
        f'data-bleu="{image.bleu_4:.6g}" data-words="{len(tokenize(image.caption))}">'
        f'<div class="image">{tag or "No image"}</div><div class="words">{captions}'
        f'<ul class="references" aria-label="References">{references}</ul><dl class="scores">{scores}</dl>'
        f'<p class="id"><span dir="auto">{as_html(image.image_id)}</span><span class="tags">{tags}</span></p>'
        "</div></li>"
    )


def _caption(caption: str, words: Container[str], heading: str = "") -> str:
    """`caption` with what stands among `words` underlined."""
    marked = "".join(
        f"<u>{as_html(part)}</u>"
        if (found := tokenize(part)) and all(word in words for word in found)
        else as_html(part)
        for part in re.split("( +)", caption)
    )
    return f'<p class="caption">{heading}<span dir="auto">{marked or "(no words)"}</span></p>'


# Numbers.


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _number(value: float | None, places: int = 4) -> str:
    return f"{value:.{places}f}" if _known(value) else "\u2014"


def _round_up(value: float) -> float:
    """The next round number that is not smaller; `value` is above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(factor * power, 9) for factor in _ROUND if factor * power >= value)
