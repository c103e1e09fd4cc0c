"""Scores and images for the score page, hostile ones among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from imgcap.pages.interval_plot import Measure
from imgcap.pages.plots import Curve, plot_svg
from imgcap.pages.score_page import write_score_page
from imgcap.pages.selection import ScoredImage

NAN = float("nan")
HOSTILE = "</script><img src=x onerror=window.broken=1>\u2028\n'\"&amp;\udcff\ud83d\u202e{{cards}} {0} \\1"
SHOWN = "</script><img src=x onerror=window.broken=1>\\u2028\\u000a'\"&amp;\\udcff\\ud83d\\u202e{{cards}} {0} \\1"
BLEU_4 = Measure("BLEU-4", 0.2, 0.19, 0.215, floor=0.074, ceiling=0.243)
CIDER_D = Measure("CIDEr-D", 0.587, 0.56, 0.613, floor=0.087, ceiling=0.85, compared=0.61, top=10.0)
CURVES = [plot_svg([("Loss", [Curve("loss", (1, 2, 3), (3.0, 2.0, 1.5))])], "epoch")]


def image(number: int, cider_d: float = 0.5, caption: str = "a red wall", **more: Any) -> ScoredImage:
    references = more.pop("references", ("the wall is red", "a wall"))
    return ScoredImage(f"{number}.png", caption, references, cider_d, more.pop("bleu_4", 0.3), 0.4, **more)


IMAGES = [
    image(0, 0.5, bleu_4=0.1),
    image(1, 2.0, "two dogs run", references=("dogs are running",), bleu_4=0.9),
    image(2, 0.0, "a very long caption of a cat on a mat", references=("Été au chat",), bleu_4=0.0),
    image(3, NAN, "", bleu_4=NAN),
    ScoredImage(HOSTILE, HOSTILE, (HOSTILE,), 1.0, 0.5, 0.5),
]
COMPARED = [
    replace(each, compared=caption, compared_cider_d=cider_d)
    for each, caption, cider_d in zip(
        IMAGES, ("a wall", "one dog runs", "", "a wall", HOSTILE), (0.75, 0.5, 0.0, NAN, 1.5), strict=True
    )
]
"""The same in a comparison: they gain -0.25, 1.5, 0, nothing and -0.5."""


def write(file: Path, images: list[ScoredImage] = IMAGES, **more: Any) -> Path:
    options: dict[str, Any] = {"title": "Scores", "measures": [BLEU_4, CIDER_D], "facts": [("Images", "5")]}
    write_score_page(file, images=images, **{**options, **more})
    return file


def read(tmp_path: Path, images: list[ScoredImage] = IMAGES, **more: Any) -> str:
    return write(tmp_path / "page.html", images, **more).read_text(encoding="utf-8")
