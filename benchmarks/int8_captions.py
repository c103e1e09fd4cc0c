"""Compare 8-bit integers with float32: features, captions, scores and speed.

    python benchmarks/int8_captions.py --set IMAGES CAPTIONS [LIST] [--set ...] [--model default] [--images 1000]

Each set has a folder of images and a file of captions that `imgcap prepare` reads; LIST names the images to take. The
precisions take turns after each batch. Only encoding is timed, after a first call for each size of batch, which packs
the weights. On a processor without fast integers they are simulated, with the same results but for the last bits and
without a speed. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from caption_sensitivity import captions, figures
from imgcap.captioning.captioner import load_model
from imgcap.dataset.loading import read_dataset
from imgcap.images.decoding import load_batches
from imgcap.images.errors import ImageError
from imgcap.model.encoder import FLOAT32, INT8, PRECISIONS
from imgcap.model.quantization import is_supported
from imgcap.scoring.metrics.cider import CiderD
from imgcap.text.tokenizer import tokenize
from simulation import integer_encoder, simulated_integers

BATCH = 32
Rows = dict[str, dict[str, float]]


def compare(files: Sequence[Path], references: list[list[list[str]]], model: str) -> Rows:
    """Figures of each precision by name; `references` are the tokens of the captions of each image."""
    captioner = load_model(model, "cpu")
    encoders = {FLOAT32: captioner.encoder, INT8: integer_encoder(model)}
    seconds = dict.fromkeys(PRECISIONS, 0.0)
    parts: dict[str, list[Tensor]] = {name: [] for name in PRECISIONS}
    kept: list[list[list[str]]] = []
    left, packed = iter(references), set[int]()
    for batch in load_batches(files, captioner.encoder.config.pixels, BATCH):
        kept += [tokens for pixels, tokens in zip(batch, left, strict=False) if not isinstance(pixels, ImageError)]
        images = [pixels for pixels in batch if not isinstance(pixels, ImageError)]
        if len(images) not in packed:
            packed.add(len(images))
            for encoder in encoders.values():
                encoder(images)
        for name, encoder in encoders.items():
            begun = time.perf_counter()
            parts[name].append(encoder(images))
            seconds[name] += time.perf_counter() - begun
    features = {name: torch.cat(each) for name, each in parts.items()}
    texts = {name: captions(captioner.model, each) for name, each in features.items()}
    errors = (features[INT8] - features[FLOAT32]).norm(dim=1) / features[FLOAT32].norm(dim=1)
    cider = CiderD(kept)
    rows: Rows = {}
    for name in PRECISIONS:
        rows[name] = {
            "images/s": len(kept) / seconds[name],
            "median error of the features": errors.median().item() if name == INT8 else 0.0,
            **figures(texts[name], texts[FLOAT32], kept, cider),
        }
        if not is_supported():
            del rows[name]["images/s"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="sets", type=Path, nargs="+", action="append", required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", type=int, default=1000, help="at most this many of each set")
    args = parser.parse_args()
    machine = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(machine if is_supported() else f"{machine}; this processor has no VNNI, so integers are simulated")
    found: dict[str, Rows] = {}
    for images, caption_file, *lists in args.sets:
        dataset = read_dataset(images, caption_file, split_files={"test": lists[0]} if lists else None)
        records = [record for record in dataset.records if not lists or record.split == "test"][: args.images]
        references = [[tokenize(caption) for caption in record.captions] for record in records]
        with nullcontext() if is_supported() else simulated_integers():
            rows = compare([Path(dataset.root) / record.path for record in records], references, args.model)
        found[str(caption_file)] = rows
        print(f"\n{len(records)} images of {caption_file}\n")
        print("| | " + " | ".join(rows[INT8]) + " |\n| --- |" + " --- |" * len(rows[INT8]))
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in row.values()) + " |", flush=True)
    print("\n" + json.dumps({"machine": machine, "simulated": not is_supported(), **found}))


if __name__ == "__main__":
    main()
