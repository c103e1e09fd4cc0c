"""An evaluation as a score page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from imgcap.images.archived import ArchivedFile
from imgcap.pages.interval_plot import Measure
from imgcap.pages.score_page import write_score_page
from imgcap.pages.selection import ScoredImage
from imgcap.scoring import score_table
from imgcap.scoring.evaluation import Evaluation
from imgcap.scoring.scores import METRICS

_HIGHEST = {"cider_d": 10.0}


def write_evaluation_page(
    file: Path,
    title: str,
    evaluation: Evaluation,
    image_ids: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    compared: Sequence[str] | None = None,
    labels: tuple[str, str] = ("Compared with", "These captions"),
    images: Sequence[Path | ArchivedFile | None] = (),
    curves: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
    settings: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the score page of `evaluation`.

    `compared` holds the captions that the evaluation compares with, `labels` are what the page calls these and the
    scored ones, `images` the image of each caption if they are known, `curves` the SVGs of the model's learning curves,
    `settings` how it was trained, and `facts` come before those of the scores. Raises `ImgcapError` if the page cannot
    be written.
    """
    by_image = evaluation.images
    theirs = evaluation.comparison.images.cider_d if evaluation.comparison else None
    scored = [
        ScoredImage(
            image_id=image_id,
            caption=hypotheses[i],
            references=tuple(references[i]),
            cider_d=float(by_image.cider_d[i]),
            bleu_4=float(by_image.bleu_4[i]),
            rouge_l=float(by_image.rouge_l[i]),
            image=images[i] if images else None,
            compared=compared[i] if compared else None,
            compared_cider_d=math.nan if theirs is None else float(theirs[i]),
        )
        for i, image_id in enumerate(image_ids)
    ]
    write_score_page(
        file,
        title=title,
        measures=_measures(evaluation),
        facts=[*facts, *_facts(evaluation, labels), ("signature", evaluation.signature)],
        images=scored,
        labels=labels if evaluation.comparison else None,
        curves=curves,
        settings=settings,
        verdict=evaluation.comparison.verdict if evaluation.comparison else None,
        notes=score_table.notes(evaluation, labels[0]),
    )


def _facts(evaluation: Evaluation, labels: tuple[str, str]) -> list[tuple[str, str]]:
    """Scores without an interval; of both sets of captions, if there is a comparison."""
    ours = score_table.facts(evaluation.scores)
    if not evaluation.comparison:
        return ours
    theirs = dict(score_table.facts(evaluation.comparison.scores))
    return [(label, f"{theirs[label]} ({labels[0]}), {value} ({labels[1]})") for label, value in ours]


def _measures(evaluation: Evaluation) -> list[Measure]:
    comparison, ceiling = evaluation.comparison, evaluation.ceiling
    return [
        Measure(
            name=label,
            value=evaluation.scores.metrics[name],
            low=evaluation.intervals[name][0],
            high=evaluation.intervals[name][1],
            floor=evaluation.floor.metrics[name],
            ceiling=ceiling.metrics[name] if ceiling else None,
            compared=comparison.scores.metrics[name] if comparison else None,
            compared_interval=comparison.intervals[name] if comparison else None,
            difference=comparison.differences[name] if comparison else None,
            top=_HIGHEST.get(name, 1.0),
        )
        for name, label in METRICS.items()
    ]
