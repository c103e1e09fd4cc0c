"""Measure CPU seconds and peak memory of `caption`, `prepare`, `eval` and the data loading of `train` as inputs grow.

    python benchmarks/scaling.py [--images 100 1000 10000] [--captions 1000 10000 100000] [--encoder FILE]
        [--figure FILE.svg]
    python benchmarks/scaling.py --processes 1 2

The images are hard links to the examples, so their number grows but not their content. FILE encodes them, by
default the default model's encoder at 75 pixels, which is faster and changes neither the memory for each image nor the
rows. The captions are synthetic, with words drawn by Zipf's law. `eval` scores n captions with five references each.
`train` opens a prepared folder of n captions, five for each image and a tenth of them val, and loads one epoch without
a training step.

Each measurement is a process of its own on the CPU, in one thread: two threads would spend CPU time on waiting for
each other. Seconds are user and system time. Nothing is subtracted; the cost of 1,000 more comes from the difference
to the smallest n. Features that `train` maps from disk count as its memory. Needs Linux. Prints a table and a line of
JSON.

With `--processes`, it measures instead the wall-clock time of `prepare`, `caption` and `train` in that many processes
of `torchrun`, each with one thread: 8,000 images at 75 pixels, and an epoch of their 40,000 captions.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# The peak memory of a child starts at its parent's, so everything that imports torch or makes inputs is a child too.
from imgcap.pages.plots import Curve, plot_svg

EXAMPLES = Path(__file__).parents[1] / "examples"
PIXELS = 75
REFERENCES = 5
ZIPF_WORDS = 10_000
VAL_EVERY = 10
IMAGES_OF_PROCESSES = 8000
"""Number of images with `--processes`."""


@dataclass(frozen=True)
class Point:
    command: str
    n: int
    seconds: float
    peak_mib: int


def make_model(folder: str, encoder: str | None) -> None:
    from imgcap.model.store import ENCODER_FILE, write_manifest
    from long_run import small_model

    model = small_model(Path(folder), PIXELS)
    if encoder:
        shutil.copyfile(encoder, model / ENCODER_FILE)
        write_manifest(model)


def make_images(folder: str, count: int, captions: int = 1) -> None:
    """Make the folder `images`, and `captions.csv` with captions of each image."""
    from long_run import link

    root = Path(folder)
    images = root / "images"
    link(sorted(EXAMPLES.glob("*.jpg")), images, count)
    with (root / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        texts = zipf(count * captions)
        for path in sorted(images.rglob("*.jpg")):
            rows.writerows([path.relative_to(images), next(texts)] for _ in range(captions))


def zipf(count: int) -> Iterator[str]:
    """Captions of 6 to 18 words; the word of rank r has a probability proportional to 1 / r."""
    import numpy as np

    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, ZIPF_WORDS + 1)
    lengths = random.integers(6, 19, count)
    words = iter(random.choice(ZIPF_WORDS, lengths.sum(), p=weights / weights.sum()).tolist())
    for length in lengths.tolist():
        yield " ".join(f"word{next(words)}" for _ in range(length))


def make_captions(folder: str, count: int) -> None:
    """Write `hypotheses.jsonl` with `count` captions, and `references.jsonl`."""
    captions = zipf(count * (1 + REFERENCES))
    with Path(folder, "hypotheses.jsonl").open("w") as hypotheses, Path(folder, "references.jsonl").open("w") as others:
        for i in range(count):
            print(json.dumps({"image_id": i, "caption": next(captions)}), file=hypotheses)
            references = [next(captions) for _ in range(REFERENCES)]
            print(json.dumps({"image_id": i, "captions": references}), file=others)


def make_prepared(folder: str, count: int) -> None:
    """Write the parts of a prepared folder that `train` loads, with random features and `count` captions."""
    import numpy as np

    from imgcap.dataset.prepared import (
        FEATURES_FOLDER,
        ROWS_PER_FILE,
        write_records,
    )
    from imgcap.dataset.records import Record
    from imgcap.model.inception import FEATURE_SIZE

    root = Path(folder, "prepared")
    features = root / FEATURES_FOLDER
    features.mkdir(parents=True)
    images = count // REFERENCES
    random = np.random.default_rng(0)
    for number, start in enumerate(range(0, images, ROWS_PER_FILE)):
        rows = min(ROWS_PER_FILE, images - start)
        np.save(features / f"{number:05}.npy", random.random((rows, FEATURE_SIZE), dtype=np.float32))

    captions = zipf(images * REFERENCES)
    records = [
        Record(
            str(i), f"{i}.jpg", tuple(next(captions) for _ in range(REFERENCES)), "train" if i % VAL_EVERY else "val"
        )
        for i in range(images)
    ]
    write_records(root, records)
    write_metadata(root, images, images * REFERENCES)


def write_metadata(root: Path, images: int, captions: int) -> None:
    """Write the metadata of a prepared folder."""
    from imgcap.dataset.prepared import FORMAT_VERSION, METADATA_FILE, PreparedMetadata
    from imgcap.files import write_json
    from imgcap.model.encoder import EncoderConfig

    metadata = PreparedMetadata(
        format_version=FORMAT_VERSION,
        digest="",
        image_root="",
        encoder="",
        encoder_fingerprint="",
        encoder_config=EncoderConfig(),
        images=images,
        captions=captions,
        splits={},
        left_out=0,
    )
    write_json(root / METADATA_FILE, asdict(metadata))


def load_epoch(folder: str) -> None:
    """Do an epoch of training without its steps and its validation."""
    import torch

    from imgcap.dataset.prepared import PreparedFolder
    from imgcap.distributed import World
    from imgcap.training.options import SCRATCH, TrainingOptions
    from imgcap.training.progress import SilentListener
    from imgcap.training.trainer import Trainer

    prepared = PreparedFolder(Path(folder, "prepared"))
    trainer = Trainer(
        prepared, TrainingOptions(start_from=SCRATCH), World(device=torch.device("cpu")), SilentListener()
    )
    for _, (part,) in trainer.batches.with_parts(trainer.batches.of_epoch(1)):
        trainer.features(part)


CHILDREN: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (make_model, make_images, make_captions, make_prepared, load_epoch)
}


def child(function: Callable[..., None], *arguments: str | int | None) -> list[str]:
    return [__file__, "--child", json.dumps([function.__name__, *arguments])]


def run(arguments: Sequence[str]) -> tuple[float, int]:
    """CPU seconds and peak memory in MiB of a Python process."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=one_thread) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"A process failed: {' '.join(arguments)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def measure(images: list[int], captions: list[int], encoder: Path | None, root: Path) -> Iterator[Point]:
    model = str(root / "model")
    run(child(make_model, model, str(encoder) if encoder else None))
    imgcap, cpu = ["-m", "imgcap"], ["--device", "cpu"]
    for n in images:
        with tempfile.TemporaryDirectory(dir=root) as work:
            run(child(make_images, work, n))
            folder, table = f"{work}/images", f"{work}/captions.csv"
            command = ["caption", folder, "-o", f"{work}/rows.jsonl", "-q", "--model", model, *cpu]
            yield Point("caption", n, *run([*imgcap, *command]))
            command = ["prepare", "--images", folder, "--captions", table, "-o", f"{work}/prepared", "--encoder", model]
            yield Point("prepare", n, *run([*imgcap, *command, *cpu]))
    for n in captions:
        with tempfile.TemporaryDirectory(dir=root) as work:
            run(child(make_captions, work, n))
            hypotheses, references = f"{work}/hypotheses.jsonl", f"{work}/references.jsonl"
            command = ["eval", "--hypotheses", hypotheses, "--references", references, "--json", *cpu]
            yield Point("eval", n, *run([*imgcap, *command]))
            run(child(make_prepared, work, n))
            yield Point("train", n, *run(child(load_epoch, work)))


def measure_processes(counts: list[int], encoder: Path | None, root: Path) -> Iterator[tuple[str, int, float]]:
    """Command, number of processes, and seconds on the clock."""
    model, images, table = str(root / "model"), str(root / "images"), str(root / "captions.csv")
    run(child(make_model, model, str(encoder) if encoder else None))
    run(child(make_images, str(root), IMAGES_OF_PROCESSES, REFERENCES))
    cpu = ["--device", "cpu"]
    for count in counts:
        rows, prepared, trained = (str(root / f"{count}{name}") for name in (".jsonl", "-prepared", "-model"))
        for command in (
            ["prepare", "--images", images, "--captions", table, "-o", prepared, "--encoder", model, *cpu],
            ["caption", images, "-o", rows, "-q", "--model", model, *cpu],
            ["train", prepared, "-o", trained, "--start-from", "none", "--epochs", "1", *cpu],
        ):
            started = time.perf_counter()
            run(["-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "imgcap", *command])
            yield command[0], count, time.perf_counter() - started


def print_processes(found: list[tuple[str, int, float]]) -> None:
    print("| command | processes | seconds | times as fast |\n| --- | --- | --- | --- |")
    first: dict[str, float] = {}
    for command, count, seconds in sorted(found):
        print(f"| {command} | {count} | {seconds:.1f} | {first.setdefault(command, seconds) / seconds:.2f} |")


def print_table(points: list[Point]) -> None:
    print("| command | n | CPU seconds | seconds for 1,000 more | peak MiB |\n| --- | --- | --- | --- | --- |")
    smallest: dict[str, Point] = {}
    for point in sorted(points, key=lambda point: point.command):
        first = smallest.setdefault(point.command, point)
        more = 1000 * (point.seconds - first.seconds) / (point.n - first.n) if point.n > first.n else None
        slope = "" if more is None else f"{more:.3f}"
        print(f"| {point.command} | {point.n:,} | {point.seconds:.1f} | {slope} | {point.peak_mib:,} |")


def figure(points: list[Point]) -> str:
    def curves(commands: Sequence[str], value: Callable[[Point], float]) -> list[Curve]:
        own = {name: [point for point in points if point.command == name] for name in commands}
        return [Curve(name, [p.n for p in line], [value(p) for p in line]) for name, line in own.items()]

    panels = []
    for what, commands in (("images", ("caption", "prepare")), ("captions", ("eval", "train"))):
        panels.append((f"Seconds for n {what}", curves(commands, lambda point: point.seconds)))
        panels.append((f"MiB for n {what}", curves(commands, lambda point: point.peak_mib)))
    return plot_svg(panels, "n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--captions", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--encoder", type=Path, metavar="FILE", help="encoder of `caption` and `prepare`")
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw seconds and MiB against n")
    parser.add_argument("--processes", type=int, nargs="+", help="measure numbers of processes instead")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, *arguments = args.child
        CHILDREN[name](*arguments)
        return
    if args.processes:
        with tempfile.TemporaryDirectory() as work:
            found = list(measure_processes(sorted(set(args.processes)), args.encoder, Path(work)))
        print_processes(found)
        print(json.dumps({"processes": found}))
        return
    with tempfile.TemporaryDirectory() as work:
        points = []
        for point in measure(sorted(set(args.images)), sorted(set(args.captions)), args.encoder, Path(work)):
            print(f"{point.command} {point.n:,}: {point.seconds:.1f} s, {point.peak_mib:,} MiB", file=sys.stderr)
            points.append(point)
    if args.figure:
        args.figure.write_text(figure(points), encoding="utf-8")
    print_table(points)
    print(json.dumps({"points": [asdict(point) for point in points]}))


if __name__ == "__main__":
    main()
