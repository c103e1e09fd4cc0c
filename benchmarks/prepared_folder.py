"""Time and memory to open a prepared folder of many rows, to read some of them, and to train on it.

    python benchmarks/prepared_folder.py [--rows 10000 1000000 10000000] [--read 10000] [--steps 200]

The folder is synthetic: one caption an image, all different, from the same 3,300 words. Features are sparse files that
take no disk space; the records of 10 million rows take 1.5 GB. For each number of rows, one process opens and reads the
folder, and another trains on it, on the CPU: the set-up before the first step of an epoch, some steps, and the index of
the training images at the end. Memory is resident memory without mapped files, which the system can take back, minus
what the process had after its imports. Needs Linux. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Thread

import numpy as np
import torch

from imgcap.captioning.explain import TrainingIndex
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    INDEX_DTYPE,
    RECORDS_FILE,
    RECORDS_INDEX_FILE,
    ROWS_PER_FILE,
    SPLIT_CODES,
    PreparedFolder,
)
from imgcap.distributed import World
from imgcap.model.inception import FEATURE_SIZE
from imgcap.training.options import SCRATCH, TrainingOptions
from imgcap.training.progress import SilentListener
from imgcap.training.trainer import Trainer
from scaling import write_metadata

VAL_ROWS = 1000
NOUNS = 3300
WATCH_SECONDS = 0.05


def make(root: Path, rows: int) -> None:
    """Write a prepared folder of `rows` images, the last ones in the val split."""
    (root / FEATURES_FOLDER).mkdir(parents=True)
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        shape = (min(ROWS_PER_FILE, rows - first), FEATURE_SIZE)
        np.lib.format.open_memmap(root / FEATURES_FOLDER / f"{number:05}.npy", "w+", np.float32, shape)
    index = np.empty(rows, INDEX_DTYPE)
    with (root / RECORDS_FILE).open("wb") as file:
        for i in range(rows):
            split = "train" if i < rows - VAL_ROWS else "val"
            index[i] = file.tell(), SPLIT_CODES.index(split)
            caption = f"A n{i % NOUNS} runs to the n{i // NOUNS} ."
            record = {"image_id": f"{i:08}", "path": f"{i:08}.jpg", "captions": [caption], "split": split}
            file.write(json.dumps(record).encode() + b"\n")
    np.save(root / RECORDS_INDEX_FILE, index)
    write_metadata(root, rows, rows)


def memory() -> int:
    """Resident memory in MiB, without mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) // 1024


class Watch(Thread):
    """Records the peak memory of the process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.start()

    def run(self) -> None:
        while True:
            self.most = max(self.most, memory())
            time.sleep(WATCH_SECONDS)


def read(root: Path, count: int) -> dict[str, float]:
    before, begun = memory(), time.perf_counter()
    prepared = PreparedFolder(root)
    opened = time.perf_counter() - begun
    rows = prepared.rows("train")
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False))
    begun = time.perf_counter()
    captions = sum(len(prepared.records[row].captions) for row in chosen.tolist())
    features = prepared.features[chosen]
    assert captions == len(features) == len(chosen)
    return {
        "rows": len(prepared.records),
        "seconds_to_open": round(opened, 2),
        "seconds_to_read": round(time.perf_counter() - begun, 1),
        "mib_opened": memory() - before - features.nbytes // 2**20,
    }


def train(root: Path, steps: int) -> dict[str, float]:
    before, begun, watch = memory(), time.perf_counter(), Watch()
    prepared = PreparedFolder(root)
    trainer = Trainer(
        prepared, TrainingOptions(start_from=SCRATCH), World(device=torch.device("cpu")), SilentListener()
    )
    set_up, seconds = memory() - before, []
    batches = trainer.batches.with_parts(trainer.batches.of_epoch(1))
    for _, parts in islice(batches, steps):
        trainer.step(parts)
        seconds.append(time.perf_counter() - begun)
    stepped, most_to_steps = memory() - before, watch.most - before
    begun = time.perf_counter()
    TrainingIndex.build(prepared, trainer.networks.decoder)
    return {
        "seconds_to_first_step": round(seconds[0], 1),
        "seconds_a_step": round((seconds[-1] - seconds[0]) / max(1, len(seconds) - 1), 3),
        "seconds_of_index": round(time.perf_counter() - begun, 1),
        "mib_set_up": set_up,
        "mib_after_steps": stepped,
        "mib_at_most": most_to_steps,
        "mib_at_most_with_index": watch.most - before,
    }


CHILDREN: dict[str, Callable[[Path, int], dict[str, float]]] = {"read": read, "train": train}


def run(name: str, root: str, count: int) -> dict[str, float]:
    child = [sys.executable, __file__, "--child", json.dumps([name, root, count])]
    found: dict[str, float] = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
    return found


def print_table(points: list[dict[str, float]]) -> None:
    print("| " + " | ".join(name.replace("_", " ") for name in points[0]) + " |")
    print("| --- " * len(points[0]) + "|")
    for point in points:
        print("| " + " | ".join(f"{value:,}" for value in point.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--read", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, root, count = args.child
        print(json.dumps(CHILDREN[name](Path(root), count)))
        return
    points = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as work:
            make(Path(work), rows)
            points.append({**run("read", work, args.read), **run("train", work, args.steps)})
    print_table(points)
    print(json.dumps({"points": points}))


if __name__ == "__main__":
    main()
