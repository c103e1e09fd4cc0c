"""Measure a trunk in three ways: Flickr8k's words, the subjects of unfamiliar images, Caltech-101's classes.

    python tools/probe_general.py FEATURES TEACHERS --flickr8k FLICKR8K --general GENERAL [--rows FEATURES]

FEATURES and TEACHERS are folders of `encode_sets.py`. The three figures:

- the probe of `probe.py`
- the share of `dev/naming` whose subject is among the one or three most probable basic words, by a ridge regression
  from the features to the teachers' classes, fitted on the general images
- the accuracy on Caltech-101 of a ridge classifier, fitted on 15 images per class

Each is at the best of five penalties, chosen on the images that it is measured on. Compare only figures of the same
images.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path

import torch
from torch import Tensor

from concept_words import basic_words
from concepts import read_set
from data_sets import add_folders, done_rows, general_images, image_names, read_rows
from naming import DICTIONARY, Naming
from probe import LIMITS, probe, ridge, standardized

PENALTIES = (1e3, 3e3, 1e4, 3e4, 1e5)
TRAINED_PER_CLASS = 15


def naming_figures(
    features: Tensor, classes: Tensor, dev: Tensor, names: list[str], basic: list[str], naming: Naming
) -> tuple[float, float]:
    """Shares of images named with one word and with three, at the best penalty."""
    listed = sorted(set(basic))
    place = {word: i for i, word in enumerate(listed)}
    matrix = torch.zeros(1000, len(listed))
    matrix[torch.arange(1000), [place[word] for word in basic]] = 1
    x, x_dev = standardized(features, dev)
    right = torch.tensor([[naming.names_subject(name, word) for word in listed] for name in names])
    best = (0.0, 0.0)
    for fit in ridge(x, classes @ matrix, PENALTIES):
        top = (x_dev @ fit).topk(3).indices
        hits = right.gather(1, top)
        best = max(best, (hits[:, 0].float().mean().item(), hits.any(1).float().mean().item()))
    return best


def caltech_figure(features: Tensor, labels: list[str]) -> tuple[float, int]:
    """Accuracy at the best penalty, and the number of test images."""
    rows: dict[str, list[int]] = collections.defaultdict(list)
    for row, label in enumerate(labels):
        rows[label].append(row)
    kept = {label: own for label, own in sorted(rows.items()) if len(own) > TRAINED_PER_CLASS}
    if len(kept) < 2:
        return 0.0, 0
    train = [row for own in kept.values() for row in own[:TRAINED_PER_CLASS]]
    test = [row for own in kept.values() for row in own[TRAINED_PER_CLASS:]]
    number = {label: i for i, label in enumerate(kept)}
    x, x_test = standardized(features[train], features[test])
    y = torch.zeros(len(train), len(kept))
    y[torch.arange(len(train)), [number[labels[row]] for row in train]] = 1
    truth = torch.tensor([number[labels[row]] for row in test])
    return max(((x_test @ f).argmax(1) == truth).float().mean().item() for f in ridge(x, y, PENALTIES)), len(test)


def flickr8k_figure(features: Path, rows: Path, flickr8k: Path) -> float:
    """The figure of `probe.py`, on the images whose features are complete."""
    names, values = [], []
    for name, limit in zip(("flickr8k-train", "flickr8k-dev"), LIMITS, strict=True):
        done = done_rows(rows / name)[:limit]
        listed = image_names(features / name)
        names.append([listed[row] for row in done])
        values.append(read_rows(features / name, "features", done))
    return probe(names, values, flickr8k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("teachers", type=Path)
    add_folders(parser)
    parser.add_argument("--rows", type=Path, help="use the rows that are complete in this folder")
    parser.add_argument("--wordnet", type=Path, default=DICTIONARY)
    args = parser.parse_args()
    torch.set_num_threads(2)
    own = args.rows or args.features

    row: dict[str, float] = {"flickr8k": flickr8k_figure(args.features, own, args.flickr8k)}
    general = read_set(own, args.teachers, "general")
    features = read_rows(args.features / "general", "features", general.rows)
    names = image_names(args.features / "dev-naming")
    dev = read_rows(args.features / "dev-naming", "features", range(len(names)))
    row["one_word"], row["three_words"] = naming_figures(
        features, general.classes, dev, names, basic_words(args.general), Naming(args.wordnet)
    )
    row["general_images"] = len(general.rows)
    images = general_images(args.general)
    caltech = [i for i in done_rows(own / "general") if images[i]["source"] == "caltech"]
    values = read_rows(args.features / "general", "features", caltech)
    row["caltech"], row["caltech_images"] = caltech_figure(values, [images[i]["label"] for i in caltech])
    print(json.dumps(row))


if __name__ == "__main__":
    main()
