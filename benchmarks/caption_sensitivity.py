"""How many captions differ if the features differ by a little.

    python benchmarks/caption_sensitivity.py PREPARED [--model default] [--split test] [--images 1000]

PREPARED is a folder written by `imgcap prepare` with the model's encoder. Normal noise is added to the features, in
parts of each image's root mean square; they are also rounded to 16 bits. Prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from imgcap.captioning.captioner import load_model
from imgcap.dataset.prepared import PreparedFolder
from imgcap.model.folder import Model, check_encoder
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.text.tokenizer import tokenize

ERRORS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02)


def captions(model: Model, features: Tensor) -> list[str]:
    """The best caption of each image, with the model's own search."""
    return [model.text(found[0]) for found in model.search(features, model.config.search)]


def figures(texts: list[str], usual: list[str], references: list[list[list[str]]], cider: CiderD) -> dict[str, float]:
    """The share of captions that differ from the `usual` ones, and the scores; `cider` has the same `references`."""
    tokens = [tokenize(text) for text in texts]
    return {
        "other captions": sum(a != b for a, b in zip(texts, usual, strict=True)) / len(texts),
        "BLEU-4": corpus_bleu(tokens, references).scores[3],
        "CIDEr-D": float(cider.score(tokens).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder written by `imgcap prepare`")
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=1000)
    args = parser.parse_args()
    prepared, model = PreparedFolder(args.prepared), load_model(args.model, "cpu").model
    check_encoder(model, prepared.metadata.encoder_fingerprint, args.prepared)
    rows = prepared.rows(args.split)[: args.images]
    features = torch.from_numpy(prepared.features[rows]).float()
    size = features.square().mean(1, keepdim=True).sqrt()
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0)) * size
    changed = {"unchanged": features, "float16": features.half().float()}
    changed |= {f"noise of {error:.2%}": features + error * noise for error in ERRORS}
    references = [[tokenize(caption) for caption in prepared.records[row].captions] for row in rows]
    cider, usual = CiderD(references), captions(model, features)
    print(f"{len(rows)} images of {args.split}, torch {torch.__version__}\n")
    print("| features | other captions | BLEU-4 | CIDEr-D |\n| --- | --- | --- | --- |")
    for name, vectors in changed.items():
        differ, bleu, cider_d = figures(captions(model, vectors), usual, references, cider).values()
        print(f"| {name} | {differ:.1%} | {bleu:.4f} | {cider_d:.4f} |", flush=True)


if __name__ == "__main__":
    main()
