"""Splits of a data set: their names, lists of them, and a rule for data sets without any."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from imgcap.errors import ImgcapError
from imgcap.files import read_text
from imgcap.images.finder import ImageFinder

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "restval": TRAIN,  # Karpathy's name for COCO validation images that join the training split
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
    "testing": TEST,
}

FEW_IMAGES = 200
"""Fewer training images have no val split to spare: a training runs for a fixed number of epochs instead."""

VAL_SHARE = TEST_SHARE = 0.1
"""Fraction of the images in each held-out split of a data set without splits."""


def known_split(text: str) -> str | None:
    """The split that `text` names ("dev" is "val"), or None."""
    return _NAMES.get(text.strip().lower())


def read_split_lists(files: Mapping[str, Path], finder: ImageFinder, left_out: dict[str, str]) -> dict[str, str | None]:
    """The split of each image in the lists, by path.

    `files` has a file by split, with one image name a line. Names without an image go to `left_out`, and so do images
    in the lists of two splits, whose split here is None. Raises `ImgcapError` if a file names none of the images.
    """
    splits: dict[str, str | None] = {}
    for split, file in files.items():
        names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        paths = [finder.find(name) for name in names]
        if not any(paths):
            raise ImgcapError(f"The split list {file} names none of the images.", "It needs one file name a line.")
        for name, path in zip(names, paths, strict=True):
            if path is None:
                left_out.setdefault(name, finder.why_not(name) or f"is in the {split} list, but has no image")
            elif splits.setdefault(path, split) != split:
                left_out.setdefault(path, f"is in two split lists, {splits[path]} and {split}")
                splits[path] = None
    return splits


def automatic_splits(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of path and split, by a hash of each image's name, so that added images leave the others in their split.

    `names` has the image's name by path; in an archive, that is the name of the member, so that images can move
    between archives. In a set of three images or more, no split stays empty: the images with the nearest hashes fill
    it. One or two images are in train.
    """
    hashes = ((path, hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()) for path, name in names.items())
    place = {path: int.from_bytes(digest[:8], "big") / 2**64 for path, digest in hashes}
    ordered = sorted(names, key=lambda path: (place[path], path))
    test = sum(place[path] < TEST_SHARE for path in names)
    val = sum(TEST_SHARE <= place[path] < TEST_SHARE + VAL_SHARE for path in names)
    if len(names) < len(SPLITS):
        test = val = 0
    else:
        test = min(max(test, 1), len(names) - 2)
        val = min(max(val, 1), len(names) - test - 1)
    for rank, path in enumerate(ordered):
        yield path, TEST if rank < test else VAL if rank < test + val else TRAIN


def split_note(splits: Iterable[str | None]) -> str:
    """One sentence if images in these splits cannot be trained on as they are; else ""."""
    counts = Counter(splits)
    if counts[TRAIN] and (counts[VAL] or counts[TRAIN] < FEW_IMAGES):
        return ""
    if counts[TRAIN]:
        return (
            "There are no images in the split 'val', whose score chooses the epoch to keep: give a list by --split "
            "val=FILE, or train with --val-share 0.1, which draws one from the training images, or with --patience 0, "
            "which keeps the last epoch."
        )
    return "There are no images in the split 'train': this data set can be used for scoring, but not for training."
