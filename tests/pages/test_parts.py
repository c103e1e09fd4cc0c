"""What the HTML pages share: text that is visible and escaped. Thumbnails are tested through the gallery."""

from __future__ import annotations

import math

import pytest

from imgcap.pages.parts import number, render, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog", "a dog"),
        ("été \U0001f469\u200d\U0001f680 \u05db\u05dc\u05d1", "été \U0001f469\u200d\U0001f680 \u05db\u05dc\u05d1"),
        ("a\nb\0c\x7f\x85", r"a\u000ab\u0000c\u007f\u0085"),
        ("\udcff\ud83d", r"\udcff\ud83d"),
        ("\u202egod\u202c \u2066x\u2069\u2028", r"\u202egod\u202c \u2066x\u2069\u2028"),
        (5, 5),
        (None, None),
    ],
)
def test_text_that_could_not_be_seen_becomes_escapes(text: object, shown: object) -> None:
    assert visible(text) == shown


def test_a_template_escapes_text_and_makes_it_visible() -> None:
    page = render(
        "gallery.html", title="</title><b a='1' b=\"2\">&amp;\n{{ style }}", style="", script="", model="default"
    )
    assert "<title>&lt;/title&gt;&lt;b a=&#39;1&#39; b=&#34;2&#34;&gt;&amp;amp;\\u000a{{ style }}</title>" in page


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.50"), (None, "\u2014"), (math.nan, "\u2014"), (-math.inf, "\u2014")]
)
def test_a_number_that_is_missing_is_a_dash(value: float | None, text: str) -> None:
    assert number(value, 2) == text
