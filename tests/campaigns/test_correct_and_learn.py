"""The whole loop: caption, correct the captions in a browser, prepare, train; the model learns what was typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.keys import Keys

from helpers.command import captions
from helpers.data import COLOURS, Run, draw
from helpers.gallery_checks import progress
from imgcap.errors import ExitCode

if TYPE_CHECKING:
    from helpers.browser import Browser

SEEN = {"red": "a crimson wall", "green": "moss on stone", "blue": "the deep sea", "white": "fresh snow everywhere"}
"""What the person types about the images of each colour; the model knows few of these words."""
TRAINING = {
    "--epochs": 80,
    "--patience": 0,
    "--batch-size": 8,
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


def shown(browser: Browser) -> str:
    """The path of the image that is open."""
    return str(browser.find("#detail-image .file").text)


def correct(browser: Browser) -> None:
    """Type what the person sees in the image that is open, which opens the next one."""
    browser.press("e", Keys.CONTROL + "a" + Keys.CONTROL, expected(shown(browser)), Keys.ENTER)


def test_what_a_person_types_is_learned(imgcap: Run, browser: Browser, folder: Path, telling_model: Path) -> None:
    done = imgcap("caption", "first", "second", "--model", telling_model, "--html", "page.html")
    assert done.returncode == ExitCode.DONE, done.stderr
    before = captions(done.stdout)
    assert len(before) == 32

    browser.open(folder / "page.html")
    browser.press("c", "a", "u")
    assert progress(browser) == "0 of 32 checked"
    accepted = shown(browser)
    browser.press("a")
    skipped = shown(browser)
    browser.press("s")
    for _ in range(14):
        correct(browser)
    browser.reload()
    assert progress(browser) == "15 of 32 checked, 1 skipped"
    browser.press(Keys.ESCAPE)
    browser.pick("unchecked")
    assert browser.count() == "16 of 32 images"
    browser.press("c")
    for _ in range(16):
        correct(browser)
    assert browser.texts("#written") == ["All 32 images are checked."]
    file = browser.download("#write", folder)
    checked = {path: expected(path) for path in before if path not in (accepted, skipped)} | {
        accepted: before[accepted]
    }
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["path"], row["caption"]) for row in rows] == [
        (path, checked[path]) for path in before if path in checked
    ]
    assert [row.get("corrected_from") for row in rows] == [
        None if path == accepted else before[path] for path in before if path in checked
    ]
    prepare, train = [line.split()[1:] for line in browser.find("#commands").text.split("\n")]

    assert prepare[-2:] == ["--encoder", str(telling_model)]
    assert train[-2:] == ["--start-from", str(telling_model)]
    done = imgcap(*prepare)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "31 images" in done.stderr
    assert "Left out 1 image without a caption." in done.stderr
    done = imgcap(*train, *(part for option in TRAINING.items() for part in option))
    assert done.returncode == ExitCode.DONE, done.stderr
    done = imgcap("caption", "first", "second", "--model", "my-model")
    after = captions(done.stdout)

    assert sum(before[path] == expected(path) for path in before) == 0
    assert sum(after[path] == expected(path) for path in before) > 24

    (folder / accepted).with_suffix(".txt").write_text("old\n")
    done = imgcap("apply", file.name, "--sidecar", ".txt", "--overwrite")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert {path: (folder / path).with_suffix(".txt").read_text().strip() for path in checked} == checked
    assert not (folder / skipped).with_suffix(".txt").exists()
