"""The learning curves that a model folder keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imgcap.errors import ImgcapError
from imgcap.model.store import METRICS_FILE
from imgcap.training.curves import CURVES_FILE, draw_curves, learning_curves
from imgcap.training.progress import EpochResult

TITLES = ["Training loss", "Val scores"]


def test_a_model_keeps_its_learning_curves(model_folder: Path, tmp_path: Path) -> None:
    together = (model_folder / CURVES_FILE).read_text(encoding="utf-8")
    drawn = learning_curves(model_folder)
    assert [[title in svg for title in TITLES] for svg in (together, *drawn)] == [
        [True, True],
        [True, False],
        [False, True],
    ]
    lines = [re.findall("<polyline.*?/>", svg) for svg in (together, *drawn)]
    assert lines[0] == [*lines[1], *lines[2]]
    assert learning_curves(tmp_path) == []


@pytest.mark.parametrize(("scored", "titles"), [(0, TITLES[:1]), (1, TITLES[:1]), (2, TITLES)])
def test_a_single_val_score_is_no_curve(scored: int, titles: list[str]) -> None:
    bleu = (0.6, 0.5, 0.4, 0.3)
    log = [
        EpochResult(n, 3.0 / n, 1e-3, 0.4 if n <= scored else None, bleu if n <= scored else None, 1.0) for n in (1, 2)
    ]
    assert [title for title in TITLES if title in draw_curves(log)] == titles


@pytest.mark.parametrize("content", ["", "[1]\n", '{"epoch": 1}\n', '{"epoch": 1, "loss": "x"}\n', "{"])
def test_damaged_metrics_are_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS_FILE).write_text(content)
    with pytest.raises(ImgcapError, match=r"is damaged|is not valid JSON"):
        learning_curves(tmp_path)
