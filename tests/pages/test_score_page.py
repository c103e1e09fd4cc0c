"""The score page: written completely or not at all, its groups, numbers and marks."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from helpers.scored_images import BLEU_4, CIDER_D, NAN, image, read, write
from imgcap.errors import ImgcapError
from imgcap.pages.interval_plot import Measure
from imgcap.pages.score_page import GROUP_SIZE


def groups(page: str) -> dict[str, str]:
    """The groups of each card, by id, in the order of the page."""
    cards = re.findall(r'<li class="card" data-groups="(.*?)".*?<p class="id"><span dir="auto">(.*?)</span>', page)
    return {unescape(name): tags for tags, name in cards}


def members(page: str, group: str) -> list[str]:
    return [name for name, tags in groups(page).items() if group in tags.split()]


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


def test_an_image_of_several_groups_stands_once_with_all_its_tags(tmp_path: Path) -> None:
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


def test_an_image_without_a_score_is_neither_best_nor_worst(tmp_path: Path) -> None:
    page = read(tmp_path, [image(0, NAN), image(1, 1.0), image(2, NAN), image(3, 2.0)])
    assert groups(page) == {"3.png": "best random", "1.png": "worst random", "0.png": "random", "2.png": "random"}


def test_a_page_of_40000_images_is_small(tmp_path: Path) -> None:
    words = ("a", "red", "wall", "is", "seen")
    images = [image(i, i % 997 / 100, words[i % 5], references=(words[i % 3],)) for i in range(40_000)]
    assert len(read(tmp_path, images)) < 300_000


def test_words_that_a_reference_has_are_underlined(tmp_path: Path) -> None:
    references = ("The dog's ball .", "A ball!")
    page = read(tmp_path, [image(0, caption="A dog's RED ball, thrown.  Ball", references=references)])
    assert '<span dir="auto"><u>A</u> <u>dog&#39;s</u> RED <u>ball,</u> thrown.  <u>Ball</u></span>' in page


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


def test_a_page_without_comparison_does_not_mention_one(tmp_path: Path) -> None:
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


def test_marks_are_at_their_values(tmp_path: Path) -> None:
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
