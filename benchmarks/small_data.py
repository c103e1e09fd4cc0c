"""Captions after training on few images: from scratch, from a model with its words alone, and as `imgcap train` does.

    python benchmarks/small_data.py STATE --flickr8k PREPARED --coco PREPARED [--sets topics same] [--sizes 50 100]
        [--ways start train]

Both are folders that `imgcap prepare` wrote with the default encoder. Each set of images has a model to start from:

topics  Training images of Flickr8k at odd places train a start model, but only those without a caption that has one of
        `TOPIC_WORDS`: it has never read of dogs, snow, water and bicycles. Small training sets are drawn from the
        images at even places, and the test split is captioned.
same    The default model, which learnt from Flickr8k. Training sets are drawn from the test split; the rest of it is
        captioned. The model has little left to learn here.
coco    The default model. 50 or 80 COCO images are drawn, and the others captioned.

The ways: `start` is the start model as it is. `scratch` has random weights. `own words` starts from the model and keeps
its vocabulary, with the settings of a training from scratch. `train` is what `imgcap train` does, `keep words` what it
does with `--keep-words`. All caption the same images with the same search, and are scored against the same references.
From 200 training images on, a tenth of them is the val split.

STATE keeps the start model and a line for each training; run the command again to go on. Prints a table for each set:
mean CIDEr-D over the draws with the 95 % interval over images (the mean of the draws' intervals), how many of the words
that stand in the captions of at least 10 training images, but not in the start model's vocabulary, are said, and the
minutes of a training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np
import torch

from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.dataset.splits import FEW_IMAGES, TEST, TRAIN
from imgcap.distributed import World
from imgcap.files import read_json_lines
from imgcap.images.decoding import batched
from imgcap.model.decoder import LSTMDecoder
from imgcap.model.folder import load_model_folder
from imgcap.model.search import Hypothesis, search
from imgcap.model.search_options import SearchOptions
from imgcap.model.store import MANIFEST_FILE, locate
from imgcap.scoring.resampling import intervals
from imgcap.scoring.scores import score_images
from imgcap.text.tokenizer import tokenize, words
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.checkpoint import CHECKPOINT_FILE
from imgcap.training.networks import under
from imgcap.training.options import SCRATCH, TrainingOptions
from imgcap.training.progress import SilentListener
from imgcap.training.settings import FROM_SCRATCH
from imgcap.training.trainer import Trainer, train

TOPIC_WORDS = frozenset(
    word
    for line in (
        "dog dogs puppy puppies snow snowy ski skis skier skiing snowboard snowboarder",
        "water pool ocean sea lake river beach wave waves surfer surfing surfboard swimming",
        "bike bikes bicycle bicycles biker bikers cyclist",
    )
    for word in line.split()
)
SEARCH = SearchOptions(beam_size=3, length_penalty=0.8)
NEW_WORD_IMAGES = 10
CPU = torch.device("cpu")
WAYS = ("start", "scratch", "own words", "train", "keep words")
SIZES = {"topics": (50, 100, 300, 1000, 2998), "same": (50, 100, 300), "coco": (50, 80)}


@dataclass(frozen=True)
class Task:
    """A small training set, what is captioned afterwards, and the model to start from."""

    set: str
    draw: int
    prepared: PreparedFolder
    train: Rows
    test: Rows
    start: str


@dataclass(frozen=True)
class Result:
    """One line of the state, and one of the captions behind a cell of the table."""

    set: str
    size: int
    draw: int
    way: str
    cider_d: float
    low: float
    high: float
    new_words: int
    said: int
    minutes: float


def rows_without(prepared: PreparedFolder, rows: Rows, unwanted: frozenset[str]) -> Rows:
    """The rows whose captions have none of the `unwanted` words."""
    return np.array([row for row in rows if not unwanted & words_of(prepared, row)], dtype=np.int64)


def words_of(prepared: PreparedFolder, row: int) -> set[str]:
    return {word for caption in prepared.records[row].captions for word in words(caption)}


def start_model(prepared: PreparedFolder, out: Path) -> str:
    """The model that has never read of `TOPIC_WORDS`, trained in `out` if it is not there."""
    rows = rows_without(prepared, prepared.rows(TRAIN)[1::2], TOPIC_WORDS)
    options = TrainingOptions(start_from=SCRATCH, epochs=10, patience=0, dropout=0.3, average=0.99, length_penalty=0.8)
    if not (out / MANIFEST_FILE).exists():
        train(prepared.with_splits({TRAIN: rows}), options, out, resume=(out / CHECKPOINT_FILE).exists())
    return str(out)


def tasks(args: argparse.Namespace, name: str) -> Iterator[Task]:
    """The training sets of a set, the small ones first."""
    prepared = PreparedFolder(args.coco if name == "coco" else args.flickr8k)
    test, pool, start = prepared.rows(TEST), prepared.rows(TRAIN)[::2], "default"
    if name == "topics":
        start = start_model(prepared, args.state / "start")
    elif name == "coco":
        pool = np.arange(len(prepared.records))
    else:
        pool = test
    for size in SIZES[name]:
        for draw in range(args.draws):
            chosen = np.random.default_rng([size, draw]).choice(pool, size, replace=False)
            others = test if name == "topics" else np.setdiff1d(pool, chosen)
            yield Task(name, draw, prepared, np.sort(chosen), others, start)


def run(task: Task, way: str, threads: int) -> Result:
    """Train in one way, caption and score."""
    torch.set_num_threads(threads)
    start = load_model_folder(locate(task.start), CPU)
    begun = time.process_time()
    decoder, vocabulary = (start.decoder, start.vocabulary) if way == "start" else trained(task, way, start.vocabulary)
    seconds = time.process_time() - begun
    said = [vocabulary.decode(found.ids) for found in captions(task, decoder)]
    references = [[tokenize(text) for text in task.prepared.records[row].captions] for row in task.test]
    scores = score_images(said, references)
    low, high = intervals(scores)["cider_d"]
    counts = Counter(word for row in task.train for word in words_of(task.prepared, row))
    new = {word for word, count in counts.items() if count >= NEW_WORD_IMAGES and word not in start.vocabulary}
    found = len(new.intersection(word for caption in said for word in caption))
    cider_d = float(scores.cider_d.mean())
    return Result(task.set, len(task.train), task.draw, way, cider_d, low, high, len(new), found, seconds / 60)


def trained(task: Task, way: str, own_words: Vocabulary) -> tuple[LSTMDecoder, Vocabulary]:
    """The decoder and the vocabulary after a training of `task` in this way."""
    share = 0.1 if len(task.train) >= FEW_IMAGES else 0.0
    options = TrainingOptions(
        start_from=task.start,
        val_share=share,
        seed=task.draw,
        beam_size=SEARCH.beam_size,
        length_penalty=SEARCH.length_penalty,
    )
    unchanged: AbstractContextManager[object] = nullcontext()
    if way == "scratch":
        options = replace(options, start_from=SCRATCH)
    elif way == "keep words":
        options = replace(options, keep_words=True)
    elif way == "own words":
        settings = asdict(FROM_SCRATCH[None])
        options = replace(options, **settings, val_share=0.1)
        unchanged = patch.object(Trainer, "_choose_vocabulary", lambda _trainer, _start, _options: own_words)
    with unchanged:
        trainer = Trainer(task.prepared.with_splits({TRAIN: task.train}), options, World(), SilentListener())
    while not trainer.is_done:
        trainer.run_epoch()
    decoder = trainer.networks.decoder
    decoder.load_state_dict(under("decoder.", trainer.best_weights))
    return decoder, trainer.vocabulary


def captions(task: Task, decoder: LSTMDecoder) -> Iterator[Hypothesis]:
    """The best caption of each test image."""
    for rows in batched(task.test, 128):
        for found in search(decoder, torch.from_numpy(task.prepared.features[rows]), SEARCH):
            yield found[0]


def table(results: Sequence[Result]) -> str:
    """The results of one set as a Markdown table, means over the draws."""
    lines = ["| images | way | draws | CIDEr-D | 95 % interval | new words said | CPU minutes |", "| --- " * 7 + "|"]
    for size, way in sorted({(r.size, r.way) for r in results}, key=lambda key: (key[0], WAYS.index(key[1]))):
        own = [r for r in results if (r.size, r.way) == (size, way)]
        cider_d, low, high, minutes = (
            fmean(getattr(r, name) for r in own) for name in ("cider_d", "low", "high", "minutes")
        )
        new = f"{sum(r.said for r in own)} of {sum(r.new_words for r in own)}"
        lines.append(
            f"| {size:,} | {way} | {len(own)} | {cider_d:.3f} | {low:.3f} to {high:.3f} | {new} | {minutes:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sizes", nargs="*", type=int, help="only training sets of these sizes")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    file = args.state / "results.jsonl"
    done = [Result(**row) for _, row in read_json_lines(file)] if file.exists() else []
    for name in args.sets:
        for task in tasks(args, name):
            if args.sizes and len(task.train) not in args.sizes:
                continue
            for way in args.ways:
                key = (name, len(task.train), task.draw, way)
                if key not in {(r.set, r.size, r.draw, r.way) for r in done}:
                    done.append(run(task, way, args.threads))
                    with file.open("a") as lines:
                        lines.write(json.dumps(asdict(done[-1])) + "\n")
    for name in args.sets:
        print(f"\n{name}\n\n{table([r for r in done if r.set == name])}")


if __name__ == "__main__":
    main()
