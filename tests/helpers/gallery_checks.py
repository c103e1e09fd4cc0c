"""Captions to be checked on a gallery page, and what the page shows of it."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.browser import Browser

COLOURS = ("red", "green", "blue", "white")
WALLS: list[dict[str, object]] = [
    {
        "path": f"walls/{colour}.png",
        "caption": f"a {colour} wall",
        "confidence": 0.5,
        "alternatives": [{"caption": f"the {colour} wall", "confidence": 0.4}, {"caption": "a wall"}],
    }
    for colour in COLOURS
]


def badges(browser: Browser) -> list[str]:
    return [str(text) for text in browser.run("return [...document.querySelectorAll('.badge')].map(e => e.innerText)")]


def captions(browser: Browser) -> list[str]:
    return browser.texts(".card .caption")


def place(browser: Browser) -> str:
    return str(browser.find("#detail-place").text)


def progress(browser: Browser) -> str:
    return str(browser.find("#progress").get_property("textContent"))


def saved(browser: Browser, folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in browser.download("#write", folder).read_text("utf-8").splitlines()]
