"""The learning curves that a model folder keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgcap.errors import ImgcapError
from imgcap.model.store import METRICS_FILE
from imgcap.training.curves import CURVES_FILE, learning_curves


def test_a_model_keeps_its_learning_curves(model_folder: Path, tmp_path: Path) -> None:
    drawn = learning_curves(model_folder)
    assert drawn == (model_folder / CURVES_FILE).read_text(encoding="utf-8")
    assert learning_curves(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[1]\n", '{"epoch": 1}\n', '{"epoch": 1, "loss": "x"}\n', "{"])
def test_damaged_metrics_are_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS_FILE).write_text(content)
    with pytest.raises(ImgcapError, match=r"is damaged|is not valid JSON"):
        learning_curves(tmp_path)
