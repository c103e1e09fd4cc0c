"""Time and memory to open a prepared folder of many rows, and to read some of them.

    python benchmarks/prepared_folder.py [--rows 10000000] [--read 10000]

The folder is synthetic, one caption a picture. Its features are files with holes, so that they take no disk; 10 million
rows take 1.3 GB of records. Opening is measured in a process of its own, after its imports. Needs Linux. Prints a line
of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scaling import write_metadata

from imgcap.features import (
    FEATURES_FOLDER,
    INDEX_DTYPE,
    RECORDS_FILE,
    RECORDS_INDEX_FILE,
    ROWS_PER_FILE,
    SPLIT_CODES,
    PreparedFolder,
)
from imgcap.inception import FEATURE_SIZE

VAL_ROWS = 1000


def make(root: Path, rows: int) -> None:
    """A prepared folder of `rows` pictures, the last of them val."""
    (root / FEATURES_FOLDER).mkdir(parents=True)
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        shape = (min(ROWS_PER_FILE, rows - first), FEATURE_SIZE)
        np.lib.format.open_memmap(root / FEATURES_FOLDER / f"{number:05}.npy", "w+", np.float32, shape)
    index = np.empty(rows, INDEX_DTYPE)
    with (root / RECORDS_FILE).open("wb") as file:
        for i in range(rows):
            split = "train" if i < rows - VAL_ROWS else "val"
            index[i] = file.tell(), SPLIT_CODES.index(split)
            record = {"image_id": f"{i:08}", "path": f"{i:08}.jpg", "captions": ["A dog runs ."], "split": split}
            file.write(json.dumps(record).encode() + b"\n")
    np.save(root / RECORDS_INDEX_FILE, index)
    write_metadata(root, rows, rows)


def memory() -> int:
    """Resident memory in MiB that is no mapped file."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) // 1024


def measure(root: Path, read: int) -> None:
    before, begun = memory(), time.perf_counter()
    prepared = PreparedFolder(root)
    opened = time.perf_counter() - begun
    rows = prepared.rows("train")
    chosen = np.sort(np.random.default_rng(0).choice(rows, read, replace=False))
    begun = time.perf_counter()
    captions = sum(len(prepared.records[row].captions) for row in chosen.tolist())
    features = prepared.features[chosen]
    assert captions == len(features) == read
    print(
        json.dumps(
            {
                "rows": len(prepared.records),
                "seconds_to_open": round(opened, 3),
                "seconds_to_read": round(time.perf_counter() - begun, 3),
                "mib": memory() - before - features.nbytes // 2**20,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--read", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        measure(args.folder, args.read)
        return
    with tempfile.TemporaryDirectory() as work:
        make(Path(work), args.rows)
        subprocess.run([sys.executable, __file__, "--folder", work, "--read", str(args.read)], check=True)


if __name__ == "__main__":
    main()
