"""The plot of a training: well-formed SVG, whatever is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from imgcap.report import Curve, plot_svg

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
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_each_curve_is_a_line_through_its_points() -> None:
    root = parse([("Loss", [LOSS, VAL_LOSS]), ("BLEU-4", [Curve("BLEU-4", EPOCHS, (0.1, 0.15, 0.2))])])
    assert [len(line) for line in lines(root)] == [3, 3, 3]
    assert len(list(root.iter(f"{SVG}circle"))) == 9
    assert len(list(root.iter(f"{SVG}g"))) == 2


def test_larger_values_stand_higher_and_later_epochs_further_right() -> None:
    falling, rising = lines(parse([("Loss", [LOSS]), ("BLEU", [Curve("BLEU", EPOCHS, (0.1, 0.15, 0.2))])]))
    for line in (falling, rising):
        assert [x for x, _ in line] == sorted({x for x, _ in line})
    assert falling[0][1] < falling[1][1] < falling[2][1]
    assert rising[0][1] > rising[1][1] > rising[2][1]


def test_curves_of_a_panel_share_their_axes() -> None:
    ours, theirs = lines(parse([("Loss", [LOSS, VAL_LOSS])]))
    assert ours[0][0] == theirs[0][0]
    assert theirs[0][1] < ours[0][1]


def test_everything_is_drawn_inside_the_picture() -> None:
    root = parse([("A", [LOSS, VAL_LOSS]), ("B", [LOSS])])
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {width:.0f} {height:.0f}"
    for line in lines(root):
        assert all(0 <= x <= width / 2 and 0 <= y <= height for x, y in line)


def test_titles_and_labels_are_escaped() -> None:
    title, label, x_label = 'Loss <b> & "more"', "a < b's", "epoch & <step>"
    found = texts(parse([(title, [Curve(label, EPOCHS, (1, 2, 3))])], x_label))
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
    for text in ("Loss", "training", "epoch", "1", "3", "2", "3.5"):
        assert text in found


def test_curves_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        plot_svg([("Loss", [Curve("loss", (1, 2), (1.0,))])], "epoch")
