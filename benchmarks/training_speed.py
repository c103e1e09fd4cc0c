"""Tokens per second of `imgcap train` and of a plain training loop, on the same model.

    python benchmarks/training_speed.py PREPARED [--steps 40] [--repeats 3] [--threads N]

PREPARED is a folder written by `imgcap prepare`. The plain loop pads every batch to the longest caption of the data set
and computes the padding too; imgcap sorts captions by length in pools and packs them. Both train the same decoder on
the same features with AdamW; tokens are words and `<end>`, without padding. Prints a table, the estimated time of an
epoch with its validation, and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from imgcap.dataset.prepared import PreparedFolder
from imgcap.distributed import World
from imgcap.model.decoder import LSTMDecoder
from imgcap.text.vocabulary import END, PAD, START
from imgcap.training.options import SCRATCH, TrainingOptions
from imgcap.training.progress import SilentListener
from imgcap.training.trainer import Trainer


class PlainLoop:
    """Optimiser steps on random captions, padded to the longest of all."""

    def __init__(self, trainer: Trainer) -> None:
        self.features = trainer.prepared.features
        self.decoder = LSTMDecoder(trainer.networks.decoder.config)
        self.decoder.load_state_dict(trainer.networks.decoder.state_dict())
        self.optimizer = torch.optim.AdamW(self.decoder.parameters(), trainer.settings.learning_rate)
        captions = [trainer.captions[number] for number in range(len(trainer.captions))]
        longest = max(map(len, captions))
        self.examples = [
            (
                row,
                torch.tensor([START, *ids] + [PAD] * (longest - len(ids))),
                torch.tensor([*ids, END] + [PAD] * (longest - len(ids))),
            )
            for row, ids in zip(trainer.captions.rows.tolist(), captions, strict=True)
        ]
        self.batch_size = trainer.settings.batch_size
        random.Random(0).shuffle(self.examples)

    def tokens_a_second(self, steps: int, first: int) -> float:
        begun, tokens = time.perf_counter(), 0
        for step in range(first, first + steps):
            start = step * self.batch_size % (len(self.examples) - self.batch_size)
            rows, ids, targets = zip(*self.examples[start : start + self.batch_size], strict=True)
            read, wanted = torch.stack(ids), torch.stack(targets)
            image = self.decoder.embed_images(torch.from_numpy(self.features[list(rows)]))[:, None]
            inputs = torch.cat([image, self.decoder._drop(self.decoder.embedding(read))], 1)
            hidden, _ = self.decoder.lstm(inputs)
            logits = self.decoder.output(self.decoder._drop(hidden[:, 1:]))
            loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 5.0)
            self.optimizer.step()
            tokens += int((wanted != PAD).sum())
        return tokens / (time.perf_counter() - begun)


def imgcap_tokens_a_second(trainer: Trainer, steps: int, epoch: int) -> float:
    batches = trainer.batches.with_parts(trainer.batches.of_epoch(epoch))
    begun, words = time.perf_counter(), 0
    for batch, parts in islice(batches, steps):
        trainer.step(parts)
        words += batch.words
    return words / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = TrainingOptions(start_from=SCRATCH)
    trainer = Trainer(PreparedFolder(args.prepared), options, World(device=torch.device("cpu")), SilentListener())
    trainer.set_learning_rates(1, 100)
    plain = PlainLoop(trainer)
    ours, theirs = [], []
    for repeat in range(args.repeats):
        theirs.append(plain.tokens_a_second(args.steps, repeat * args.steps))
        ours.append(imgcap_tokens_a_second(trainer, args.steps, repeat + 1))
    begun = time.perf_counter()
    assert trainer.validation
    trainer.validation.score(trainer.networks)
    validation = time.perf_counter() - begun

    lengths = trainer.captions.lengths(np.arange(len(trainer.captions)))
    tokens = int(lengths.sum()) + len(lengths)
    best, plain_best = max(ours), max(theirs)
    epoch = tokens / best + validation
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, batches of {trainer.settings.batch_size}, "
        f"{len(trainer.captions):,} captions of at most {lengths.max()} words"
    )
    print("| loop | tokens/s | ratio |\n| --- | --- | --- |")
    print(f"| padded, unsorted | {plain_best:,.0f} | 1.0 |")
    print(f"| imgcap | {best:,.0f} | {best / plain_best:.1f} |")
    print(
        f"\none epoch: {tokens:,} tokens in {tokens / best:.0f} s, and {validation:.0f} s to caption and score the "
        f"{len(trainer.val_rows):,} val images: {epoch:.0f} s"
    )
    print(
        json.dumps(
            {
                "plain_tokens_a_second": round(plain_best),
                "imgcap_tokens_a_second": round(best),
                "ratio": round(best / plain_best, 2),
                "epoch_seconds": round(epoch, 1),
                "validation_seconds": round(validation, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
