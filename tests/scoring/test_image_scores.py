"""Scores of each image: in order, whole, and readable again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from imgcap.errors import ImgcapError
from imgcap.scoring.evaluation import evaluate
from imgcap.scoring.image_scores import image_rows, write_image_rows
from imgcap.scoring.scores import score

IDS = ["bad.jpg", "good.jpg", "fair.jpg"]
CAPTIONS = ["two cats", "a brown dog runs on grass", "a man on a red bike"]
REFERENCES = [["a girl sings", "she sings"], ["A brown dog runs on grass ."], ["a man rides a bike", "a man, a bike"]]


def rows(*, worst_first: bool = False, compared: list[str] | None = None) -> list[dict[str, object]]:
    found = evaluate(CAPTIONS, REFERENCES, compared=("other.jsonl", compared) if compared else None)
    return image_rows(IDS, CAPTIONS, REFERENCES, found, compared, worst_first=worst_first)


def test_rows_go_from_the_best_to_the_worst() -> None:
    found = rows()
    assert [row["image_id"] for row in found] == ["good.jpg", "fair.jpg", "bad.jpg"]
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert rows(worst_first=True) == found[::-1]


def test_a_row_holds_the_caption_its_references_and_its_scores() -> None:
    best = rows()[0]
    assert best["caption"] == CAPTIONS[1]
    assert best["references"] == REFERENCES[1]
    assert (best["bleu_4_add1"], best["rouge_l"], best["words"]) == (1.0, 1.0, 6)
    assert sum(float(str(row["cider_d"])) for row in rows()) / 3 == pytest.approx(
        score(CAPTIONS, REFERENCES).cider_d, abs=1e-6
    )


def test_equal_scores_keep_the_order_given() -> None:
    captions, references = ["x y", "v w", "x v"], [["a"], ["b"], ["c"]]
    found = image_rows(IDS, captions, references, evaluate(captions, references))
    assert [row["image_id"] for row in found] == IDS


def test_rows_hold_the_captions_that_are_compared_with() -> None:
    worst = rows(compared=["a girl sings", "a dog", "a bike"], worst_first=True)[0]
    assert worst["compared_caption"] == "a girl sings"
    assert float(str(worst["compared_cider_d"])) > float(str(worst["cider_d"]))


def test_json_lines_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "scores.jsonl"
    write_image_rows(file, rows())
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == rows()
    assert [path.name for path in file.parent.iterdir()] == ["scores.jsonl"]


def test_csv_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "scores.CSV"
    write_image_rows(file, rows())
    with file.open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [row["image_id"] for row in found] == ["good.jpg", "fair.jpg", "bad.jpg"]
    assert json.loads(found[1]["references"]) == REFERENCES[2]
    assert [float(row["cider_d"]) for row in found] == [row["cider_d"] for row in rows()]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    captions, references = ["=1+1", "a dog"], [["x"], ["a dog"]]
    found = image_rows(["@a", "-b"], captions, references, evaluate(captions, references))
    write_image_rows(tmp_path / "scores.csv", found)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert {"'@a", "'-b", "'=1+1"} <= set(cells)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").mkdir()
    with pytest.raises(ImgcapError, match="cannot be written: is a directory"):
        write_image_rows(tmp_path / "scores.jsonl", rows())
