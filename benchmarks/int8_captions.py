"""Compare 8-bit integers with float32: captions, scores and speed.

    python benchmarks/int8_captions.py PREPARED [--model default] [--split test] [--images 1000]

PREPARED is a folder written by `imgcap prepare`; its images are encoded again. The precisions take turns after each
batch, and only encoding is timed. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from imgcap.captioning.captioner import load_model
from imgcap.dataset.prepared import PreparedFolder
from imgcap.images.decoding import load_batches
from imgcap.images.errors import ImageError
from imgcap.model.encoder import PRECISIONS
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.text.tokenizer import tokenize

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder written by `imgcap prepare`, with its images in place")
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=1000)
    args = parser.parse_args()
    prepared = PreparedFolder(args.prepared)
    records = [prepared.records[row] for row in prepared.rows(args.split)[: args.images]]
    sides = {precision: load_model(args.model, "cpu", precision) for precision in PRECISIONS}
    captions: dict[str, list[str]] = {name: [] for name in sides}
    seconds = dict.fromkeys(sides, 0.0)
    pixels = sides["float32"].encoder.config.pixels
    for batch in load_batches((prepared.image_root / record.path for record in records), pixels, BATCH):
        images = [p for p in batch if not isinstance(p, ImageError)]
        for name, captioner in sides.items():
            begun = time.perf_counter()
            features = captioner.encoder(images)
            seconds[name] += time.perf_counter() - begun
            found = captioner.model.search(features, captioner.model.config.search)
            captions[name] += [captioner.model.text(hypotheses[0]) for hypotheses in found]
    references = [[tokenize(caption) for caption in record.captions] for record in records]
    cider = CiderD(references)
    rows = {}
    for name, texts in captions.items():
        tokens = [tokenize(text) for text in texts]
        rows[name] = {
            "images/s": len(records) / seconds[name],
            "BLEU-4": corpus_bleu(tokens, references).scores[3],
            "CIDEr-D": float(cider.score(tokens).mean()),
            "equal to float32": sum(a == b for a, b in zip(texts, captions["float32"], strict=True)) / len(texts),
        }
    print(f"{len(records)} images of {args.split}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| | " + " | ".join(rows["int8"]) + " |\n| --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in row.values()) + " |")
    print("\n" + json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, **rows}))


if __name__ == "__main__":
    main()
