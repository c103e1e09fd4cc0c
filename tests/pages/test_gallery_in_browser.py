"""The gallery in a browser: what it shows, filters, links and prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from helpers.browser import Browser
from helpers.data import EXAMPLES, draw
from helpers.gallery_rows import ROWS, write
from imgcap.pages.gallery import GalleryWriter
from imgcap.pages.parts import THUMBNAIL_SIZE


def file_names(browser: Browser) -> list[str]:
    """The file names on the cards, in order."""
    return browser.texts(".path span:last-child")


def at(browser: Browser) -> int:
    """The number of the card that has the focus."""
    return int(browser.run("return document.activeElement.parentNode.getAttribute('aria-posinset')"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page") / "page.html", ROWS, draw("red", 3))


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 rows, every third of a dog, the confidence of all different."""
    file = tmp_path_factory.mktemp("page") / "large.html"
    with GalleryWriter(file, "Many images") as gallery:
        for i in range(10_000):
            animal = ("dog", "cat", "horse")[i % 3]
            row = {
                "path": f"album {i % 7}/{i * 7919 % 10_000}.jpg",
                "caption": f"a {animal} runs through field {i} beside a fence",
                "confidence": i * 3571 % 10_000 / 10_000,
            }
            gallery.add(row, draw("green", i, 8) if i % 10 == 0 else None)
    return file


def test_the_page_sends_no_request_and_may_not(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.requests() == {page.as_uri()}
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    policy = browser.find("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'")


def test_hostile_text_is_shown_and_does_nothing(browser: Browser, page: Path) -> None:
    browser.open(page, "#image=5")
    shown = "</script><img src=x onerror=window.broken=1>\\u2028\\u000a'\"&amp;\\udcff\\ud83d\\u202e{{rows}}"
    cleaned = "</script><img src=x onerror=window.broken=1>\u2028 '\"&amp; {{rows}}".replace("\u2028", "")
    assert browser.find("#edit").get_property("value") == cleaned
    assert browser.texts(".spoken span") == [shown]
    assert browser.texts(".note span") == [f"Warning: {shown}"]
    assert browser.find("#detail img").get_attribute("alt") == shown
    assert browser.run("return window.broken") is None
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("return document.title").startswith("Walls </script><img src=x onerror=window.broken=1>")


def test_states_are_shown_in_words_and_to_screen_readers(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.texts(".badge") == ["Warning", "Withheld", "Failed", "Warning"]
    states = ["All 6", "Not yet checked 5", "Checked 0", "Captioned 4", "Withheld 1", "Failed 1", "With a warning 2"]
    assert browser.texts(".states label") == states
    labels = [str(card) for card in browser.run("return [...document.querySelectorAll('.card')].map(e => e.ariaLabel)")]
    assert labels[0] == "a red wall. confidence 91%. walls/red.png"
    assert labels[2] == "Withheld. No caption: its confidence is below the limit. confidence 10%. walls/10.png"
    assert labels[3] == "Failed. broken.jpg cannot be decoded: it is damaged. broken.jpg"
    items = browser.run(
        "return [...document.querySelectorAll('#grid[role=list] > li')].map(e => [e.ariaPosInSet, e.ariaSetSize])"
    )
    assert items == [[str(i), "6"] for i in range(1, 7)]
    assert browser.find(".card img").get_attribute("alt") == "a red wall"
    assert browser.run("return document.querySelector('#count').ariaLive") == "polite"
    unnamed = """return [...document.querySelectorAll('button, input, select, textarea')]
        .filter(e => !e.ariaLabel && !e.textContent && !e.labels?.length).length"""
    assert browser.run(unnamed) == 0


@pytest.mark.parametrize(
    ("control", "value", "names"),
    [
        ("#text", "WALL red", ["red.png"]),
        ("#text", "walls 10", ["10.png"]),
        ("#text", "zebras wall", ["2.png"]),
        ("#text", "purple", []),
        ("#least", 41, ["red.png", None]),
        ("#least", 40, ["red.png", "2.png", None]),
        ("captioned", None, ["red.png", "2.png", None, "blue.png"]),
        ("withheld", None, ["10.png"]),
        ("failed", None, ["broken.jpg"]),
        ("warned", None, ["2.png", None]),
        ("#sort", "path", [None, "broken.jpg", "2.png", "10.png", "blue.png", "red.png"]),
        ("#sort", "confidence-down", ["red.png", None, "2.png", "10.png", "broken.jpg", "blue.png"]),
        ("#sort", "confidence-up", ["10.png", "2.png", None, "red.png", "broken.jpg", "blue.png"]),
        ("#sort", "caption", [None, "blue.png", "red.png", "2.png", "10.png", "broken.jpg"]),
    ],
)
def test_filters_and_orders(browser: Browser, page: Path, control: str, value: object, names: list[str | None]) -> None:
    """None stands for the row of hostile text."""
    browser.open(page)
    if control.startswith("#"):
        browser.choose(control, value)
    else:
        browser.pick(control)
    assert [None if "onerror" in name or "script" in name else name for name in file_names(browser)] == names
    assert browser.count() == ("6 images" if len(names) == 6 else f"{len(names)} of 6 images")
    assert browser.find("#none").is_displayed() == (not names)


def test_a_view_is_linked_by_its_address(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.choose("#text", "wall")
    browser.choose("#least", 20)
    browser.choose("#sort", "confidence-up")
    browser.pick("captioned")
    browser.wait(lambda: "state" in browser.address())
    address, names = browser.address(), file_names(browser)
    assert address == "#text=wall&least=20&state=captioned&sort=confidence-up"
    assert names == ["2.png", "red.png"]
    browser.open(page, address)
    assert file_names(browser) == names
    assert browser.find("#text").get_attribute("value") == "wall"
    assert browser.find("#least-value").text == "20%"
    browser.run("location.hash = '#state=failed'")
    browser.wait(lambda: file_names(browser) == ["broken.jpg"])


@pytest.mark.parametrize("address", ["#%", "#least=x&sort=constructor&state=]&image=-1", "#image=99", "#grid"])
def test_an_address_that_makes_no_sense_shows_everything(browser: Browser, page: Path, address: str) -> None:
    browser.open(page, address)
    assert browser.count() == "6 images"
    assert file_names(browser)[0] == "red.png"


def test_the_dialog_shows_all_that_is_known(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.find(".card").click()
    assert browser.find("#edit").get_property("value") == "a red wall"
    assert browser.texts(".spoken li") == ["a99%", "red50%", "wall<1%"]
    assert browser.texts("#detail .ranked li") == ["a blue wall5%1", "train/7.jpg83%"]
    assert browser.texts(".facts dd") == ["walls", "\N{MINUS SIGN}1.23", "Word for word a caption of the training data"]
    assert browser.find("#detail img").size["width"] > browser.find(".card img").size["width"]
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.texts(".note") == ["Withheld: the confidence of the caption is below the limit that was set."]
    browser.wait(lambda: browser.address() == "#image=3")
    browser.press(Keys.ESCAPE)
    assert not browser.find("#detail").is_displayed()
    assert at(browser) == 3
    browser.wait(lambda: browser.address() == "")


def test_everything_can_be_done_from_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press(Keys.TAB)
    assert browser.find("#skip").is_displayed()
    browser.press(Keys.ENTER)
    assert at(browser) == 1
    assert browser.run("return document.querySelectorAll('.card[tabindex=\"0\"]').length") == 1
    places = []
    for key in (
        Keys.ARROW_RIGHT,
        Keys.ARROW_DOWN,
        Keys.ARROW_LEFT,
        Keys.ARROW_UP,
        Keys.END,
        Keys.ARROW_RIGHT,
        Keys.HOME,
    ):
        browser.press(key)
        places.append(at(browser))
    assert places == [2, 6, 5, 1, 6, 6, 1]  # four columns
    for key in (Keys.ENTER, Keys.SPACE):
        browser.press(key)
        assert browser.find("#detail").is_displayed()
        browser.press(Keys.ESCAPE)
        assert not browser.find("#detail").is_displayed()
        assert at(browser) == 1
    browser.press("?")
    assert browser.find("#keys").is_displayed()
    browser.press(Keys.ESCAPE, "/")
    assert browser.run("return document.activeElement.id") == "text"
    browser.press("z", "?", "/")
    assert browser.find("#text").get_attribute("value") == "z?/"
    browser.press(Keys.BACKSPACE, Keys.BACKSPACE, Keys.ARROW_DOWN)
    assert file_names(browser)[at(browser) - 1] == "2.png"


def test_the_theme_follows_the_system_until_it_is_switched_and_is_remembered(browser: Browser, page: Path) -> None:
    def dark() -> bool:
        return bool(
            browser.run("return getComputedStyle(document.documentElement).backgroundColor === 'rgb(20, 21, 23)'")
        )

    browser.open(page)
    assert not dark()
    browser.emulate("dark")
    assert dark()
    browser.wait(lambda: browser.find("#theme").get_attribute("aria-pressed") == "true")  # the page hears of it later
    browser.find("#theme").click()
    assert not dark()
    browser.reload()
    assert not dark()
    browser.find("#theme").click()
    assert dark()
    browser.emulate("light")
    assert not dark()


def test_a_page_that_may_not_remember_works(browser: Browser, page: Path) -> None:
    forbid = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": forbid})
    try:
        browser.driver.get("about:blank")
        browser.driver.get(page.as_uri())
        browser.find("#theme").click()
        assert browser.find("#theme").get_attribute("aria-pressed") == "true"
        assert browser.count() == "6 images"
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


@pytest.mark.parametrize("width", [320, 390, 700, 1000, 1920])
def test_no_width_needs_sideways_scrolling_and_cards_do_not_overlap(browser: Browser, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth <= arguments[0]", width)
    boxes = browser.run("return [...document.querySelectorAll('.card')].map(e => e.getBoundingClientRect().toJSON())")
    for i, one in enumerate(boxes):
        assert one["height"] == pytest.approx(boxes[0]["height"], abs=0.1)
        for other in boxes[:i]:
            assert one["left"] >= other["right"] or one["top"] >= other["bottom"] or one["right"] <= other["left"]


def test_a_page_of_ten_thousand_images_draws_few_of_them(browser: Browser, large_page: Path) -> None:
    browser.open(large_page)
    assert browser.count() == "10,000 images"

    def drawn() -> int:
        return int(browser.run("return document.querySelectorAll('body *:not(script)').length"))

    assert drawn() < 1500
    for control, value, count in [
        ("#text", "dog fence", "3,334 of 10,000 images"),
        ("#text", "", "10,000 images"),
        ("#least", 50, "5,050 of 10,000 images"),
        ("#sort", "path", "5,050 of 10,000 images"),
        ("#sort", "caption", "5,050 of 10,000 images"),
        ("#sort", "confidence-down", "5,050 of 10,000 images"),
    ]:
        browser.choose(control, value)
        assert browser.count() == count
        assert drawn() < 1500
    browser.choose("#least", 0)
    browser.choose("#sort", "given")
    browser.run("document.querySelector('.card').focus()")
    browser.press(Keys.END)
    assert at(browser) == 10_000
    assert browser.run(
        "const b = document.activeElement.getBoundingClientRect(); return b.top > 0 && b.bottom <= innerHeight"
    )
    browser.press(Keys.PAGE_UP)
    assert at(browser) == 9_992  # two rows of four fit the window
    browser.run("scrollTo(0, 100000)")
    browser.wait(lambda: bool(browser.run("return document.elementFromPoint(300, 600).closest('.card') !== null")))
    assert drawn() < 1500
    assert at(browser) == 9_992  # what has the focus stays, however far away
    browser.press(Keys.HOME)
    assert at(browser) == 1


@pytest.mark.parametrize(
    ("rows", "cards", "count"), [(40, 40, "40 images"), (1001, 1000, "The first 1,000 of 1,001 images")]
)
def test_print_shows_every_image_of_the_view_up_to_a_limit(
    browser: Browser, tmp_path: Path, rows: int, cards: int, count: str
) -> None:
    browser.open(write(tmp_path / "page.html", [{"path": f"{i}.png"} for i in range(rows)]))
    assert len(file_names(browser)) < 40
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert file_names(browser) == [f"{i}.png" for i in range(cards)]
    assert browser.count() == count
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert len(file_names(browser)) < 40


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Browser, page: Path, theme: str) -> None:
    browser.emulate(theme)
    for number in (0, 1, 2, 3, 4):
        browser.open(page, f"#image={number}")
        measured = browser.contrasts()
        assert len(measured) > 30
        assert [name for ratio, name in measured if ratio < 4.5] == []


def test_an_empty_page_shows_a_message(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path / "empty.html", []))
    assert browser.count() == "0 images"
    assert browser.find("#none").text == "There are no images on this page."


def test_the_examples_are_shown(browser: Browser, tmp_path: Path) -> None:
    with GalleryWriter(tmp_path / "page.html", "Examples") as gallery:
        for file in sorted(EXAMPLES.glob("*.jpg")):
            gallery.add({"path": file.name, "caption": f"the {file.stem}", "confidence": 0.5}, file)
    browser.open(tmp_path / "page.html")
    shown = "return [...document.images].map(async e => (await e.decode(), Math.max(e.naturalWidth, e.naturalHeight)))"
    assert [browser.run(f"return Promise.all((() => {{ {shown} }})())")] == [[THUMBNAIL_SIZE] * 6]
