"""The whole loop: caption, correct the captions in a browser, prepare, train; the model learns what was typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.keys import Keys

from helpers.command import captions
from helpers.data import COLOURS, Run, draw
from imgcap.errors import ExitCode

if TYPE_CHECKING:
    from helpers.browser import Browser

SEEN = {"red": "a crimson wall", "green": "moss on stone", "blue": "the deep sea", "white": "fresh snow everywhere"}
"""What the person types about the images of each colour; the model knows few of these words."""
TRAINING = {
    "--start-from": "none",
    "--epochs": 80,
    "--patience": 80,
    "--batch-size": 8,
    "--embedding-size": 32,
    "--hidden-size": 64,
    "--min-count": 1,
    "--learning-rate": 0.01,
    "--dropout": 0,
    "--word-dropout": 0,
    "--label-smoothing": 0,
    "--average": 0,
    "--beam-size": 2,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the images of two folders, whose names are the same but whose colours differ."""
    colours = list(COLOURS)
    for name, shift in (("first", 0), ("second", 1)):
        (tmp_path / name).mkdir()
        for i in range(16):
            draw(colours[(i + shift) % 4], i + 16 * shift).save(tmp_path / name / f"{i:02}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expected(path: str) -> str:
    shift = 1 if path.startswith("second/") else 0
    return SEEN[list(COLOURS)[(int(Path(path).stem) + shift) % 4]]


def test_what_a_person_types_is_learned(imgcap: Run, browser: Browser, folder: Path, telling_model: Path) -> None:
    done = imgcap("caption", "first", "second", "--model", telling_model, "--html", "page.html")
    assert done.returncode == ExitCode.DONE, done.stderr
    before = captions(done.stdout)
    assert len(before) == 32

    browser.open(folder / "page.html")
    browser.press("c")
    for _ in before:
        path = browser.find("#detail-image .file").text
        browser.press("e", Keys.CONTROL + "a" + Keys.CONTROL, expected(path), Keys.ENTER)
    file = browser.download("#write", folder)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["path"]: row["caption"] for row in rows} == {path: expected(path) for path in before}
    prepare, train = [line.split()[1:] for line in browser.find("#commands").text.split("\n")]

    assert prepare[-2:] == ["--encoder", str(telling_model)]
    assert train[-2:] == ["--start-from", str(telling_model)]
    done = imgcap(*prepare)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "32 images" in done.stderr
    done = imgcap(*train, *(part for option in TRAINING.items() for part in option))
    assert done.returncode == ExitCode.DONE, done.stderr
    done = imgcap("caption", "first", "second", "--model", "my-model")
    after = captions(done.stdout)

    assert sum(before[path] == expected(path) for path in before) == 0
    assert sum(after[path] == expected(path) for path in before) > 24

    (folder / "first" / "00.txt").write_text("old\n")
    done = imgcap("apply", file.name, "--sidecar", ".txt", "--overwrite")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert {path: (folder / path).with_suffix(".txt").read_text().strip() for path in before} == {
        path: expected(path) for path in before
    }
