"""Find images that crash, hang or flood imgcap, among those of `hostile_images.py` and `image_bombs.py`.

    python tools/fuzz_images.py --files 20000 --out findings

`load_pixels` decodes each file in a process that may die of it. Then `imgcap caption` and `imgcap prepare` get folders
with the bombs, and with more mutated files. A finding is

    crash      a signal, or an exception other than `ImageError`
    hang       more than --seconds-each of CPU time, or ten times that of real time
    memory     more than --memory-mb of resident memory, including Python and libraries; half as much again for a
               command that gets all bombs at once
    noise      anything on stderr, or a warning; from a command, more than one line for each bad file
    exit code  from a command, other than 0 and 3

File N of a seed is always the same for the same Pillow and samples. Files with findings are kept in --out, and the exit
code is then 1. Linux only.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from PIL import __version__ as pillow_version

from hostile_images import File, Mutator, write_samples
from image_bombs import write_bombs
from imgcap.errors import ExitCode
from imgcap.images.decoding import load_pixels
from imgcap.images.discovery import SUFFIXES
from imgcap.images.errors import ImageError

PIXELS = 299
"""Side of the squashed images, as for Inception V3."""
BATCH = 250
"""Files that one worker process decodes."""
WAITING = 10
"""Real time that a file may take, in CPU times: other programs run too."""

Load = Callable[[Path], object]


@dataclass(frozen=True)
class Limits:
    """Limits for one file."""

    seconds: float
    """CPU time."""
    memory_mb: int


@dataclass
class Report:
    """The results so far."""

    findings: list[tuple[str, str, str]] = field(default_factory=list)
    """File, kind, and what happened."""
    decoded: int = 0
    refused: int = 0
    slowest: tuple[float, str] = (0.0, "")
    """CPU seconds, and the file that took them."""
    largest: tuple[int, str] = (0, "")
    """Peak resident memory in MB, and the file that took it."""
    begun: float = field(default_factory=time.monotonic)

    def add(self, file: str, kind: str, what: str) -> None:
        self.findings.append((file, kind, what))
        print(f"FINDING {file}: {kind}: {what}", flush=True)


def in_a_process(function: Callable[[Path], None], argument: Path) -> None:
    """Call `function` in a process of its own: it starts threads, after which a fork could hang."""
    process = multiprocessing.get_context("fork").Process(target=function, args=(argument,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed.")


@dataclass(frozen=True)
class Decoded:
    """A worker's result for one file."""

    findings: list[tuple[str, str]]
    refused: bool
    seconds: float
    peak_mb: int


def squash_to_pixels(file: Path) -> object:
    """Decode as every command does."""
    return load_pixels(file, PIXELS)


def decode(
    files: Iterable[Sequence[File]],
    limits: Limits,
    out: Path,
    report: Report,
    jobs: int = 1,
    load: Load = squash_to_pixels,
    deadline: float = float("inf"),
) -> None:
    """Decode batches of files, each in a process of its own, `jobs` at a time."""
    waiting = iter(files)
    running: dict[Connection, _Worker] = {}

    def start(batch: Sequence[File]) -> None:
        worker = _Worker(batch, limits, load)
        running[worker.results] = worker

    while True:
        while len(running) < jobs and time.monotonic() < deadline and (batch := next(waiting, None)):
            start(batch)
        if not running:
            return
        for results in wait(list(running)):
            assert isinstance(results, Connection)
            worker = running[results]
            if not worker.take(report, out):
                del running[results]
                print(f"  {_summary(report)}", flush=True)
                if left := worker.left():
                    start(left)


class _Worker:
    """A process that decodes one batch, until it finishes or dies."""

    def __init__(self, batch: Sequence[File], limits: Limits, load: Load) -> None:
        self.batch, self.limits = batch, limits
        self._folder = TemporaryDirectory()
        self._current = -1
        self.results, sender = multiprocessing.Pipe(duplex=False)
        fork = multiprocessing.get_context("fork")  # `load` and the functions that make the files cannot be pickled
        self._process = fork.Process(
            target=_work, args=(batch, Path(self._folder.name), limits, load, sender), daemon=True
        )
        self._process.start()
        sender.close()

    def take(self, report: Report, out: Path) -> bool:
        """Take one message. Returns whether there will be more."""
        try:
            message = self.results.recv()
        except EOFError:
            self._process.join()
            self._end(report, out)
            return False
        if isinstance(message, int):
            self._current = message
            return True
        name = self.batch[self._current][0]
        report.decoded += 1
        report.refused += message.refused
        report.slowest = max(report.slowest, (message.seconds, name))
        report.largest = max(report.largest, (message.peak_mb, name))
        for kind, what in message.findings:
            self._keep(report, out, kind, what)
        return True

    def left(self) -> Sequence[File]:
        """The files after the one that ended the process."""
        return self.batch[self._current + 1 :] if self._process.exitcode else []

    def _end(self, report: Report, out: Path) -> None:
        code = self._process.exitcode
        if code:
            said = (Path(self._folder.name) / "stderr").read_text(errors="replace")[-500:]
            if -code in (signal.SIGPROF, signal.SIGALRM):
                self._keep(report, out, "hang", f"more than {self.limits.seconds:g} s {said}")
            else:
                self._keep(report, out, "crash", f"exit code {code} {said}")
        self._folder.cleanup()

    def _keep(self, report: Report, out: Path, kind: str, what: str) -> None:
        name = self.batch[self._current][0]
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(self._folder.name) / name, out / name)
        report.add(str(out / name), kind, what)


def _work(batch: Sequence[File], folder: Path, limits: Limits, load: Load, results: Connection) -> None:
    """Decode `batch`. For each file, send its number before and a `Decoded` after."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for alarm in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(alarm, signal.SIG_DFL)  # ends the process, whatever it is doing
    warnings.simplefilter("always")
    log = (folder / "stderr").open("w+b", buffering=0)
    os.dup2(log.fileno(), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 (a descriptor)
    for number, (name, make) in enumerate(batch):
        file = folder / name
        file.write_bytes(make())
        results.send(number)
        decoded = _decode_one(file, limits, load, log)
        results.send(decoded)
        if not decoded.findings:  # the other process copies files with findings
            file.unlink()


def _decode_one(file: Path, limits: Limits, load: Load, log: io.FileIO) -> Decoded:
    findings: list[tuple[str, str]] = []
    found: object = None
    noise_before = os.fstat(log.fileno()).st_size
    _forget_peak()
    begun = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * limits.seconds)
    try:
        found = load(file)
    except Exception as error:  # any exception is a finding
        findings.append(("crash", f"{type(error).__name__}: {error}"))
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, peak = time.process_time() - begun, _peak_mb()
    if peak > limits.memory_mb:
        findings.append(("memory", f"{peak} MB"))
    if noise := os.pread(log.fileno(), 500, noise_before):
        findings.append(("noise", noise.decode(errors="replace")))
    return Decoded(findings, isinstance(found, ImageError), seconds, peak)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> int:
    """Peak resident memory of this process since `_forget_peak`, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def run_commands(files: Sequence[File], limits: Limits, out: Path, report: Report) -> None:
    """Caption and prepare a folder with these files among good ones, with the real commands and the default model."""
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        images, captions, rows = work / "images", work / "captions.csv", work / "captions.jsonl"
        images.mkdir()
        for i in range(24):
            Image.new("RGB", (80, 60), (i * 10, 100, 200)).save(images / f"good-{i:02}.png")
        for name, make in files:
            (images / name).write_bytes(make())
        names = sorted(file.name for file in images.iterdir() if file.suffix in SUFFIXES)
        captions.write_text("image,caption\n" + "".join(f"{name},a dog on a wall\n" for name in names))
        commands: dict[str, list[object]] = {
            "caption": [images, "-o", rows],
            "prepare": ["--images", images, "--captions", captions, "-o", work / "prepared"],
        }
        before = len(report.findings)
        for name, arguments in commands.items():
            begun = time.monotonic()
            harms = list(run_command([name, *arguments], limits, len(names)))
            print(f"imgcap {name}: {len(names)} files, {time.monotonic() - begun:.0f} s", flush=True)
            for kind, what in harms:
                report.add(f"imgcap {name} {out / 'folder'}", kind, what)
        count = rows.read_text().count("\n") if rows.exists() else 0
        if count != len(names):
            report.add(f"imgcap caption {out / 'folder'}", "exit code", f"{count} rows for {len(names)} files")
        if len(report.findings) > before:
            shutil.copytree(images, out / "folder", dirs_exist_ok=True)


def run_command(arguments: Sequence[object], limits: Limits, files: int) -> Iterator[tuple[str, str]]:
    """Run `imgcap` on a folder of `files` files. Yields the kind and description of each finding."""
    command = [sys.executable, "-W", "always", "-m", "imgcap", *map(str, arguments)]
    with TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w+b") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        end = time.monotonic() + WAITING * limits.seconds * (1 + files / 100)
        peak = 0
        while process.poll() is None and time.monotonic() < end:
            peak = max(peak, _peak_of(process.pid))
            time.sleep(0.05)
        if process.returncode is None:
            process.kill()
            process.wait()
            yield "hang", f"more than {WAITING * limits.seconds * (1 + files / 100):.0f} s"
        elif process.returncode < 0:
            yield "crash", f"signal {-process.returncode}"
        elif process.returncode not in (ExitCode.DONE, ExitCode.SOME_FAILED):
            yield "exit code", str(process.returncode)
        if peak > limits.memory_mb:
            yield "memory", f"{peak} MB"
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if "Traceback" in said:
        yield "crash", said[-1000:]
    if strange := [line for line in said.splitlines() if not _is_ours(line)]:
        yield "noise", f"{len(strange)} lines: " + " / ".join(strange[:3])
    if said.count("\n") > files + 20:
        yield "noise", f"{said.count(chr(10))} lines for {files} files"


def _is_ours(line: str) -> bool:
    """Whether imgcap wrote this line of stderr for the user: an error, or a part of the summary."""
    return not line or line.startswith(("imgcap: ", "Captioned ", "Left out ", "  ")) or " images" in line


def _peak_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    except (OSError, IndexError):  # the process has just ended
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="mutated files to decode")
    parser.add_argument(
        "--in-folder", type=int, default=500, help="more of them for the commands; 0 skips the commands"
    )
    parser.add_argument("--bombs", action=argparse.BooleanOptionalAction, default=True, help="bombs too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds-each", type=float, default=10, help="CPU seconds allowed for a file")
    parser.add_argument("--memory-mb", type=int, default=1024, help="resident memory allowed for a file")
    parser.add_argument("--jobs", type=int, default=1, help="decoding processes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no batch after this time")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for files with findings")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.files} files, Pillow {pillow_version}", flush=True)
    limits, report = Limits(args.seconds_each, args.memory_mb), Report()
    deadline = report.begun + 60 * args.minutes
    with TemporaryDirectory() as folder:
        samples = Path(folder) / "samples"
        in_a_process(write_samples, samples)
        mutator = Mutator(samples, args.seed)
        if args.bombs:
            in_a_process(write_bombs, Path(folder) / "bombs")
            bombs = [(file.name, file.read_bytes) for file in sorted((Path(folder) / "bombs").iterdir())]
            decode([bombs], limits, args.out, report, args.jobs)
            print(f"bombs: {_summary(report)}", flush=True)
            if args.in_folder:
                all_at_once = replace(limits, memory_mb=limits.memory_mb * 3 // 2)
                run_commands(bombs, all_at_once, args.out, report)
        of_mutated = Report(report.findings)
        starts = range(0, args.files, BATCH)
        files = (mutator.files(range(start, min(start + BATCH, args.files))) for start in starts)
        decode(files, limits, args.out, of_mutated, args.jobs, deadline=deadline)
        print(f"mutated files: {_summary(of_mutated)}", flush=True)
        if args.in_folder and time.monotonic() < deadline:
            more = mutator.files(range(args.files, args.files + args.in_folder))
            run_commands(more, limits, args.out, report)
    counts = Counter(kind for _, kind, _ in report.findings)
    print("findings: " + (", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"))
    return 1 if report.findings else 0


def _summary(report: Report) -> str:
    seconds = time.monotonic() - report.begun
    return (
        f"{report.decoded} decoded or refused ({report.refused} refused) in {seconds:.0f} s, "
        f"{report.decoded / seconds:.1f} a second; slowest {report.slowest[0]:.2f} s CPU ({report.slowest[1]}), "
        f"most memory {report.largest[0]} MB ({report.largest[1]})"
    )


if __name__ == "__main__":
    sys.exit(main())
