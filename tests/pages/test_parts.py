"""What the HTML pages share; thumbnails are tried through the gallery."""

from __future__ import annotations

import pytest

from imgcap.pages.parts import as_html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a dog", "a dog"),
        ("</script><b a='1' b=\"2\">&amp;", "&lt;/script&gt;&lt;b a=&#x27;1&#x27; b=&quot;2&quot;&gt;&amp;amp;"),
        ("été \U0001f469\u200d\U0001f680", "&#233;t&#233; &#128105;&#8205;&#128640;"),
        ("\u05db\u05dc\u05d1", "&#1499;&#1500;&#1489;"),
        ("a\nb\0c\x7f\x85", r"a\u000ab\u0000c\u007f\u0085"),
        ("\udcff\ud83d", r"\udcff\ud83d"),
        ("\u202egod\u202c \u2066x\u2069\u2028", r"\u202egod\u202c \u2066x\u2069\u2028"),
    ],
)
def test_text_becomes_ascii_in_which_nothing_is_markup_or_hidden(text: str, html: str) -> None:
    assert as_html(text) == html
