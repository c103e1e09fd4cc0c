"""Rows for the gallery, hostile ones among them, and what a written page holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from imgcap.pages.gallery import GalleryWriter

HOSTILE = "</script><img src=x onerror=window.broken=1>\u2028\n'\"&amp;\udcff\ud83d\u202e{{rows}}"
ROWS: list[dict[str, object]] = [
    {
        "path": "walls/red.png",
        "caption": "a red wall",
        "confidence": 0.91,
        "log_probability": -1.234,
        "alternatives": [{"caption": "a blue wall", "confidence": 0.05}],
        "words": [["a", 0.99], ["red", 0.5], ["wall", 0.001]],
        "nearest": [["train/7.jpg", 0.83]],
        "verbatim": True,
        "model": "walls",
    },
    {"path": "walls/2.png", "caption": "zebras on grass", "confidence": 0.4, "warning": "It is unlike the others."},
    {"path": "walls/10.png", "withheld": True, "confidence": 0.1},
    {"path": "broken.jpg", "error": "broken.jpg cannot be decoded: it is damaged."},
    {"path": HOSTILE, "caption": HOSTILE, "confidence": 0.6, "words": [[HOSTILE, 0.5]], "warning": HOSTILE},
    {"path": "walls/blue.png", "caption": "a blue wall", "confidence": None, "log_probability": float("-inf")},
]


def write(file: Path, rows: Sequence[Mapping[str, object]], image: Path | Image.Image | None = None) -> Path:
    with GalleryWriter(file, f"Walls {HOSTILE}") as gallery:
        for row in rows:
            gallery.add(row, image)
    return file


def read(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a page, and the thumbnails as they stand there."""
    page = file.read_text(encoding="utf-8")
    blocks = re.findall('<script type="application/json" class="rows">(.*?)</script>', page, re.DOTALL)
    thumbnails = re.findall('<script type="text/plain" class="thumbnails">(.*?)</script>', page, re.DOTALL)
    rows = [row for block in blocks for row in json.loads(block)]
    lines = [line for block in thumbnails for line in block.split("\n")]
    return rows, lines[: len(rows)]
