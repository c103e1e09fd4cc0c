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
from collections.abc import Container, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data_sets import CAPTIONS_FILE, flickr8k_captions, flickr8k_names
from imgcap.model.decoder import standardize

STOP_WORDS = frozenset(
    "a an the in on of and is are with to at by his her their it its as for from up down out over through while "  # noqa: SIM905
    "into he she they two one".split()
)
WORDS = 300
LIMITS = (2000, 500)
"""Training and dev images of the usual figure."""
PENALTIES = (3e2, 1e3, 3e3, 1e4, 3e4, 1e5)


def standardized(train: Tensor, *others: Tensor) -> list[Tensor]:
    """All tensors, standardised by the statistics of the first."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    return [standardize(x, mean, std) for x in (train, *others)]


def ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """Slopes (D, K) of a ridge regression from standardised `x` (N, D) to `y` (N, K), for each penalty."""
    gram, cross = (x.T @ x).double(), (x.T @ (y - y.mean(0))).double()
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return [torch.linalg.solve(gram + penalty * eye, cross).float() for penalty in penalties]


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Average precision of each word; `scores` and `truth` are float32 (images, words)."""
    ranked = truth.gather(0, scores.argsort(0, descending=True))
    places = torch.arange(1, len(ranked) + 1)[:, None]
    return (ranked.cumsum(0) / places * ranked).sum(0) / ranked.sum(0).clamp(min=1)


def names_to_probe(flickr8k: Path, known: Container[str], limits: Sequence[int | None] = LIMITS) -> list[list[str]]:
    """Names of the first training and of the first dev images that are in `known`."""
    splits = zip(("train", "dev"), limits, strict=True)
    return [flickr8k_names(flickr8k, split, known)[:limit] for split, limit in splits]


def probe(names: Sequence[list[str]], features: Sequence[Tensor], flickr8k: Path) -> float:
    """Mean average precision on dev, from names and features, float32 (N, D), of the training and the dev images."""
    train, dev = names
    x_train, x_dev = standardized(*features)
    captions = flickr8k_captions(flickr8k / CAPTIONS_FILE)
    words = {name: set(re.findall(r"[a-z]+", " ".join(captions[name]).lower())) for name in (*train, *dev)}
    counts = collections.Counter(w for n in train for w in sorted(words[n]) if w not in STOP_WORDS)
    vocabulary = [w for w, _ in counts.most_common(WORDS)]
    y_train, y_dev = (torch.tensor([[float(w in words[n]) for w in vocabulary] for n in part]) for part in names)
    fits = ridge(x_train, y_train, PENALTIES)
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
    names = names_to_probe(args.flickr8k, row, (None, None) if args.all else LIMITS)
    features = [torch.from_numpy(prepared.features[[row[name] for name in part]]) for part in names]
    print(f"mean average precision {probe(names, features, args.flickr8k):.4f}")


if __name__ == "__main__":
    main()
