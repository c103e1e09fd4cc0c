"""The score page: written whole or not at all, right without JavaScript, and tried in a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from helpers.browser import Browser
from helpers.data import draw
from imgcap.errors import ImgcapError
from imgcap.pages.plots import Curve, plot_svg
from imgcap.pages.score_page import GROUP_SIZE, Measure, ScoredImage, write_score_page

NAN = float("nan")
HOSTILE = "</script><img src=x onerror=window.broken=1>\u2028\n'\"&amp;\udcff\ud83d\u202e{{cards}} {0} \\1"
SHOWN = "</script><img src=x onerror=window.broken=1>\\u2028\\u000a'\"&amp;\\udcff\\ud83d\\u202e{{cards}} {0} \\1"
BLEU_4 = Measure("BLEU-4", 0.2, 0.19, 0.215, floor=0.074, ceiling=0.243)
CIDER_D = Measure("CIDEr-D", 0.587, 0.56, 0.613, floor=0.087, ceiling=0.85, compared=0.61, top=10.0)
CURVES = plot_svg([("Loss", [Curve("loss", (1, 2, 3), (3.0, 2.0, 1.5))])], "epoch")


def image(number: int, cider_d: float = 0.5, caption: str = "a red wall", **more: Any) -> ScoredImage:
    references = more.pop("references", ("the wall is red", "a wall"))
    return ScoredImage(f"{number}.png", caption, references, cider_d, more.pop("bleu_4", 0.3), 0.4, **more)


IMAGES = [
    image(0, 0.5, bleu_4=0.1),
    image(1, 2.0, "two dogs run", references=("dogs are running",), bleu_4=0.9, compared="one dog runs"),
    image(2, 0.0, "a very long caption of a cat on a mat", references=("Été au chat",), bleu_4=0.0),
    image(3, NAN, "", bleu_4=NAN),
    ScoredImage(HOSTILE, HOSTILE, (HOSTILE,), 1.0, 0.5, 0.5, compared=HOSTILE),
]


def write(file: Path, images: list[ScoredImage] = IMAGES, **more: Any) -> Path:
    options: dict[str, Any] = {"title": "Scores", "measures": [BLEU_4, CIDER_D], "facts": [("Images", "5")]}
    write_score_page(file, images=images, **{**options, **more})
    return file


def read(tmp_path: Path, images: list[ScoredImage] = IMAGES, **more: Any) -> str:
    return write(tmp_path / "page.html", images, **more).read_text(encoding="utf-8")


def groups(page: str) -> dict[str, str]:
    """The groups of each card, by id, in the order of the page."""
    cards = re.findall(r'<li class="card" data-groups="(.*?)".*?<p class="id"><span dir="auto">(.*?)</span>', page)
    return {unescape(name): tags for tags, name in cards}


def members(page: str, group: str) -> list[str]:
    return [name for name, tags in groups(page).items() if group in tags.split()]


# What is written.


def test_best_worst_and_random_images_are_chosen_from_many(tmp_path: Path) -> None:
    images = [image(i, i * 7919 % 1000 / 100) for i in range(1000)]
    ranked = [p.image_id for p in sorted(images, key=lambda p: -p.cider_d)]
    page = read(tmp_path, images)
    assert members(page, "best") == ranked[:GROUP_SIZE]
    assert members(page, "worst") == ranked[-GROUP_SIZE:]
    drawn = members(page, "random")
    assert len(drawn) == GROUP_SIZE
    assert 15 < sum(ranked.index(name) < 500 for name in drawn) < 45
    shown = list(groups(page))
    assert shown == sorted(shown, key=ranked.index)
    assert set(shown) == {*ranked[:GROUP_SIZE], *ranked[-GROUP_SIZE:], *drawn}
    assert "Of 1,000 images, those with the 60 highest and the 60 lowest CIDEr-D, and 60 drawn at random" in page
    assert page == read(tmp_path, images)


def test_a_image_of_several_groups_stands_once_with_all_its_tags(tmp_path: Path) -> None:
    page = read(tmp_path, [image(i, i / 100) for i in range(1000)])
    several = [tags for tags in groups(page).values() if " " in tags]
    assert several
    assert set(several) <= {"best random", "worst random"}
    assert page.count("<b>Random</b>") == GROUP_SIZE
    assert page.count("<b>Best</b><b>Random</b>") == several.count("best random")


@pytest.mark.parametrize("count", [1, 2, 3, 59, 60, 61, 119, 120, 121, 179, 180])
def test_all_of_few_images_are_shown_and_best_and_worst_are_halves(tmp_path: Path, count: int) -> None:
    page = read(tmp_path, [image(i, i / 100) for i in range(count)])
    assert list(groups(page)) == [f"{i}.png" for i in reversed(range(count))]
    assert len(members(page, "best")) == len(members(page, "worst")) == min(GROUP_SIZE, (count + 1) // 2)
    assert len(set(members(page, "best")) & set(members(page, "worst"))) == (count % 2 if count < 120 else 0)
    assert "All images" in page


def test_a_image_without_a_score_is_neither_best_nor_worst(tmp_path: Path) -> None:
    page = read(tmp_path, [image(0, NAN), image(1, 1.0), image(2, NAN), image(3, 2.0)])
    assert groups(page) == {"3.png": "best random", "1.png": "worst random", "0.png": "random", "2.png": "random"}


def test_a_page_of_40000_images_is_small(tmp_path: Path) -> None:
    words = ("a", "red", "wall", "is", "seen")
    images = [image(i, i % 997 / 100, words[i % 5], references=(words[i % 3],)) for i in range(40_000)]
    assert len(read(tmp_path, images)) < 300_000


def test_words_that_a_reference_has_are_underlined(tmp_path: Path) -> None:
    references = ("The dog's ball .", "A ball!")
    page = read(tmp_path, [image(0, caption="A dog's RED ball, thrown.  Ball", references=references)])
    assert '<span dir="auto"><u>A</u> <u>dog&#x27;s</u> RED <u>ball,</u> thrown.  <u>Ball</u></span>' in page


def test_scores_and_what_is_missing_are_written_out(tmp_path: Path) -> None:
    page = read(tmp_path, measures=[CIDER_D, Measure("BLEU-1", NAN, NAN, 0.5, None, NAN)])
    cells = re.findall(
        r'<th scope="row">(.*?)</th><td class="value">(.*?)</td><td.*?>(.*?)</td><td.*?>(.*?)</td>', page
    )
    assert [tuple(map(unescape, row)) for row in cells] == [
        ("CIDEr-D", "0.5870", "0.5600 to 0.6130", "0.6100"),
        ("BLEU-1", "\u2014", "\u2014", "\u2014"),
    ]
    labels = [unescape(label) for label in re.findall(r'<svg role="img" aria-label="(.*?)"', page)]
    assert labels[0] == (
        "CIDEr-D: 0.5870, 95 % interval 0.5600 to 0.6130, floor 0.0870, ceiling 0.8500, compared with 0.6100"
    )
    assert "nan" not in page.replace('data-cider="nan"', "").replace('data-bleu="nan"', "")


def test_nothing_is_said_of_a_comparison_where_there_is_none(tmp_path: Path) -> None:
    page = read(tmp_path, [image(0)], measures=[BLEU_4])
    assert "ompared" not in page
    assert 'class="diamond"' not in page


@pytest.mark.parametrize(
    ("measure", "end"),
    [
        (BLEU_4, "0.25"),
        (CIDER_D, "1"),
        (replace(BLEU_4, ceiling=None), "0.25"),
        (replace(BLEU_4, ceiling=0.3), "0.3"),
        (replace(BLEU_4, high=0.31), "0.4"),
        (replace(BLEU_4, compared=0.72), "0.8"),
        (replace(CIDER_D, ceiling=1.3), "2"),
        (Measure("BLEU-4", 0.0, 0.0, 0.0, None, None), "1"),
        (Measure("BLEU-4", 1e-300, NAN, NAN, None, None), "1"),
        (Measure("CIDEr-D", NAN, NAN, NAN, None, None, top=10.0), "10"),
        (Measure("CIDEr-D", 10.0, 10.0, 10.0, 0.0, 10.0, top=10.0), "10"),
    ],
)
def test_an_axis_ends_at_a_round_number_above_what_it_shows(tmp_path: Path, measure: Measure, end: str) -> None:
    page = read(tmp_path, measures=[measure])
    assert re.findall(r'<div class="scale"><span>0</span>.*?<span>(.*?)</span></div>', page) == [end]


def test_marks_stand_where_their_values_are(tmp_path: Path) -> None:
    page = read(tmp_path, measures=[Measure("BLEU-4", 0.2, 0.1, 0.3, floor=0.05, ceiling=0.5, compared=0.4)])
    [plot] = re.findall(r'<svg role="img".*?</div>', page)
    assert re.findall(r'class="(span|dot)" c?x="([\d.]+)%"', plot) == [("span", "10.00"), ("dot", "40.00")]
    assert re.findall(r'class="limit" x1="([\d.]+)%" x2="([\d.]+)%"', plot) == [
        ("10.00", "10.00"),
        ("100.00", "100.00"),
    ]
    assert re.findall(r'class="interval" x1="([\d.]+)%" x2="([\d.]+)%"', plot)[0] == ("20.00", "60.00")
    assert re.findall(r'<svg x="([\d.]+)%"', plot) == ["80.00"]
    assert 'width="90.00%"' in plot
    assert re.findall(r'text-anchor="(\w+)">([^<]*)', plot) == [("start", "floor 0.0500"), ("end", "ceiling 0.5000")]


def test_lengths_are_counted_in_tokens_and_long_ones_share_a_bar(tmp_path: Path) -> None:
    images = [
        image(0, caption="it's a wall .", references=("one two",)),
        image(1, caption="w " * 40, references=("w " * 39,)),
        image(2, caption="w " * 500, references=()),
        image(3, caption="", references=("one two",)),
    ]
    page = unescape(read(tmp_path, images))
    assert "Captions have 136.0 words on average, 0 to 500, references 14.3 words on average, 2 to 39." in page
    assert "<title>0 words: captions 25, references 0</title>" in page
    assert "<title>2 words: captions 0, references 66.67</title>" in page
    assert "<title>4 words: captions 25, references 0</title>" in page
    assert "<title>39 words: captions 0, references 33.33</title>" in page
    assert "<title>40 words or more: captions 50, references 0</title>" in page
    assert "words (the last bar: 40 or more)" in page


def test_the_histogram_of_cider_d_counts_every_image_that_has_one(tmp_path: Path) -> None:
    page = read(tmp_path, [image(i, cider) for i, cider in enumerate((0.0, 0.001, 0.05, 0.4, 10.0, NAN))])
    assert "The median of 5 images is 0.05, the highest 10.00; 2 of them at 0.00." in page
    shares = dict(re.findall(r"<title>([\d.]+ to [\d.]+): images ([\d.]+)</title>", page))
    assert len(shares) == 26
    assert {name: share for name, share in shares.items() if share != "0"} == {
        "0 to 0.4": "60",
        "0.4 to 0.8": "20",
        "10 to 10.4": "20",
    }


@pytest.mark.parametrize("images", [[], [image(0)], [image(0, NAN, bleu_4=NAN)], [image(0, 0.0, "", references=())]])
@pytest.mark.parametrize("measures", [[], [Measure("BLEU-4", 0.0, NAN, NAN, None, None)]])
def test_hardly_anything_to_show_is_shown(
    tmp_path: Path, browser: Browser, images: list[ScoredImage], measures: list[Measure]
) -> None:
    browser.open(write(tmp_path / "page.html", images, measures=measures, facts=[]))
    assert browser.count() == ("1 image" if images else "0 images")
    assert not browser.find("#none").is_displayed()
    assert browser.texts("h2")[-1] == "Images"


def test_a_page_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ImgcapError, match=r"The page .*folder cannot be written: "):
        write(tmp_path / "folder")
    with pytest.raises(ImgcapError, match=r"The folder .*file cannot be created: "):
        write(tmp_path / "file" / "page.html")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_page_makes_its_folder(tmp_path: Path) -> None:
    assert write(tmp_path / "new" / "page.html").is_file()


# The page.


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    draw("red", 3).save(folder / "red.png")
    (folder / "broken.png").write_bytes(b"no image")
    images = [replace(IMAGES[0], image=folder / "red.png"), *IMAGES[1:]]
    images[1] = replace(images[1], image=folder / "broken.png")
    return write(
        folder / "page.html",
        images,
        title=f"Walls {HOSTILE}",
        facts=[("Signature", HOSTILE), (HOSTILE, "1")],
        verdict=HOSTILE,
        notes=[HOSTILE, "CIDEr-D is 0 to 10."],
        curves=CURVES,
    )


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
    for selector in (".caption span", ".caption + .caption span", ".references li", ".id span"):
        assert SHOWN in browser.texts(selector)
    assert browser.run("return window.broken") is None
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("return document.title") == f"Walls {SHOWN}"


def test_no_script_but_the_page_s_own_runs(browser: Browser, tmp_path: Path) -> None:
    scripts = "<script>window.broken = 1</script><image href='x' onerror='window.broken = 1'/>"
    browser.open(write(tmp_path / "page.html", curves=CURVES.replace("</svg>", f"{scripts}</svg>")))
    assert ids(browser)
    assert browser.run("return window.broken") is None
    refused = browser.driver.get_log("browser")
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


def test_images_are_shown_or_said_to_be_missing(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.find("#images").location_once_scrolled_into_view  # noqa: B018 (scrolls)
    [width] = browser.run("return Promise.all([...document.images].map(async e => (await e.decode(), e.naturalWidth)))")
    assert width == 64
    assert browser.texts(".image") == ["No image", "No image", "", "No image", "No image"]
    assert browser.run("return [document.images[0].loading, document.images[0].decoding]") == ["lazy", "async"]


def test_a_card_tells_captions_references_and_scores(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.texts(".card:first-child .caption") == ["two dogs run", "Compared withone dog runs"]
    assert browser.texts(".card:first-child .references li") == ["dogs are running"]
    assert browser.texts(".card:first-child .scores div") == ["CIDEr-D2.00", "BLEU-40.90", "ROUGE-L0.40"]
    assert browser.texts(".card:first-child .tags b") == ["Best", "Random"]
    assert browser.texts(".card:last-child .caption") == ["(no words)"]
    assert browser.texts(".card:last-child .scores dd") == ["\u2014", "\u2014", "0.40"]


@pytest.mark.parametrize(
    ("control", "value", "shown"),
    [
        ("#text", "DOGS run", ["1.png"]),
        ("#text", "one dog", ["1.png"]),
        ("#text", "e\u0301te\u0301", ["2.png"]),
        ("#text", "wall 0.png", ["0.png"]),
        ("#text", "CIDEr", []),
        ("#text", "onerror", ["hostile"]),
        ("#least", 0.5, ["1.png", "hostile", "0.png", "3.png"]),
        ("#least", 0.51, ["1.png", "hostile", "3.png"]),
        ("#most", 0.5, ["0.png", "2.png", "3.png"]),
        ("best", None, ["1.png", "hostile"]),
        ("worst", None, ["0.png", "2.png"]),
        ("random", None, ["1.png", "hostile", "0.png", "2.png", "3.png"]),
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
        "Random 5",
        "Words in caption, references or id",
        "CIDEr-D at least",
        "CIDEr-D at most",
        "Sorted by",
    ]
    browser.press(Keys.SHIFT + Keys.TAB, *[Keys.SHIFT + Keys.TAB] * 3, Keys.ARROW_RIGHT)
    assert ids(browser) == ["1.png", "hostile"]


@pytest.mark.parametrize("width", [320, 375, 545, 768, 896, 897, 1280, 1920])
def test_nothing_is_wider_than_the_window(browser: Browser, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    wider = """return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
        && !e.closest('.wide svg, .unseen, thead') && e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML)"""
    assert browser.run(wider) == []


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
def test_text_has_enough_contrast(browser: Browser, page: Path, theme: str) -> None:
    browser.emulate(theme)
    browser.open(page)
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
