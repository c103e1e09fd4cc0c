"""The scores of each image's caption, written as JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from imgcap.files import make_folder, write_json_lines, write_text, writing
from imgcap.scoring.evaluation import Evaluation
from imgcap.text.tables import to_cell

_DIGITS = 6


def image_rows(
    image_ids: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    evaluation: Evaluation,
    compared: Sequence[str] | None = None,
    *,
    worst_first: bool = False,
) -> list[dict[str, object]]:
    """One row per image, sorted by CIDEr-D, equal ones in the order given.

    `bleu_4_add1` is BLEU-4 of the caption alone with add-one smoothing. `compared` holds the captions that the
    evaluation is compared with. With `worst_first`, the lowest CIDEr-D comes first.
    """
    images = evaluation.images
    best_first = sorted(range(len(images)), key=lambda i: -images.cider_d[i])
    rows = []
    for rank, i in enumerate(best_first, 1):
        row: dict[str, object] = {
            "rank": rank,
            "image_id": image_ids[i],
            "caption": hypotheses[i],
            "cider_d": round(float(images.cider_d[i]), _DIGITS),
            "bleu_4_add1": round(float(images.bleu_4[i]), _DIGITS),
            "rouge_l": round(float(images.rouge_l[i]), _DIGITS),
            "words": int(images.bleu_statistics[i, 0]),
        }
        if compared and evaluation.comparison:
            theirs = float(evaluation.comparison.images.cider_d[i])
            row |= {"compared_caption": compared[i], "compared_cider_d": round(theirs, _DIGITS)}
        rows.append(row | {"references": list(references[i])})
    return rows[::-1] if worst_first else rows


def write_image_rows(file: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write rows as JSON Lines, or as CSV if the name ends in .csv. Raises `ImgcapError` if that fails."""
    make_folder(file.absolute().parent)
    with writing(file):
        if file.suffix.lower() == ".csv":
            stream = io.StringIO(newline="")
            writer = csv.writer(stream)
            writer.writerow(rows[0])
            writer.writerows(map(to_cell, row.values()) for row in rows)
            write_text(file, stream.getvalue())
        else:
            write_json_lines(file, rows)
