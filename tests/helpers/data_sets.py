"""Small data sets on disk, and what is read of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from imgcap.dataset.records import Dataset

Files = Mapping[str, object]


Captions = dict[str, tuple[list[str], str | None]]
"""The captions and the split of each image, by its path."""


def write(folder: Path, files: Files) -> None:
    """Files below `folder`: bytes and text as they are, all else as JSON (in .jsonl, one item a line)."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
            continue
        if not isinstance(content, str):
            rows = content if isinstance(content, list) and name.endswith("jsonl") else [content]
            content = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text(content, encoding="utf-8", newline="")


def write_images(folder: Path, *names: str) -> Path:
    """Empty files named like images: reading a data set does not decode them."""
    folder.mkdir(exist_ok=True)
    write(folder, dict.fromkeys(names, b""))
    return folder


def contents(dataset: Dataset) -> Captions:
    return {record.path: (list(record.captions), record.split) for record in dataset.records}


def left_out(dataset: Dataset) -> dict[str, str]:
    return {item.name: item.reason for item in dataset.left_out}


def csv_text(*rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


FLICKR8K = (
    "1000_a.jpg#0\tA child in a pink dress .\n"
    "1000_a.jpg#1\tA girl going into a wooden building .\n"
    "2258277193_586949ec62.jpg.1#0\tPeople wait for a train .\n"
    "1001_b.jpg#0\tA black dog and a tri-colored dog\n"
    "1002_c.jpg#0\tA image that is missing .\n"
    "1003_d.jpg#0\tTwo men .\n"
    "1004_e.jpg#0\tIn no split .\n"
)


COCO: dict[str, object] = {
    "info": {"description": "COCO 2014 Dataset"},
    "images": [
        {"license": 5, "file_name": "COCO_val2014_000000057870.jpg", "height": 480, "width": 640, "id": 57870},
        {"license": 5, "file_name": "COCO_val2014_000000384029.jpg", "height": 429, "width": 640, "id": 384029},
    ],
    "licenses": [{"id": 1, "name": "CC"}],
    "annotations": [
        {"image_id": 384029, "id": 37, "caption": "A bathtub."},
        {"image_id": 57870, "id": 48, "caption": "A restaurant has modern wooden tables and chairs."},
        {"image_id": 384029, "id": 38, "caption": "A white bathtub"},
    ],
}


KARPATHY: dict[str, object] = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "sentids": [0, 1],
            "filename": "COCO_val2014_000000000042.jpg",
            "imgid": 0,
            "split": "test",
            "sentences": [
                {"tokens": ["a", "shoe"], "raw": "A shoe.", "imgid": 0, "sentid": 0},
                {"tokens": ["shoes"], "raw": "Shoes", "imgid": 0, "sentid": 1},
            ],
            "cocoid": 42,
        },
        {"filepath": "val2014", "filename": "b.jpg", "split": "restval", "sentences": [{"raw": "A boat."}]},
        {"filepath": "train2014", "filename": "c.jpg", "split": "train", "sentences": [{"raw": "A cat."}]},
        {"filepath": "val2014", "filename": "d.jpg", "split": "val", "sentences": [{"raw": "A dog."}]},
    ],
}
