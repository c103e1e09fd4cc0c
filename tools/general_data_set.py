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
import json
import os
from pathlib import Path

from concept_words import captions_without_images, flickr8k_captions
from imgcap.files import write_json_lines

SPLITS = {"train": "train", "dev": "val", "test": "test"}


def records(flickr8k: Path, general: Path, root: Path) -> list[dict[str, object]]:
    """All images with captions and split; paths are relative to `root`."""

    def record(file: Path, captions: list[str], split: str) -> dict[str, object]:
        return {"image": file.relative_to(root).as_posix(), "captions": captions, "split": split}

    captions = flickr8k_captions(flickr8k)
    rows = []
    for official, split in SPLITS.items():
        names = (flickr8k / f"Flickr_8k.{official}Images.txt").read_text().split()
        files = [flickr8k / "images" / name for name in names]
        rows += [record(file, captions[file.name], split) for file in files if file.exists()]
    without = [caption for _, caption in captions_without_images(general)]
    names = [json.loads(line)["image"] for line in (general / "images.jsonl").read_text().splitlines()]
    rows += [record(general / "images" / n, without[i :: len(names)] or without, "train") for i, n in enumerate(names)]
    for line in (general / "dev" / "coco.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.append(record(general / "dev" / "coco" / row["image"], row["captions"], "val"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--general", type=Path, required=True)
    args = parser.parse_args()
    flickr8k, general = args.flickr8k.resolve(), args.general.resolve()
    root = Path(os.path.commonpath([flickr8k, general]))
    write_json_lines(args.out, records(flickr8k, general, root))
    print(root)


if __name__ == "__main__":
    main()
