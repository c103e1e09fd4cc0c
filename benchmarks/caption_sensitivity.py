"""How many captions differ if the features differ by a little.

    python benchmarks/caption_sensitivity.py PREPARED [--model default] [--split test] [--images 1000]

PREPARED is a folder written by `imgcap prepare` with the model's encoder. Normal noise is added to the features, in
parts of each image's root mean square; they are also rounded to 16 bits. Prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from imgcap.captioning.captioner import load_model
from imgcap.dataset.prepared import PreparedFolder
from imgcap.model.folder import check_encoder
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.text.tokenizer import tokenize

ERRORS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02)


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
    cider = CiderD(references)
    plain: list[str] = []
    print(f"{len(rows)} images of {args.split}, torch {torch.__version__}\n")
    print("| features | other captions | BLEU-4 | CIDEr-D |\n| --- | --- | --- | --- |")
    for name, vectors in changed.items():
        texts = [model.text(found[0]) for found in model.search(vectors, model.config.search)]
        plain = plain or texts
        tokens = [tokenize(text) for text in texts]
        differ = sum(a != b for a, b in zip(texts, plain, strict=True)) / len(texts)
        bleu = corpus_bleu(tokens, references).scores[3]
        print(f"| {name} | {differ:.1%} | {bleu:.4f} | {cider.score(tokens).mean():.4f} |", flush=True)


if __name__ == "__main__":
    main()
