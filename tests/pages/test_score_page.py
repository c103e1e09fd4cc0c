"""The score page: written completely or not at all, its groups, numbers and marks."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from helpers.data import draw
from helpers.scored_images import BLEU_4, CIDER_D, CURVES, NAN, image, read, write
from imgcap.errors import ImgcapError
from imgcap.pages.interval_plot import Measure
from imgcap.pages.selection import GROUP_SIZE
from imgcap.scoring.resampling import Difference


def test_an_image_of_several_groups_stands_once_with_all_its_tags(tmp_path: Path) -> None:
    page = read(tmp_path, [image(i, i / 100) for i in range(1000)])
    several = [tags for tags in re.findall(r'data-groups="(.*?)"', page) if " " in tags]
    assert several
    assert set(several) <= {"best random", "worst random"}
    assert page.count("<b>Random</b>") == GROUP_SIZE
    assert page.count("<b>Best</b><b>Random</b>") == several.count("best random")


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
    cells = re.findall(r'<th scope="row">(.*?)</th><td class="value">(.*?)</td><td.*?>(.*?)</td>', page)
    assert [tuple(map(unescape, row)) for row in cells] == [
        ("CIDEr-D", "0.5870", "0.5600 to 0.6130"),
        ("BLEU-1", "\u2014", "\u2014"),
    ]
    labels = [unescape(label) for label in re.findall(r'<svg role="img" aria-label="(.*?)"', page)]
    assert labels[0] == (
        "CIDEr-D: 0.5870, 95 % interval 0.5600 to 0.6130, floor 0.0870, ceiling 0.8500, compared with 0.6100"
    )
    assert "nan" not in page.replace('data-cider="nan"', "").replace('data-bleu="nan"', "")


def test_a_comparison_has_both_values_with_their_intervals_and_the_paired_test(tmp_path: Path) -> None:
    difference = Difference(-0.023, (-0.03, 0.01), 0.0412)
    both = replace(CIDER_D, compared_interval=(0.58, 0.64), difference=difference)
    missing = Measure("BLEU-1", 0.5, 0.4, 0.6, None, None)
    page = read(tmp_path, measures=[both, missing], labels=("Before <b>", "After"))
    assert re.findall(r'<th scope="col">(.*?)</th>', page) == ["Score", "Before &lt;b&gt;", "After", "Difference"]
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td data-label=.*?>(.*?)</td>", page)]
    assert cells == [
        "0.6100 0.5800 to 0.6400",
        "0.5870 0.5600 to 0.6130",
        "-0.0230 -0.0300 to +0.0100 p = 0.0412",
        "\u2014 \u2014",
        "0.5000 0.4000 to 0.6000",
        "\u2014",
    ]


def test_a_card_of_a_comparison_shows_both_captions_with_their_cider_d_and_the_gain(tmp_path: Path) -> None:
    compared = image(0, 0.5, "a red wall", compared="a dog", compared_cider_d=0.75)
    page = read(tmp_path, [compared], labels=("Before", "After"))
    labels = [re.sub("<.*?>", "", label) for label in re.findall(r'<p class="label">(.*?)</p>', page)]
    assert labels == ["Before CIDEr-D 0.75", "After CIDEr-D 0.50 (-0.25)"]
    shown = [re.sub("<.*?>", "", caption) for caption in re.findall(r'<p class="caption">(.*?)</p>', page)]
    assert shown == ["a dog", "a red wall"]
    assert "Images that gain: 0, lose: 1, stay the same: 0; the mean is -0.25." in page


def test_images_that_are_gone_are_counted(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "there.png")
    images = [image(0, image=tmp_path / "there.png"), image(1, image=tmp_path / "gone.png")]
    assert "1 of the images shown here can no longer be read." in read(tmp_path, images)
    assert "None of the images can be read any more." in read(tmp_path, images[1:])
    assert "read" not in re.sub("<[^>]*>", "", read(tmp_path, [image(0)]).split('id="images-title"')[1])


def test_a_page_without_scores_has_no_place_for_them(tmp_path: Path) -> None:
    images = [image(i, NAN, bleu_4=NAN, compared="a wall") for i in range(13)]
    page = read(tmp_path, images, measures=[], verdict="There are no scores.", labels=("Before", "After"))
    assert 'id="scores-title"' not in page
    assert "<table" not in page
    assert page.count('<div class="field limit-field" hidden>') == 2
    assert re.findall(r'<option value="(.*?)">', page) == ["place-up", "words-down", "words-up"]
    assert re.findall(r'<p class="label">(.*?)</p>', page) == ["<b>Before</b>", "<b>After</b>"] * 13
    assert "All images. References are below the captions" in page
    assert '<span class="tags"></span>' in page
    assert "<b>Random</b>" not in page


def test_few_images_have_no_filters(tmp_path: Path) -> None:
    for count, there in ((12, False), (13, True)):
        page = read(tmp_path, [image(i) for i in range(count)])
        assert [part in page for part in ('id="filters"', 'id="none"', "<script>")] == [there] * 3
    assert '<fieldset class="groups" id="groups" hidden>' in page


def test_the_settings_of_a_training_are_beside_its_curves(tmp_path: Path) -> None:
    page = read(tmp_path, curves=CURVES, settings=[("start", "<default>")])
    assert '<h2 id="training-title">Training</h2>' in page
    assert "<dt>start</dt><dd>&lt;default&gt;</dd>" in page
    assert '<h2 id="training-title">Learning curves</h2>' in read(tmp_path, curves=CURVES)


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
