"""Captions to be written as rows: one that succeeded, one that failed, and paths that are hard to write."""

from __future__ import annotations

import os

from imgcap.captioning.captioner import Caption, Wording
from imgcap.captioning.rows import Origin
from imgcap.images.errors import ImageError

ORIGIN = Origin("walls", "0123", "beam_size=3")
WALL = Wording("a red wall", -1.23456, 0.71239, (("a", 0.9), ("red", 0.51239), ("wall", 0.99)))
STRIPE = Wording("a stripe", -2.0, 0.3, (("a", 0.9), ("stripe", 0.1)))
GOOD = Caption("x/wall.png", (WALL,))
BROKEN = Caption(
    "bad.jpg", error=ImageError("bad.jpg is not an image that can be read.", path="bad.jpg", kind="damaged")
)
ODD_PATHS = [
    "=cmd()",
    "+1.jpg",
    "-1.jpg",
    "@x",
    "'quoted'.jpg",
    'say "x",y.jpg',
    "two\nlines\t.jpg",
    "old\rand\r\nnew.jpg",
    "a;=1.jpg",
    os.fsdecode(b"\xff.jpg"),
    "\u2028.jpg",
    "日本.jpg",
    "<b>.jpg",
]
