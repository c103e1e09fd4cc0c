"""The score page in a browser: complete without JavaScript, and what its filters show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from helpers.browser import Browser
from helpers.data import draw
from helpers.scored_images import CIDER_D, COMPARED, CURVES, HOSTILE, IMAGES, NAN, SHOWN, image, write
from imgcap.model.store import METRICS_FILE
from imgcap.pages.interval_plot import Measure
from imgcap.pages.selection import ScoredImage
from imgcap.scoring.resampling import Difference
from imgcap.training.curves import learning_curves
from imgcap.training.progress import EpochResult


@pytest.fixture(scope="module", autouse=True)
def filters_for_few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgcap.pages.score_page._FEW", 0)
        patch.setattr("imgcap.pages.selection.GROUP_SIZE", 2)
        yield


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    draw("red", 3).save(folder / "red.png")
    (folder / "broken.png").write_bytes(b"no image")
    images = [replace(IMAGES[0], image=folder / "red.png"), *IMAGES[1:]]
    images[1] = replace(images[1], image=folder / "broken.png")
    log = [EpochResult(n, 3.0 / n, 1e-3, 0.4 / n, (0.6 / n,) * 4, 1.0) for n in (1, 2)]
    (folder / METRICS_FILE).write_text("".join(json.dumps(asdict(result)) + "\n" for result in log))
    return write(
        folder / "page.html",
        images,
        title=f"Walls {HOSTILE}",
        facts=[("Signature", HOSTILE), (HOSTILE, "1")],
        verdict=HOSTILE,
        notes=[HOSTILE, "CIDEr-D is 0 to 10."],
        curves=learning_curves(folder),
    )


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    measure = replace(CIDER_D, compared_interval=(0.58, 0.64), difference=Difference(-0.023, (-0.03, 0.01), 0.0412))
    file = tmp_path_factory.mktemp("page") / "page.html"
    settings = [("start", HOSTILE)]
    return write(file, COMPARED, labels=(HOSTILE, "After"), measures=[measure], settings=settings, curves=CURVES)


def ids(browser: Browser) -> list[str]:
    """The ids of the cards that are shown, in order, "hostile" for the hostile one."""
    shown = "return [...document.querySelectorAll('.card')].filter(e => e.checkVisibility())"
    found = browser.run(shown + ".map(e => e.querySelector('.id span').textContent)")
    return ["hostile" if name == SHOWN else str(name) for name in found]


def test_the_page_sends_no_request_and_may_not(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.requests() == {page.as_uri()}
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    policy = browser.find("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")


def test_hostile_text_is_shown_and_does_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    for selector in ("h1", ".verdict", ".facts dd", ".facts dt + dd + dt", ".notes li"):
        assert browser.texts(selector)[0].removeprefix("Walls ") == SHOWN
    for selector in (".caption span", ".references li", ".id span"):
        assert SHOWN in browser.texts(selector)
    assert browser.run("return window.broken") is None
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("return document.title") == f"Walls {SHOWN}"


def test_hostile_text_in_a_comparison_is_shown_and_does_nothing(browser: Browser, comparison: Path) -> None:
    browser.open(comparison)
    for selector in (".pair .caption span", ".label b", "thead th", "section .facts dd", ".key span"):
        assert SHOWN in browser.texts(selector)
    assert browser.run("return document.querySelector('td').dataset.label") == SHOWN
    assert browser.run("return window.broken") is None


def test_no_script_but_the_page_s_own_runs(browser: Browser, tmp_path: Path) -> None:
    scripts = "<script>window.broken = 1</script><image href='x' onerror='window.broken = 1'/>"
    browser.open(write(tmp_path / "page.html", curves=[CURVES[0].replace("</svg>", f"{scripts}</svg>")]))
    assert ids(browser)
    assert browser.run("return window.broken") is None
    refused = browser.driver.get_log("browser")  # type: ignore[no-untyped-call]
    assert refused
    assert all("Content Security Policy" in entry["message"] for entry in refused)


def test_everything_but_the_filters_is_there_without_javascript(browser: Browser, page: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(page.as_uri())
        assert browser.find("#count").text == "5 images"
        assert not browser.find("#filters").is_displayed()
        assert len(browser.driver.find_elements("css selector", ".card")) == 5
        assert browser.find(".drawing svg").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_missing_images_are_shown_as_missing(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.find("#images").location_once_scrolled_into_view  # noqa: B018 (scrolls)
    [width] = browser.run("return Promise.all([...document.images].map(async e => (await e.decode(), e.naturalWidth)))")
    assert width == 64
    assert browser.texts(".image") == ["No image", "No image", "", "No image", "No image"]
    assert browser.run("return [document.images[0].loading, document.images[0].decoding]") == ["lazy", "async"]


def test_a_card_shows_captions_references_and_scores(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.texts(".card:first-child .caption") == ["two dogs run"]
    assert browser.texts(".card:first-child .references li") == ["dogs are running"]
    assert browser.texts(".card:first-child .scores div") == ["CIDEr-D2.00", "BLEU-40.90", "ROUGE-L0.40"]
    assert browser.texts(".card:first-child .tags b") == ["Best"]
    assert browser.texts(".card:last-child .caption") == ["(no words)"]
    assert browser.texts(".card:last-child .scores dd") == ["\u2014", "\u2014", "0.40"]


@pytest.mark.parametrize(
    ("control", "value", "shown"),
    [
        ("#text", "DOGS run", ["1.png"]),
        ("#text", "two dog", ["1.png"]),
        ("#text", "e\u0301te\u0301", ["2.png"]),
        ("#text", "wall 0.png", ["0.png"]),
        ("#text", "CIDEr", []),
        ("#text", "onerror", ["hostile"]),
        ("#least", 0.5, ["1.png", "hostile", "0.png", "3.png"]),
        ("#least", 0.51, ["1.png", "hostile", "3.png"]),
        ("#most", 0.5, ["0.png", "2.png", "3.png"]),
        ("best", None, ["1.png", "hostile"]),
        ("worst", None, ["0.png", "2.png"]),
        ("random", None, ["hostile", "3.png"]),
        ("#sort", "cider-up", ["2.png", "0.png", "hostile", "1.png", "3.png"]),
        ("#sort", "bleu-down", ["1.png", "hostile", "0.png", "2.png", "3.png"]),
        ("#sort", "bleu-up", ["2.png", "0.png", "hostile", "1.png", "3.png"]),
        ("#sort", "words-up", ["3.png", "1.png", "0.png", "2.png", "hostile"]),
        ("#sort", "words-down", ["hostile", "2.png", "1.png", "0.png", "3.png"]),
    ],
)
def test_filters_and_orders(browser: Browser, page: Path, control: str, value: object, shown: list[str]) -> None:
    browser.open(page)
    if control.startswith("#"):
        browser.choose(control, value)
    else:
        browser.pick(control)
    assert ids(browser) == shown
    assert browser.count() == ("5 images" if len(shown) == 5 else f"{len(shown)} of 5 images")
    assert browser.find("#none").is_displayed() == (not shown)


@pytest.mark.parametrize(
    ("control", "value", "shown"),
    [
        ("#text", "one dog", ["1.png"]),
        ("gains", None, ["1.png"]),
        ("losses", None, ["0.png", "hostile"]),
        ("#sort", "gain-down", ["1.png", "2.png", "0.png", "hostile", "3.png"]),
        ("#sort", "gain-up", ["hostile", "0.png", "2.png", "1.png", "3.png"]),
        ("#sort", "cider-down", ["1.png", "hostile", "0.png", "2.png", "3.png"]),
    ],
)
def test_filters_and_orders_of_a_comparison(
    browser: Browser, comparison: Path, control: str, value: object, shown: list[str]
) -> None:
    browser.open(comparison)
    if control.startswith("#"):
        browser.choose(control, value)
    else:
        browser.pick(control)
    assert ids(browser) == shown


def test_filters_work_together_and_are_cleared_together(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.choose("#sort", "cider-up")
    browser.pick("worst")
    browser.choose("#text", "a")
    browser.choose("#most", 0.4)
    assert ids(browser) == ["2.png"]
    browser.choose("#least", 0.3)
    assert ids(browser) == []
    browser.find("#clear").click()
    assert ids(browser) == ["2.png", "0.png", "hostile", "1.png", "3.png"]
    assert browser.run("return document.activeElement.id") == "text"
    assert browser.run("return ['text', 'least', 'most'].map(id => document.getElementById(id).value)") == ["", "", ""]


def test_everything_is_reached_from_the_keyboard_and_has_a_name(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press(Keys.TAB)
    assert browser.find(".skip").location["y"] >= 0
    browser.press(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "images"
    reached = []
    for _ in range(5):
        browser.press(Keys.TAB)
        reached.append(str(browser.run("const e = document.activeElement; return e.id || e.value")))
    assert reached == ["all", "text", "least", "most", "sort"]
    names = browser.run("return [...document.querySelectorAll('input, select')].map(e => e.labels[0].textContent)")
    assert [str(name).split("  ")[0] for name in names] == [
        "All 5",
        "Best 2",
        "Worst 2",
        "Random 2",
        "Words in caption, references or id",
        "CIDEr-D at least",
        "CIDEr-D at most",
        "Sorted by",
    ]
    browser.press(Keys.SHIFT + Keys.TAB, *[Keys.SHIFT + Keys.TAB] * 3, Keys.ARROW_RIGHT)
    assert ids(browser) == ["1.png", "hostile"]


@pytest.mark.parametrize("width", [320, 375, 545, 768, 896, 897, 1280, 1920])
@pytest.mark.parametrize("name", ["page", "comparison"])
def test_nothing_is_wider_than_the_window(
    browser: Browser, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    browser.resize(width, 800)
    browser.open(request.getfixturevalue(name))
    assert browser.run("return document.documentElement.scrollWidth") <= width
    wider = """return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
        && !e.closest('.unseen, thead') && e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML)"""
    assert browser.run(wider) == []


@pytest.mark.parametrize(("width", "columns"), [(320, 1), (768, 2), (1280, 2)])
def test_drawings_are_whole_and_readable_at_any_width(browser: Browser, page: Path, width: int, columns: int) -> None:
    browser.resize(width, 800)
    browser.open(page)
    drawings, texts = browser.run("""
        const edges = e => (box => [box.left, box.right])(e.getBoundingClientRect());
        const all = selector => [...document.querySelectorAll(selector)];
        const scale = svg => svg.clientWidth / svg.viewBox.baseVal.width;
        const size = e => parseFloat(getComputedStyle(e).fontSize) * scale(e.closest("svg"));
        return [all(".figures svg").map(edges),
          all(".figures text").map(e => [...edges(e), ...edges(e.closest("svg")), size(e)])];
    """)
    assert len(drawings) == 4
    assert len({left for left, _ in drawings}) == columns
    assert all(0 <= left < right <= width for left, right in drawings)
    assert all(start <= left < right <= end and size >= 10 for left, right, start, end, size in texts)


def test_a_drawing_that_is_alone_is_not_blown_up(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path / "page.html", [image(0, NAN, bleu_4=NAN)], measures=[]))
    assert len(browser.texts("figure")) == 1
    assert browser.run("return document.querySelector('figure').offsetWidth") < 600


def test_labels_stay_inside_their_plot_and_apart(browser: Browser, tmp_path: Path) -> None:
    close = Measure("BLEU-4", 0.5, 0.4, 0.6, floor=0.49, ceiling=0.51)
    far = Measure("BLEU-4", 0.5, 0.4, 0.6, floor=0.0, ceiling=1.0)
    browser.resize(320, 800)
    browser.open(write(tmp_path / "page.html", measures=[close, far]))
    boxes = browser.run("""return [...document.querySelectorAll('.scale text')].map(e => {
        const text = e.getBoundingClientRect(), plot = e.closest('svg').getBoundingClientRect();
        return [text.left - plot.left, plot.right - text.right, text.top - plot.top, plot.bottom - text.bottom];
    })""")
    assert len(boxes) == 4
    assert min(min(box) for box in boxes) > -0.5
    floors, ceilings = boxes[::2], boxes[1::2]
    assert all(52 - floor[3] < ceiling[2] for floor, ceiling in zip(floors, ceilings, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["page", "comparison"])
def test_text_has_enough_contrast(browser: Browser, request: pytest.FixtureRequest, name: str, theme: str) -> None:
    browser.emulate(theme)
    browser.open(request.getfixturevalue(name))
    measured = browser.contrasts()
    assert len(measured) > 100
    least = {"tspan.first": 3, "tspan.second": 3}  # the marks of legends are graphics (1.4.11)
    assert [name for ratio, name in measured if ratio < least.get(name, 4.5)] == []


def test_print_is_dark_on_white_and_shows_what_is_filtered(browser: Browser, page: Path) -> None:
    browser.emulate("dark")
    browser.open(page)
    browser.pick("best")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        colours = browser.run(
            "const s = getComputedStyle(document.documentElement); return [s.color, s.backgroundColor]"
        )
        assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        assert not browser.find("#filters").is_displayed()
        assert ids(browser) == ["1.png", "hostile"]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("images", [[], [image(0)], [image(0, NAN, bleu_4=NAN)], [image(0, 0.0, "", references=())]])
@pytest.mark.parametrize("measures", [[], [Measure("BLEU-4", 0.0, NAN, NAN, None, None)]])
@pytest.mark.parametrize("few", [0, 12])
def test_a_page_with_hardly_any_content_works(
    tmp_path: Path,
    browser: Browser,
    images: list[ScoredImage],
    measures: list[Measure],
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgcap.pages.score_page._FEW", few)
    browser.open(write(tmp_path / "page.html", images, measures=measures, facts=[]))
    assert browser.count() == ("1 image" if images else "0 images")
    assert browser.run("return document.querySelector('#none')?.checkVisibility()") is not True
    assert browser.texts("h2")[-1] == "Images"
