"""The images and captions that the tools of the general model read, and the arrays that `encode_sets.py` writes.

FLICKR8K has `images`, `Flickr8k.token.txt` and a list of names for each split, such as `Flickr_8k.trainImages.txt`.
GENERAL has images without captions (`images`, `images.jsonl`), captions without images
(`captions_without_images.tsv.gz`), words for ImageNet's classes (`imagenet_words.tsv`), and images to measure on
(`dev`).
"""

from __future__ import annotations

import argparse
import collections
import gzip
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgcap.files import read_json_lines

CAPTIONS_FILE = "Flickr8k.token.txt"
TRAIN_SETS = ("flickr8k-train", "general")
"""Sets to train from. The others, `dev`, are only for measuring."""
CHUNK = 256
"""Images between two marks in `done.npy`."""


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options for the folders of both data sets."""
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--general", type=Path, required=True)


def flickr8k_names(folder: Path, split: str, known: Container[str] | None = None) -> list[str]:
    """The images of a split, in the order of its list: those in `known`, by default those that have a file."""
    listed = (folder / f"Flickr_8k.{split}Images.txt").read_text().split()
    if known is None:
        return [name for name in listed if (folder / "images" / name).exists()]
    return [name for name in listed if name in known]


def flickr8k_captions(token_file: Path) -> dict[str, list[str]]:
    """All captions of Flickr8k, by image."""
    captions: dict[str, list[str]] = collections.defaultdict(list)
    for line in token_file.read_text().splitlines():
        key, caption = line.split("\t")
        captions[key.rsplit("#", 1)[0]].append(caption)
    return captions


def general_images(general: Path) -> list[dict[str, Any]]:
    """`image`, `source` and `label` of each general image."""
    return [row for _, row in read_json_lines(general / "images.jsonl")]


def coco_dev(general: Path) -> list[dict[str, Any]]:
    """`image` and `captions` of each image of `dev/coco`."""
    return [row for _, row in read_json_lines(general / "dev" / "coco.jsonl")]


def captions_without_images(general: Path) -> list[tuple[str, str]]:
    """Source and text of each caption without an image."""
    with gzip.open(general / "captions_without_images.tsv.gz", "rt") as file:
        rows = (line.rstrip("\n").split("\t") for line in file)
        return [(source, caption) for source, caption in rows]


def image_sets(flickr8k: Path, general: Path) -> dict[str, list[Path]]:
    """Image files by set."""
    sets = {
        "dev-naming": sorted((general / "dev" / "naming").iterdir()),
        "dev-coco": [general / "dev" / "coco" / row["image"] for row in coco_dev(general)],
        "general": [general / "images" / row["image"] for row in general_images(general)],
    }
    for split in ("train", "dev"):
        sets[f"flickr8k-{split}"] = [flickr8k / "images" / name for name in flickr8k_names(flickr8k, split)]
    return sets


def image_names(encoded: Path) -> list[str]:
    """Names of the images whose arrays are in a folder of `encode_sets.py`, row by row."""
    return (encoded / "images.txt").read_text().split("\n")[:-1]


def done_rows(*encoded: Path) -> list[int]:
    """Rows that are complete in all of these folders of the same images, ascending."""
    rows = []
    for folder in encoded:
        done = np.load(folder / "done.npy")
        rows.append({row for row in range(len(image_names(folder))) if done[row // CHUNK]})
    return sorted(set.intersection(*rows))


def read_rows(encoded: Path, array: str, rows: Sequence[int]) -> Tensor:
    """Rows of an array, as float32."""
    return torch.from_numpy(np.load(encoded / f"{array}.npy", mmap_mode="r")[rows]).float()
