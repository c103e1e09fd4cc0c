"""Write one data set of all images of a general model, for `imgcap prepare`.

    python tools/general_data_set.py all.jsonl --flickr8k FLICKR8K --general GENERAL
    imgcap prepare --images COMMON_FOLDER --captions all.jsonl -o all --encoder TRUNK.safetensors

COMMON_FOLDER is the folder above both sets; the script prints it. The train split has Flickr8k's training images, and
the general images with the captions without images spread over them, so that the index of the model knows all images
and captions that it learned from. The val split has Flickr8k's dev images and those of `dev/coco`, which calibrate the
confidence. The test split is Flickr8k's.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from data_sets import (
    CAPTIONS_FILE,
    add_folders,
    captions_without_images,
    coco_dev,
    flickr8k_captions,
    flickr8k_names,
    general_images,
)
from imgcap.files import write_json_lines

SPLITS = {"train": "train", "dev": "val", "test": "test"}


def records(flickr8k: Path, general: Path, root: Path) -> list[dict[str, object]]:
    """All images with captions and split; paths are relative to `root`."""

    def record(file: Path, captions: list[str], split: str) -> dict[str, object]:
        return {"image": file.relative_to(root).as_posix(), "captions": captions, "split": split}

    captions = flickr8k_captions(flickr8k / CAPTIONS_FILE)
    rows = []
    for official, split in SPLITS.items():
        names = flickr8k_names(flickr8k, official)
        rows += [record(flickr8k / "images" / name, captions[name], split) for name in names]
    without = [caption for _, caption in captions_without_images(general)]
    names = [row["image"] for row in general_images(general)]
    rows += [record(general / "images" / n, without[i :: len(names)] or without, "train") for i, n in enumerate(names)]
    rows += [record(general / "dev" / "coco" / row["image"], row["captions"], "val") for row in coco_dev(general)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    add_folders(parser)
    args = parser.parse_args()
    flickr8k, general = args.flickr8k.resolve(), args.general.resolve()
    root = Path(os.path.commonpath([flickr8k, general]))
    write_json_lines(args.out, records(flickr8k, general, root))
    print(root)


if __name__ == "__main__":
    main()
