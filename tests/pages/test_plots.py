"""Plots: well-formed SVG, whatever is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from imgcap.pages.plots import Curve, Histogram, histogram_svg, plot_svg

SVG = "{http://www.w3.org/2000/svg}"
EPOCHS = (1, 2, 3)
LOSS, VAL_LOSS = Curve("training", EPOCHS, (3.5, 2.5, 2.0)), Curve("validation", EPOCHS, (3.6, 2.9, 2.8))


def parse(panels: list[tuple[str, list[Curve]]], x_label: str = "epoch") -> ET.Element:
    root = ET.fromstring(plot_svg(panels, x_label))
    assert root.tag == f"{SVG}svg"
    return root


def lines(root: ET.Element) -> list[list[tuple[float, float]]]:
    """The points of each curve."""
    found = []
    for line in root.iter(f"{SVG}polyline"):
        pairs = [point.split(",") for point in line.attrib["points"].split()]
        found.append([(float(x), float(y)) for x, y in pairs])
    return found


def texts(root: ET.Element) -> list[str]:
    """What is written, without the marks of the legend."""
    return ["".join(element.itertext()).lstrip("\u25cf\u25cb\u25a0\u25a1 ") for element in root.iter(f"{SVG}text")]


def test_each_curve_is_a_line_through_its_points() -> None:
    root = parse([("Loss", [LOSS, VAL_LOSS]), ("BLEU-4", [Curve("BLEU-4", EPOCHS, (0.1, 0.15, 0.2))])])
    assert [len(line) for line in lines(root)] == [3, 3, 3]
    assert len(list(root.iter(f"{SVG}circle"))) == 9
    assert len(root.findall(f"{SVG}g")) == 2


def test_larger_values_are_higher_and_later_epochs_further_right() -> None:
    falling, rising = lines(parse([("Loss", [LOSS]), ("BLEU", [Curve("BLEU", EPOCHS, (0.1, 0.15, 0.2))])]))
    for line in (falling, rising):
        assert [x for x, _ in line] == sorted({x for x, _ in line})
    assert falling[0][1] < falling[1][1] < falling[2][1]
    assert rising[0][1] > rising[1][1] > rising[2][1]


def test_curves_of_a_panel_share_their_axes() -> None:
    ours, theirs = lines(parse([("Loss", [LOSS, VAL_LOSS])]))
    assert ours[0][0] == theirs[0][0]
    assert theirs[0][1] < ours[0][1]


def test_everything_is_drawn_inside_the_image() -> None:
    root = parse([("A", [LOSS, VAL_LOSS]), ("B", [LOSS])])
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {width:.0f} {height:.0f}"
    for line in lines(root):
        assert all(0 <= x <= width / 2 and 0 <= y <= height for x, y in line)


def test_titles_and_labels_are_escaped() -> None:
    title, label, x_label = 'Loss <b> & "more"', "a < b's", "epoch & <step>"
    found = texts(parse([(title, [Curve(label, EPOCHS, (1, 2, 3)), VAL_LOSS])], x_label))
    for text in (title, label, x_label):
        assert text in found


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((1,), (2.5,)),
        ((1, 2, 3), (0.5, 0.5, 0.5)),
        ((1, 2), (0.0, 0.0)),
        ((1, 2), (-3.0, 4.0)),
        ((1, 2), (1e-9, 2e-9)),
        ((1, 2), (1e9, 3e9)),
        ((10, 20, 500), (5, 4, 3)),
    ],
)
def test_single_points_and_equal_values_are_drawn(x: tuple[float, ...], y: tuple[float, ...]) -> None:
    root = parse([("Loss", [Curve("loss", x, y)])])
    (line,) = lines(root)
    assert len(line) == len(x)
    assert "nan" not in ET.tostring(root, encoding="unicode")


def test_the_axes_name_their_lowest_and_highest_values() -> None:
    found = texts(parse([("Loss", [LOSS])]))
    for text in ("Loss", "epoch", "1", "3", "2", "3.5"):
        assert text in found


def test_curves_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        plot_svg([("Loss", [Curve("loss", (1, 2), (1.0,))])], "epoch")


def test_two_curves_differ_in_black_and_white() -> None:
    root = parse([("Loss", [LOSS, VAL_LOSS])])
    first, second = (root.find(f".//{SVG}g[@class='{name}']") for name in ("first", "second"))
    assert first is not None
    assert second is not None
    lines = [line for group in (first, second) for line in group.iter(f"{SVG}polyline")]
    assert ["stroke-dasharray" in line.attrib for line in lines] == [False, True]
    fills = [{circle.get("fill") for circle in group.iter(f"{SVG}circle")} for group in (first, second)]
    assert fills == [{"currentColor"}, {"white"}]
    assert ["".join(span.itertext()) for span in root.iter(f"{SVG}tspan")] == ["\u25cf", "\u25cb"]


def test_each_point_tells_its_numbers() -> None:
    titles = [title.text for title in parse([("Loss", [LOSS])]).iter(f"{SVG}title")]
    assert titles == ["epoch 1: training 3.5", "epoch 2: training 2.5", "epoch 3: training 2"]


BARS, OUTLINE = Histogram("captions", (0, 10, 40, 50)), Histogram("references", (25, 25, 50, 0))
BINS = ("4 words", "5 words", "6 words", "7 <b>")


def histogram(*histograms: Histogram) -> ET.Element:
    return ET.fromstring(histogram_svg("share (%)", "words", BINS, 3.5, 1, histograms))


def bars(root: ET.Element) -> list[tuple[float, float, float, float]]:
    """Left, right, top and bottom of each bar."""
    found = []
    for bar in root.iterfind(f".//{SVG}g[@class='first']/{SVG}rect"):
        x, y, width, height = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        found.append((x, x + width, y, y + height))
    return found


def test_bars_are_side_by_side_on_the_axis_and_as_high_as_their_numbers() -> None:
    drawn = bars(histogram(BARS))
    assert all(right <= left for (_, right, _, _), (left, _, _, _) in pairwise(drawn))
    assert len({right - left for left, right, _, _ in drawn}) == 1
    assert len({bottom for *_, bottom in drawn}) == 1
    heights = [bottom - top for *_, top, bottom in drawn]
    assert heights == pytest.approx([0, heights[3] / 5, heights[3] * 4 / 5, heights[3]])
    assert heights[3] > 100


def test_the_outline_follows_the_same_bins_at_the_same_scale() -> None:
    root = histogram(BARS, OUTLINE)
    path = root.find(f".//{SVG}g[@class='second']/{SVG}path")
    assert path is not None
    assert path.get("fill") == "none"
    steps = [(float(y), float(x)) for y, x in (step.split("H") for step in path.attrib["d"].split("V")[1:-1])]
    drawn = bars(root)
    assert [x - 0.5 for _, x in steps] == pytest.approx([right for _, right, _, _ in drawn])
    assert [y for y, _ in steps] == pytest.approx([(steps[2][0] + drawn[0][3]) / 2] * 2 + [drawn[3][2], drawn[0][3]])


def test_each_bar_tells_its_numbers() -> None:
    titles = [title.text for title in histogram(BARS, OUTLINE).iter(f"{SVG}title")]
    assert titles[1:] == [
        "5 words: captions 10, references 25",
        "6 words: captions 40, references 50",
        "7 <b>: captions 50, references 0",
    ]


def test_numbers_are_below_the_middle_of_the_bars_of_whole_numbers() -> None:
    root = histogram(BARS)
    places = {text.text: float(text.attrib["x"]) for text in root.iter(f"{SVG}text") if text.get("x")}
    left, right, *_ = bars(root)[1]
    assert places["5"] == pytest.approx((left + right) / 2)


def test_two_histograms_have_a_legend() -> None:
    assert "captions" not in texts(histogram(BARS))
    assert {"captions", "references", "share (%)", "words"} <= set(texts(histogram(BARS, OUTLINE)))


def test_an_empty_histogram_is_drawn() -> None:
    assert [bottom - top for *_, top, bottom in bars(histogram(Histogram("captions", (0, 0, 0, 0))))] == [0, 0, 0, 0]
