"""Kill every command that writes files at many different moments, run it again, and check that nothing is lost.

    python tools/crash_safety.py [--kills 50] [--seed 0] [--only prepare train]

Each command works on a small data set, in a process that is forked from this one, which has imported everything. A
first run counts its file operations: files opened for writing, renamed or removed, and folders created. Then the
command is killed (with SIGKILL or another signal that no program can catch) at one of these operations or up to half a
second later, its files are checked, and it is run again.

After the kill, every file under its final name must be complete, and every image must show what it showed before. After
the second run, all results must equal those of an undisturbed run, to the byte, and partial files must be gone. Prints
a table; the exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from imgcap.cli import main as imgcap_main
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ImgcapError
from imgcap.model.encoder import EncoderConfig, save_encoder
from imgcap.model.inception import InceptionV3
from imgcap.model.store import MANIFEST_FILE, verify

PIXELS = 75
"""Side of the encoder's input: the minimum."""
IMAGES = 12
LATEST = 0.5
"""Maximum seconds from a file operation to the kill: open files are written without further operations."""
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link")


class Killer:
    """Counts file operations under a folder, and kills the process `delay` seconds after operation number `at`."""

    def __init__(self, folder: Path, at: int = 0, delay: float = 0) -> None:
        self.folder, self.at, self.delay = str(folder), at, delay
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            writes = arguments[2] is not None and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            writes = event in OPERATIONS
        if not writes or not os.path.abspath(os.fsdecode(arguments[0])).startswith(self.folder):  # noqa: PTH100 (speed)
            return
        self.seen += 1
        if self.seen == self.at and self.delay:
            signal.setitimer(signal.ITIMER_REAL, self.delay)  # its signal is not handled, so it kills the process
        elif self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Case:
    """A command that is run in a folder of its own."""

    name: str
    first: list[str]
    again: list[str]
    check: Callable[[Path], None]
    """Raises if something in the folder is incomplete after the kill."""
    results: list[str]
    """Files and folders that must equal those of an undisturbed run."""


@dataclass
class Outcome:
    operations: int = 0
    kills: int = 0
    finished: int = 0
    """Runs that finished before they were killed."""
    partial: int = 0
    """Kills that left partial files under hidden names."""
    left: int = 0
    """Second runs that did not remove them."""
    broken: list[str] = field(default_factory=list)


def make_inputs(folder: Path) -> None:
    """Images, captions, an encoder with random weights, a prepared folder and a model."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,caption"]
    for i in range(IMAGES):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(folder / "images" / f"{i:02}.jpg", quality=90)
        lines += [f"{i:02}.jpg,a square of colour {i % 3}", f"{i:02}.jpg,colours and more colours"]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    weights = InceptionV3(count_padding=False).state_dict()
    save_encoder(folder / "encoder.safetensors", weights, EncoderConfig(PIXELS, count_padding=False), torch.float16)
    run(folder, PREPARE)
    run(folder, TRAIN)
    shutil.move(folder / "trained", folder / "model")


def run(folder: Path, arguments: list[str], killer: Killer | None = None) -> int:
    """Run the command in a process of its own. Returns the exit code, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            _become(folder, arguments, killer)
        except SystemExit as end:
            sys.stderr.flush()
            if killer:
                (folder.parent / "count").write_text(str(killer.seen))
            os._exit(int(end.code or 0))
        except BaseException:
            traceback.print_exc()
        os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code > 0:
        errors = (folder.parent / "errors").read_text(errors="replace").strip()
        raise RuntimeError(f"{' '.join(arguments)}: exit code {code}: {errors[-300:]}")
    return code


def _become(folder: Path, arguments: list[str], killer: Killer | None) -> None:
    os.chdir(folder)
    for stream, file in ((sys.stdout, os.devnull), (sys.stderr, folder.parent / "errors")):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    os.environ["IMGCAP_CACHE_DIR"] = str(folder / "cache")
    sys.argv = ["imgcap", *arguments]
    if killer:
        sys.addaudithook(killer)
    imgcap_main()


def lines_are_whole(folder: Path) -> None:
    rows = folder / "rows.jsonl"
    for line in rows.read_bytes().split(b"\n")[:-1] if rows.exists() else []:
        json.loads(line)


def images_are_whole(folder: Path) -> None:
    for i in range(IMAGES):
        with Image.open(folder / "images" / f"{i:02}.jpg") as one, Image.open(folder / "seen" / f"{i:02}.jpg") as two:
            if one.tobytes() != two.tobytes():
                raise ValueError(f"image {i} has changed")
    for sidecar in (folder / "images").glob("[0-9]*.txt"):
        if not sidecar.read_text().endswith("\n"):
            raise ValueError(f"{sidecar.name} is cut off")


def prepared_is_whole(folder: Path) -> None:
    if (folder / "prepared" / "prepared.json").exists():
        PreparedFolder(folder / "prepared")


def models_are_whole(folder: Path) -> None:
    for manifest in [*folder.glob("trained"), *folder.glob("cache/models/[!.]*"), *folder.glob("cache/shipped/[!.]*")]:
        if (manifest / MANIFEST_FILE).exists():
            verify(manifest)
        elif manifest.parent.name == "models":
            raise ValueError(f"{manifest.name} has its final name before it is complete")


def words(command: str) -> list[str]:
    return command.split()


PREPARE = words("prepare --images images --captions captions.csv --encoder encoder.safetensors -o prepared")
SIZES = words("--epochs 2 --batch-size 8 --min-count 1 --embedding-size 16 --hidden-size 16 --beam-size 2")
TRAIN = [*words("train prepared -o trained"), *SIZES]
CAPTION = words("caption images --model model")
ROWS = [*CAPTION, *words("-o rows.jsonl --resume --batch-size 2")]
EVERYWHERE = [*CAPTION, *words("-o rows.csv --sidecar .txt --write-metadata --html page.html")]
IMPORT = words("model import model --name mine")
FIRST_USE = words("caption images/00.jpg")
CASES = [
    Case("caption to rows", ROWS, ROWS, lines_are_whole, ["rows.jsonl"]),
    Case(
        "caption into images, sidecars and a page",
        EVERYWHERE,
        [*EVERYWHERE, "--overwrite"],
        images_are_whole,
        ["images"],  # rows and page contain the mtime of the images
    ),
    Case("prepare", PREPARE, PREPARE, prepared_is_whole, ["prepared"]),
    Case("train", TRAIN, [*TRAIN, "--resume"], models_are_whole, ["trained/decoder.safetensors"]),
    Case("model import", IMPORT, IMPORT, models_are_whole, ["cache/models/mine"]),
    Case("first use of the shipped model", FIRST_USE, FIRST_USE, models_are_whole, ["cache/shipped"]),
]
NEEDS = {"prepare": "prepared", "train": "trained"}
"""Folders that must not exist yet, by command."""


def workplace(inputs: Path, folder: Path, case: Case) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    absent = NEEDS.get(case.first[0])
    shutil.copytree(
        inputs, folder, ignore=lambda at, names: set(names) & {str(absent)} if Path(at) == inputs else set()
    )
    shutil.copytree(folder / "images", folder / "seen")
    return folder


def contents(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Content of the files in `names` and below, by path."""
    files = [
        f for name in names for f in ([folder / name] if (folder / name).is_file() else (folder / name).rglob("*"))
    ]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.is_file()}


def partial_files(folder: Path) -> list[str]:
    """Hidden files, and files in hidden folders."""
    names = [str(file.relative_to(folder)) for file in folder.rglob("*")]
    return [name for name in names if any(part.startswith(".") for part in Path(name).parts)]


def try_case(case: Case, inputs: Path, scratch: Path, kills: int, random_moments: random.Random) -> Outcome:
    work = workplace(inputs, scratch / "work", case)
    run(work, case.first, Killer(work))
    outcome = Outcome(operations=int((scratch / "count").read_text()))
    expected = contents(work, case.results)
    if not expected:
        raise SystemExit(f"{case.name} writes nothing")
    for kill in range(kills):
        at = kill + 1 if kill < min(outcome.operations, kills // 2) else random_moments.randint(1, outcome.operations)
        delay = random_moments.choice([0, LATEST * random_moments.uniform(0.03, 1) ** 3])
        workplace(inputs, work, case)
        moment = f"operation {at} and {delay:.4f} s"
        try:
            killed = run(work, case.first, Killer(work, at, delay)) < 0
            outcome.kills += killed
            outcome.finished += not killed
            outcome.partial += bool(partial_files(work))
            case.check(work)
            if not run_again(work, case):
                continue
            found = contents(work, case.results)
            if differing := [name for name in expected | found if expected.get(name) != found.get(name)]:
                outcome.broken.append(f"{moment}: {', '.join(differing)} differ")
            if left := partial_files(work):
                outcome.left += 1
                outcome.broken.append(f"{moment}: {', '.join(left)} are left")
        except (RuntimeError, ValueError, OSError, ImgcapError) as error:
            outcome.broken.append(f"{moment}: {error}")
    return outcome


def run_again(work: Path, case: Case) -> bool:
    """Run the command again if something is left to do, and return whether it was."""
    imported = work / "cache" / "models" / "mine"
    finished_training = (work / "trained" / MANIFEST_FILE).exists() and not list((work / "trained").glob("*-state.*"))
    if (case.first == IMPORT and imported.exists()) or (case.first == TRAIN and finished_training):
        return False  # finished when it was killed; doing it again would be refused
    run(work, case.again)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="number for each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="run the commands whose names contain one of these words")
    args = parser.parse_args()
    random_moments = random.Random(args.seed)
    broken = False
    print(
        "| command | file operations | killed | done before the kill | left partial files | not cleaned up | broken |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        inputs, scratch = Path(folder) / "inputs", Path(folder)
        make_inputs(inputs)
        for case in CASES:
            if args.only and not any(word in case.name for word in args.only):
                continue
            found = try_case(case, inputs, scratch, args.kills, random_moments)
            row = (
                *(case.name, found.operations, found.kills, found.finished),
                *(found.partial, found.left, len(found.broken)),
            )
            print(f"| {' | '.join(map(str, row))} |", *found.broken, sep="\n", flush=True)
            broken |= bool(found.broken)
    raise SystemExit(int(broken))


if __name__ == "__main__":
    main()
