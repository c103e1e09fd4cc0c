"""What the browser keeps of the captions that a person corrects, and what a saved file brings back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from helpers.browser import Browser
from helpers.data import draw
from helpers.gallery_checks import WALLS, badges, captions, progress
from helpers.gallery_rows import HOSTILE, write
from imgcap.captioning.row_files import read_rows

NO_STORAGE = (
    "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
)

DAMAGED = ["{", "null", "7", '[[9,"x"],["a",1],[0],3,[1,{}]]']


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page") / "walls.html", WALLS, draw("red", 3))


@contextmanager
def storage_denied(browser: Browser, file: Path) -> Iterator[None]:
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_STORAGE})
    try:
        browser.driver.get("about:blank")
        browser.driver.get(file.as_uri())
        yield
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_decisions_survive_a_reload_and_stay_with_their_page(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    browser.press("c", "a", "s", "e", "s of brick", Keys.ENTER)
    browser.reload()
    assert progress(browser) == "2 of 4 checked, 1 skipped"
    assert badges(browser) == ["Checked", "Skipped", "Corrected"]
    assert captions(browser)[2] == "a blue walls of brick"
    again = write(tmp_path / "again.html", WALLS, draw("red", 3))
    others = [{**WALLS[0], "caption": "a pink wall"}, *WALLS[1:]]
    other_captions = write(tmp_path / "captions.html", others, draw("red", 3))
    other_images = write(tmp_path / "images.html", WALLS, draw("green", 3))
    other_order = write(tmp_path / "order.html", WALLS[::-1], draw("red", 3))
    for file, expected in [
        (again, "2 of 4 checked, 1 skipped"),
        (other_captions, "0 of 4 checked"),
        (other_images, "0 of 4 checked"),
        (other_order, "0 of 4 checked"),
    ]:
        browser.driver.get(file.as_uri())
        assert progress(browser) == expected


@pytest.mark.parametrize("kept", [*DAMAGED, *(json.dumps({"time": 1, "text": text}) for text in DAMAGED)])
def test_damaged_decisions_are_ignored(browser: Browser, page: Path, kept: str) -> None:
    browser.open(page)
    browser.run("localStorage.setItem(document.querySelector('#digest').textContent, arguments[0])", kept)
    browser.reload()
    assert progress(browser).startswith("0 of 4 checked")


@pytest.mark.parametrize(
    ("key", "expected"), [("s", "1 of 4 checked, 1 skipped"), ("u", "0 of 4 checked")], ids=["decided", "undone"]
)
def test_a_reload_brings_back_what_the_storage_does_not_have_yet(
    browser: Browser, page: Path, key: str, expected: str
) -> None:
    browser.open(page)
    browser.press("c", "a")
    earlier = browser.run("return Object.entries(localStorage)")
    browser.press(key)
    browser.run("for (const [key, value] of arguments[0]) localStorage.setItem(key, value)", earlier)
    for _ in range(2):
        browser.reload()
        assert progress(browser) == expected


def test_no_other_page_can_read_what_a_page_keeps(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    browser.press("c", "a", Keys.ESCAPE)
    other = tmp_path / "other.html"
    other.write_text("<p>another page")
    browser.driver.get(other.as_uri())
    assert browser.run("return [window.name, history.state]") == ["", None]
    browser.driver.back()
    assert progress(browser) == "1 of 4 checked"


def test_another_tab_of_the_page_follows(browser: Browser, page: Path) -> None:
    browser.open(page)
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.driver.get(page.as_uri())
    browser.press("c", "a", "a")
    browser.driver.close()
    browser.driver.switch_to.window(first)
    browser.wait(lambda: progress(browser) == "2 of 4 checked")
    browser.press("c", "a")
    browser.reload()
    assert progress(browser) == "3 of 4 checked"


@pytest.mark.parametrize("leave", ["next", "close", "save", "reload"])
def test_what_is_typed_is_kept_when_the_person_moves_on(browser: Browser, page: Path, leave: str) -> None:
    browser.open(page)
    browser.press("c", "e", " today")
    if leave == "reload":
        browser.run("dispatchEvent(new Event('beforeunload'))")  # the reload's own may come too late for the driver
        browser.reload()
    elif leave == "save":
        browser.press(Keys.CONTROL + "s" + Keys.CONTROL)
        browser.press(Keys.ESCAPE)
    else:
        browser.find(f"#{leave}").click()
    browser.wait(lambda: captions(browser)[0] == "a red wall today")  # a dialog tells a little later that it is closed
    assert progress(browser) == "1 of 4 checked"


def test_a_saved_file_has_the_paths_as_they_were(browser: Browser, tmp_path: Path) -> None:
    rows = [{"path": path, "caption": "a wall"} for path in (HOSTILE, "caf\u00e9/\udcff.png", "\u4e00 \U0001f600.png")]
    browser.open(write(tmp_path / "page.html", rows))
    browser.press("c", "a", "a", "a")
    file = browser.download("#write", tmp_path)
    assert [(row["path"], row["caption"]) for row in read_rows(file)] == [(row["path"], "a wall") for row in rows]


def test_without_storage_the_page_says_so_and_warns_until_the_file_is_saved(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    with storage_denied(browser, page):
        assert progress(browser) == "0 of 4 checked; not kept by this browser"
        browser.press("c", "a", Keys.CONTROL + "s" + Keys.CONTROL)
        assert browser.texts("#kept") == [
            "This browser does not keep your work: save it before you close the page, and continue from the file."
        ]
        assert leaving_is_stopped(browser)
        browser.reload()
        assert progress(browser) == "1 of 4 checked; not kept by this browser"
        assert leaving_is_stopped(browser)
        browser.press(Keys.CONTROL + "s" + Keys.CONTROL)
        browser.download("#write", tmp_path)
        assert not leaving_is_stopped(browser)
    browser.open(page)
    browser.press("c", "a")
    assert not leaving_is_stopped(browser)


def leaving_is_stopped(browser: Browser) -> bool:
    event = "const e = new Event('beforeunload', {cancelable: true}); dispatchEvent(e); return e.defaultPrevented"
    return bool(browser.run(event))


def test_full_storage_is_said(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")
    browser.press("c", "a")
    assert progress(browser) == "1 of 4 checked; not kept by this browser"
    assert leaving_is_stopped(browser)
    browser.press("u")
    assert progress(browser) == "0 of 4 checked"


def test_a_saved_file_is_read_back_into_another_page_and_undone_at_once(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    browser.open(page)
    browser.press("c", "a", "e", " with ivy", Keys.ENTER, Keys.ESCAPE)
    browser.find("#save").click()
    browser.find("#saving [value=all]").click()
    file = browser.download("#write", tmp_path)
    with file.open("a") as lines:
        lines.write('{"path": "gone.png", "caption": "x"}\nno json\n{"path": "walls/blue.png"}\n\n')
    newer = [{**row, "caption": "any caption"} for row in WALLS]
    browser.open(write(tmp_path / "newer.html", newer))
    browser.find("#save").click()
    browser.find("#earlier").send_keys(str(file))
    browser.wait(lambda: browser.texts("#written") != [""])
    assert browser.texts("#written") == [
        "Read 2 captions from walls-all.jsonl; 3 lines have no caption for an image of this page."
    ]
    browser.press(Keys.ESCAPE)
    assert captions(browser) == ["a red wall", "a green wall with ivy", "any caption", "any caption"]
    browser.press("u")
    assert progress(browser) == "0 of 4 checked"
