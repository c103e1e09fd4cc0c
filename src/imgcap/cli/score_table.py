"""Scores as a table: on the terminal, in Markdown, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from imgcap.cli.console import out
from imgcap.errors import printable

if TYPE_CHECKING:
    from imgcap.scoring.evaluation import Evaluation
    from imgcap.scoring.scores import Scores

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
"""Scores without an interval: how they are called and written."""


def print_table(evaluation: Evaluation, title: str) -> None:
    _say(title)
    _print(columns(evaluation), rows(evaluation))
    if evaluation.comparison:
        _print(_DIFFERENCE_COLUMNS, difference_rows(evaluation))
        _say(evaluation.comparison.verdict)
    for note in notes(evaluation):
        _say(note)
    _say(f"signature: {evaluation.signature}")


def _say(line: str) -> None:
    from rich.markup import escape

    out.print(escape(printable(line)))


def _print(names: list[str], body: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in body:
        table.add_row(*row)
    # A narrow terminal may wrap lines, but no figure is cut.
    Console(width=max(out.width, 100), highlight=False).print(table, crop=False)


def markdown(evaluation: Evaluation, title: str) -> str:
    """The same as a table for a README."""
    parts = [f"**{printable(title)}**", _markdown_table(columns(evaluation), rows(evaluation))]
    if evaluation.comparison:
        parts += [
            _markdown_table(_DIFFERENCE_COLUMNS, difference_rows(evaluation)),
            printable(evaluation.comparison.verdict),
        ]
    parts += [printable(" ".join(notes(evaluation))), f"`{printable(evaluation.signature)}`"]
    return "\n\n".join(parts)


def _markdown_table(names: list[str], body: list[list[str]]) -> str:
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *body]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def as_json(evaluation: Evaluation, title: str) -> dict[str, Any]:
    """The same as one JSON object: the scores, and under names of their own what they stand beside."""
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
            "differences": {name: asdict(difference) for name, difference in compared.differences.items()},
            "verdict": compared.verdict,
        },
        "images": len(evaluation.images),
        "references": evaluation.references,
        "signature": evaluation.signature,
    }


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Name and value of the scores without an interval."""
    values = ((title, _format(getattr(evaluation.scores, name), how)) for name, (title, how) in _PLAIN.items())
    return [(title, value) for title, value in values if value != "-"]


def columns(evaluation: Evaluation) -> list[str]:
    compared = ["other"] if evaluation.comparison else []
    return ["score", "value", "95 % interval", *compared, "floor", "ceiling"]


def rows(evaluation: Evaluation) -> list[list[str]]:
    """A row for each score: name, value, interval, the captions compared with if there are any, floor and ceiling."""
    from imgcap.scoring.scores import METRICS

    compared = [evaluation.comparison.scores] if evaluation.comparison else []
    sets: list[Scores | None] = [evaluation.scores, *compared, evaluation.floor, evaluation.ceiling]
    body = []
    for name, title in METRICS.items():
        low, high = evaluation.intervals[name]
        value, *others = [f"{scores.metrics[name]:.4f}" if scores else "-" for scores in sets]
        body.append([title, value, f"{low:.4f} to {high:.4f}", *others])
    for name, (title, how) in _PLAIN.items():
        value, *others = [_format(getattr(scores, name) if scores else None, how) for scores in sets]
        if value != "-":
            body.append([title, value, "", *others])
    return body


_DIFFERENCE_COLUMNS = ["difference", "value", "95 % interval", "p"]


def difference_rows(evaluation: Evaluation) -> list[list[str]]:
    """A row for each metric: by how much the captions score more than those compared with."""
    from imgcap.scoring.scores import METRICS

    assert evaluation.comparison
    return [
        [METRICS[name], f"{d.value:+.4f}", f"{d.interval[0]:+.4f} to {d.interval[1]:+.4f}", f"{d.p:.4f}"]
        for name, d in evaluation.comparison.differences.items()
    ]


def notes(evaluation: Evaluation) -> list[str]:
    """What the columns are."""
    from imgcap.scoring.bounds import MAX_PEOPLE

    fewest, most = evaluation.references
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    other = [f"other: the captions of {evaluation.comparison.name}."] if evaluation.comparison else []
    return [
        f"{len(evaluation.images):,} images with {number} references.",
        *other,
        f'floor: "{evaluation.floor_caption}" said of every image.',
        f"ceiling: mean of each of the first {min(fewest, MAX_PEOPLE)} references against the others."
        if evaluation.ceiling
        else "ceiling: needs a second reference of every image.",
    ]


def _format(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
