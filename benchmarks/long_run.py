"""Test a long run of `imgcap caption`: whether its memory grows, and whether it survives kills.

    python benchmarks/long_run.py IMAGES... [--count 20000] [--kills 20] [--pixels 75]

Makes a folder of `--count` hard links to the given images and captions it twice: once without interruption while the
memory is measured, and once with SIGKILL at random moments, resuming each time. The default model's encoder gets
images of `--pixels`, which is faster and changes neither the memory for each image nor the rows. Prints a line of
JSON; the exit code is 1 if the two files differ or if memory grew by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from imgcap.model.encoder import read_encoder, save_encoder
from imgcap.model.store import DEFAULT_MODEL, ENCODER_FILE, locate, write_manifest

ROW_BYTES = 200
"""A lower bound for the size of a row."""
SETTLED = 500
"""Number of images after which the memory is measured for the first time."""
POLL_SECONDS = 0.2


def small_model(folder: Path, pixels: int) -> Path:
    """The default model with an encoder for images of `pixels`."""
    shutil.copytree(locate(DEFAULT_MODEL), folder)
    weights, config = read_encoder(folder / ENCODER_FILE)
    save_encoder(folder / ENCODER_FILE, weights, replace(config, pixels=pixels), torch.float16)
    write_manifest(folder)
    return folder


def link(images: list[Path], folder: Path, count: int) -> None:
    """Make `count` hard links to copies of `images`, 1,000 in each sub-folder."""
    originals = folder.with_name("originals")
    originals.mkdir()
    copies = [Path(shutil.copy(image, originals)) for image in images]
    for i in range(count):
        source = copies[i % len(copies)]
        target = folder / f"{i // 1000:03}" / f"{i:06}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def start(folder: Path, output: Path, model: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "imgcap", "caption", folder, "-o", output, "--resume", "-q", "--model", model]
    return subprocess.Popen(list(map(str, command)))


def resident(pid: int) -> int:
    """Resident memory in MiB; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)


def watched(process: subprocess.Popen[bytes], output: Path) -> tuple[int, int]:
    """MiB after the first `SETTLED` images, and at the end."""
    first = last = 0
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        now = resident(process.pid)
        last = now or last
        if not first and output.exists() and output.stat().st_size > SETTLED * ROW_BYTES:
            first = output.read_bytes().count(b"\n") >= SETTLED and now
    return first, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pixels", type=int, default=75)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        model, folder = small_model(root / "model", args.pixels), root / "images"
        link(args.images, folder, args.count)
        whole, killed = root / "whole.jsonl", root / "killed.jsonl"

        started = time.monotonic()
        process = start(folder, whole, model)
        first, last = watched(process, whole)
        seconds = time.monotonic() - started
        assert process.returncode == 0, "the uninterrupted run failed"

        chance, kills = random.Random(0), 0
        size = whole.stat().st_size
        moments = sorted(chance.randrange(size) for _ in range(args.kills))
        for moment in moments:
            process = start(folder, killed, model)
            while process.poll() is None and not (killed.exists() and killed.stat().st_size >= moment):
                time.sleep(chance.random() * 0.1)
            process.kill()
            kills += process.wait() < 0
        assert start(folder, killed, model).wait() == 0, "the last resumed run failed"
        equal = whole.read_bytes() == killed.read_bytes()

    result = {
        "images": args.count,
        "seconds": round(seconds),
        "memory_mib_after_500": first,
        "memory_mib_at_the_end": last,
        "kills": kills,
        "equal": equal,
    }
    print(json.dumps(result))
    sys.exit(not equal or last > 1.1 * first)


if __name__ == "__main__":
    main()
