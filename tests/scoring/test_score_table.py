"""Scores as tables: every figure where it belongs."""

from __future__ import annotations

import json

import pytest

from imgcap.scoring import score_table
from imgcap.scoring.evaluation import Evaluation, evaluate

CAPTIONS = ["a dog runs on grass", "two cats sit on a wall", "a man rides a bike"]
REFERENCES = [
    ["A dog runs on the grass .", "a brown dog is running"],
    ["two cats sit on a wall", "cats on a wall"],
    ["a man is riding a bicycle", "a man rides a red bike"],
]
TRAINING = [["two cats sit on a wall"], ["a man"]]


@pytest.fixture
def found() -> Evaluation:
    other = ["a dog | a [bold]cat", "a wall", "a man"]
    return evaluate(CAPTIONS, REFERENCES, name="ours", training=TRAINING, compared=("theirs.csv", other))


def test_a_row_has_value_interval_comparison_floor_and_ceiling(found: Evaluation) -> None:
    assert score_table.columns(found) == ["score", "value", "95 % interval", "other", "floor", "ceiling"]
    rows = {name: rest for name, *rest in score_table.rows(found)}
    assert found.ceiling
    assert found.comparison
    low, high = found.intervals["cider_d"]
    assert rows["CIDEr-D"] == [
        f"{found.scores.cider_d:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{found.comparison.scores.cider_d:.4f}",
        f"{found.floor.cider_d:.4f}",
        f"{found.ceiling.cider_d:.4f}",
    ]
    assert rows["BLEU-1"][0] == f"{found.scores.bleu[0]:.4f}"
    assert rows["BLEU-4"][4] == f"{found.ceiling.bleu[3]:.4f}"
    assert rows["distinct captions"] == ["3", "", "3", "1", "3"]
    assert rows["verbatim in training"][0] == "33.3%"
    assert rows["mean words"][0] == "5.33"


def test_missing_scores_are_dashes() -> None:
    found = evaluate(CAPTIONS, [several[:1] for several in REFERENCES])
    rows = {name: rest for name, *rest in score_table.rows(found)}
    assert score_table.columns(found)[-1] == "ceiling"
    assert {row[-1] for row in rows.values()} == {"-"}
    assert "verbatim in training" not in rows  # which nobody told
    assert "ceiling: needs a second reference of every image." in score_table.notes(found)
    assert score_table.notes(found)[0] == "3 images with 1 reference."
    assert score_table.notes(evaluate(CAPTIONS[:1], REFERENCES[:1]))[0] == "1 image with 2 references."


def test_markdown_is_a_table_with_as_many_cells_in_each_row(found: Evaluation) -> None:
    text = score_table.markdown(found, "ours")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [16, 8]
    for table in tables:
        assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert tables[0][0] == "| score | value | 95 % interval | other | floor | ceiling |"
    assert tables[0][2].startswith(f"| BLEU-1 | {found.scores.bleu[0]:.4f} |")
    assert found.comparison
    assert found.comparison.verdict in text
    assert text.endswith(f"`{found.signature}`")


def test_json_holds_all_scores(found: Evaluation) -> None:
    data = json.loads(json.dumps(score_table.as_json(found, "ours")))
    assert data["bleu"] == list(found.scores.bleu)
    assert data["cider_d"] == found.scores.cider_d
    assert data["intervals"]["rouge_l"] == list(found.intervals["rouge_l"])
    assert data["floor"]["caption"] == found.floor_caption
    assert found.ceiling
    assert data["ceiling"]["bleu"] == list(found.ceiling.bleu)
    assert data["comparison"]["differences"]["bleu_2"].keys() == {"value", "interval", "p"}
    assert data["comparison"]["name"] == "theirs.csv"
    assert (data["images"], data["references"], data["title"]) == (3, [2, 2], "ours")
    assert data["signature"] == found.signature


def test_json_without_comparison_or_ceiling_says_null() -> None:
    data = score_table.as_json(evaluate(CAPTIONS, [several[:1] for several in REFERENCES]), "ours")
    assert data["ceiling"] is None
    assert data["comparison"] is None
