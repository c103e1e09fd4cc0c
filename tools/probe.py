"""Measure how well features predict captions: mean average precision of 300 caption words on dev, by ridge regression.

The probe standardises the features on the training images, predicts which of the 300 most frequent content words occur
in the five captions of an image, and uses the best of six ridge penalties. By default it uses the first 2,000 training
and 500 dev images; compare only figures for the same images.

    python tools/probe.py PREPARED FLICKR8K_DIR [--all]
"""

from __future__ import annotations

import argparse
import collections
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

STOP_WORDS = frozenset(
    "a an the in on of and is are with to at by his her their it its as for from up down out over through while "  # noqa: SIM905
    "into he she they two one".split()
)
WORDS = 300
PENALTIES = (3e2, 1e3, 3e3, 1e4, 3e4, 1e5)


def average_precision(scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Average precision of each word; `scores` and `truth` are float32 (images, words)."""
    ranked = truth.gather(0, scores.argsort(0, descending=True))
    places = torch.arange(1, len(ranked) + 1)[:, None]
    return (ranked.cumsum(0) / places * ranked).sum(0) / ranked.sum(0).clamp(min=1)


def probe(
    features: Callable[[list[Path]], np.ndarray],
    images: Path,
    flickr8k: Path,
    train_limit: int | None = 2000,
    dev_limit: int | None = 500,
) -> float:
    """Mean average precision on dev of `features`, a function from N paths to float32 (N, D)."""
    words: dict[str, set[str]] = collections.defaultdict(set)
    for line in (flickr8k / "Flickr8k.token.txt").read_text().splitlines():
        key, caption = line.split("\t")
        words[key.rsplit("#", 1)[0]] |= set(re.findall(r"[a-z]+", caption.lower()))
    names = []
    for split, limit in (("train", train_limit), ("dev", dev_limit)):
        listed = (flickr8k / f"Flickr_8k.{split}Images.txt").read_text().split()
        names.append([n for n in listed if (images / n).exists()][:limit])
    x_train, x_dev = (torch.from_numpy(features([images / n for n in part])) for part in names)
    counts = collections.Counter(w for n in names[0] for w in words[n] if w not in STOP_WORDS)
    vocabulary = [w for w, _ in counts.most_common(WORDS)]
    y_train, y_dev = (torch.tensor([[float(w in words[n]) for w in vocabulary] for n in part]) for part in names)
    mean, std = x_train.mean(0), x_train.std(0) + 1e-6
    x_train, x_dev = ((x - mean).div(std).clamp(-5, 5) for x in (x_train, x_dev))
    gram, cross = (x_train.T @ x_train).double(), (x_train.T @ (y_train - y_train.mean(0))).double()
    ridge = torch.eye(len(gram), dtype=torch.float64)
    fits = (torch.linalg.solve(gram + penalty * ridge, cross).float() for penalty in PENALTIES)
    return max(average_precision(x_dev @ fit, y_dev).mean().item() for fit in fits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder written by `imgcap prepare`")
    parser.add_argument("flickr8k", type=Path, help="Flickr8k folder: token file and split lists")
    parser.add_argument("--all", action="store_true", help="use all training and dev images")
    args = parser.parse_args()

    from imgcap.dataset.prepared import PreparedFolder

    prepared = PreparedFolder(args.prepared)
    row = {Path(record.path).name: i for i, record in enumerate(prepared.records)}
    limits = (None, None) if args.all else (2000, 500)
    figure = probe(
        lambda paths: prepared.features[[row[p.name] for p in paths]], prepared.image_root, args.flickr8k, *limits
    )
    print(f"mean average precision {figure:.4f}")


if __name__ == "__main__":
    main()
