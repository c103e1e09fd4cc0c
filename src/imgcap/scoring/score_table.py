"""Scores as the rows of a table, as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from imgcap.errors import printable
from imgcap.scoring.bounds import MAX_PEOPLE
from imgcap.scoring.evaluation import Evaluation
from imgcap.scoring.scores import METRICS, Scores

_PLAIN = {
    "distinct": ("distinct captions", ",.0f"),
    "words_used": ("words used", ",.0f"),
    "repeated_words": ("repeat a word at once", ".1%"),
    "repeated_phrases": ("repeat three words", ".1%"),
    "verbatim": ("verbatim in training", ".1%"),
    "mean_length": ("mean words", ".2f"),
    "mean_reference_length": ("mean reference words", ".2f"),
    "brevity_penalty": ("brevity penalty", ".4f"),
}
"""Scores without an interval: their labels and formats."""


def markdown(evaluation: Evaluation, title: str) -> str:
    """All scores as Markdown tables for a README."""
    parts = [f"**{printable(title)}**", _markdown_table(columns(evaluation), rows(evaluation))]
    if evaluation.comparison:
        parts += [
            _markdown_table(DIFFERENCE_COLUMNS, difference_rows(evaluation)),
            printable(evaluation.comparison.verdict),
        ]
    parts += [printable(" ".join(notes(evaluation))), f"`{printable(evaluation.signature)}`"]
    return "\n\n".join(parts)


def _markdown_table(names: list[str], body: list[list[str]]) -> str:
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *body]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def as_json(evaluation: Evaluation, title: str) -> dict[str, Any]:
    """All scores as one JSON object, those of the floor, the ceiling and the comparison as objects inside."""
    compared = evaluation.comparison
    return {
        "title": title,
        **asdict(evaluation.scores),
        "intervals": evaluation.intervals,
        "floor": {"caption": evaluation.floor_caption, **asdict(evaluation.floor)},
        "ceiling": evaluation.ceiling and asdict(evaluation.ceiling),
        "comparison": compared
        and {
            "name": compared.name,
            **asdict(compared.scores),
            "intervals": compared.intervals,
            "differences": {name: asdict(difference) for name, difference in compared.differences.items()},
            "verdict": compared.verdict,
        },
        "images": len(evaluation.images),
        "references": evaluation.references,
        "remarks": evaluation.remarks,
        "signature": evaluation.signature,
    }


def facts(scores: Scores) -> list[tuple[str, str]]:
    """Label and value of each score without an interval."""
    values = ((label, _format(getattr(scores, name), spec)) for name, (label, spec) in _PLAIN.items())
    return [(label, value) for label, value in values if value != "-"]


def columns(evaluation: Evaluation) -> list[str]:
    """Names of the columns of `rows`."""
    compared = ["other"] if evaluation.comparison else []
    return ["score", "value", "95 % interval", *compared, "floor", "ceiling"]


def rows(evaluation: Evaluation) -> list[list[str]]:
    """One row per score: label, value, interval, value of the captions compared with if any, floor and ceiling."""
    compared = [evaluation.comparison.scores] if evaluation.comparison else []
    sets: list[Scores | None] = [evaluation.scores, *compared, evaluation.floor, evaluation.ceiling]
    body = []
    for name, label in METRICS.items():
        low, high = evaluation.intervals[name]
        value, *others = [f"{scores.metrics[name]:.4f}" if scores else "-" for scores in sets]
        body.append([label, value, f"{low:.4f} to {high:.4f}", *others])
    for name, (label, spec) in _PLAIN.items():
        value, *others = [_format(getattr(scores, name) if scores else None, spec) for scores in sets]
        if value != "-":
            body.append([label, value, "", *others])
    return body


DIFFERENCE_COLUMNS = ["difference", "value", "95 % interval", "p"]


def difference_rows(evaluation: Evaluation) -> list[list[str]]:
    """One row per metric: how much higher the captions score than those they are compared with."""
    assert evaluation.comparison
    return [
        [METRICS[name], f"{d.value:+.4f}", f"{d.interval[0]:+.4f} to {d.interval[1]:+.4f}", f"{d.p:.4f}"]
        for name, d in evaluation.comparison.differences.items()
    ]


def notes(evaluation: Evaluation, other: str = "other") -> list[str]:
    """Sentences that explain the columns, and remarks on the scores.

    `other` is the name of the column of the captions compared with.
    """
    fewest, most = evaluation.references
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    compared = [f"{other}: the captions of {evaluation.comparison.name}."] if evaluation.comparison else []
    return [
        f"{len(evaluation.images):,} {_plural('image', len(evaluation.images))} with {number} "
        f"{_plural('reference', most)}.",
        *compared,
        f'floor: "{evaluation.floor_caption}" said of every image.',
        f"ceiling: mean of each of the first {min(fewest, MAX_PEOPLE)} references against the others."
        if evaluation.ceiling
        else "ceiling: needs a second reference of every image.",
        *evaluation.remarks,
    ]


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _format(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
