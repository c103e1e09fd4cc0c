"""Captions in scripts that put no spaces between words, which the tokeniser cannot cut into words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_SCRIPTS = {
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Japanese": "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Burmese": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17ff",
}
_ANY = "".join(_SCRIPTS.values())
_RUN = re.compile(f"[{_ANY}]+")
_LONGEST_WORD = {"Chinese": 3, "Japanese": 3}
_LONGEST_OTHER_WORD = 8
"""Mean characters of a word: longer runs are several words."""
_LEAST_SHARE = 0.01


def unspaced_note(captions: Iterable[str]) -> str:
    """One sentence if 1 % of `captions` or more have no spaces between their words; else ""."""
    total, found = 0, Counter[str]()
    for caption in captions:
        total += 1
        if not caption.isascii() and (script := _unspaced_script(caption)):
            found[script] += 1
    count = found.total()
    if not count or count < _LEAST_SHARE * total:
        return ""
    return (
        f"{count:,} of {total:,} captions have no spaces between words ({', '.join(sorted(found))}): the tokeniser "
        "takes each run of letters as one word. Put spaces between the words, or between the characters, first."
    )


def _unspaced_script(caption: str) -> str | None:
    """The script of most of `caption` if its words are not apart."""
    runs = _RUN.findall(caption)
    characters = sum(map(len, runs))
    if 2 * characters <= sum(map(str.isalnum, caption)):
        return None
    script = next(name for name, letters in _SCRIPTS.items() if re.search(f"[{letters}]", "".join(runs)))
    if script == "Chinese" and re.search(f"[{_SCRIPTS['Japanese']}]", caption):
        script = "Japanese"
    longest = _LONGEST_WORD.get(script, _LONGEST_OTHER_WORD)
    return script if characters > longest * len(runs) else None
