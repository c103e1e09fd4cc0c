"""Rows have the keys that the options ask for."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helpers.captions import BROKEN, GOOD, ORIGIN, STRIPE, WALL
from imgcap.captioning.captioner import Caption, Wording
from imgcap.captioning.explain import Explanation
from imgcap.captioning.rows import FileState, RowOptions, make_row, read_settings, with_state, write_settings
from imgcap.errors import UsageError


def test_a_row_holds_caption_confidence_and_origin() -> None:
    assert make_row(GOOD, RowOptions(), ORIGIN) == {
        "path": "x/wall.png", "caption": "a red wall", "confidence": 0.712, "log_probability": -1.235, **asdict(ORIGIN)
    }  # fmt: skip


def test_a_row_has_an_error_instead_of_a_caption() -> None:
    row = make_row(BROKEN, RowOptions(words=True, prefix="x"), ORIGIN)
    assert row == {"path": "bad.jpg", "error": str(BROKEN.error), "error_kind": "damaged", **asdict(ORIGIN)}


def test_a_model_without_calibration_has_no_confidence() -> None:
    caption = Caption("a.png", (Wording("a wall", -1.0, None, ()),))
    assert make_row(caption, RowOptions(), ORIGIN)["confidence"] is None


def test_a_row_has_words_and_alternatives_on_request() -> None:
    row = make_row(Caption("a.png", (WALL, STRIPE)), RowOptions(words=True), ORIGIN)
    assert row["words"] == [["a", 0.9], ["red", 0.512], ["wall", 0.99]]
    assert row["alternatives"] == [{"caption": "a stripe", "confidence": 0.3, "log_probability": -2.0}]


def test_prefix_suffix_and_trigger_surround_every_caption() -> None:
    row = make_row(Caption("a.png", (WALL, STRIPE)), RowOptions("photo of ", ".", "sks"), ORIGIN)
    assert row["caption"] == "sks, photo of a red wall."
    assert row["alternatives"][0]["caption"] == "sks, photo of a stripe."


@pytest.mark.parametrize(("limit", "withheld"), [(0.7, False), (0.72, True)])
def test_a_caption_below_the_minimum_confidence_is_withheld(limit: float, withheld: bool) -> None:
    row = make_row(Caption("a.png", (WALL, STRIPE)), RowOptions(min_confidence=limit, words=True), ORIGIN)
    assert row.get("withheld", False) is withheld
    assert row["caption"] == ("" if withheld else "a red wall")
    assert ("words" in row, "alternatives" in row) == (not withheld, not withheld)
    assert row["confidence"] == 0.712


def test_the_confidence_of_a_row_is_high_enough_as_its_minimum() -> None:
    wording = replace(WALL, confidence=0.6326)
    row = make_row(Caption("a.png", (wording,)), RowOptions(min_confidence=0.633), ORIGIN)
    assert (row["caption"], row["confidence"]) == ("a red wall", 0.633)


def test_the_minimum_confidence_is_between_0_and_1() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        RowOptions(min_confidence=1.5)


def test_a_row_has_the_explanation_and_its_warning() -> None:
    explanation = Explanation((("dog.jpg", 0.81239), ("cat.jpg", 0.5)), True, 0.4, 0.991, "Unlike all of them.")
    row = make_row(Caption("a.png", (WALL,), explanation), RowOptions(), ORIGIN)
    assert row["nearest"] == [["dog.jpg", 0.812], ["cat.jpg", 0.5]]
    assert (row["verbatim"], row["percentile"], row["warning"]) == (True, 0.991, "Unlike all of them.")


def test_the_state_of_a_file_is_size_time_and_content(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    state = FileState.of(str(file))
    assert (state.bytes, state.modified, state.sha256) == (3, 1, None)
    by_content = FileState.of(str(file), by_content=True)
    os.utime(file, ns=(2, 2))
    assert not FileState.of(str(file)).same_image(state)
    assert FileState.of(str(file), by_content=True).same_image(by_content)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert not FileState.of(str(file), by_content=True).same_image(by_content)
    assert FileState.from_row(with_state({}, by_content)) == by_content
    assert (
        FileState.of(str(tmp_path / "none"))
        == FileState.of("-")
        == FileState.of(None)
        == FileState.of("\0")
        == FileState()
    )


def test_settings_are_read_as_they_were_written() -> None:
    settings = {"beam_size": 3, "length_penalty": 0.9, "ban": ["man", "a=b c"], "sample": True, "prefix": 'a "b" = '}
    assert read_settings(write_settings(settings)) == settings
    assert read_settings(write_settings({})) == {}
    for text in ("beam_size", "beam_size=", "beam_size=3length_penalty=1 x"):
        with pytest.raises(ValueError):
            read_settings(text)


def test_a_prefix_that_is_not_utf8_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"The prefix 'caf.*' is not UTF-8 text"):
        RowOptions(prefix=os.fsdecode(b"caf\xe9 "))
