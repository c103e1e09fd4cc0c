"""Simulate how long a cluster takes to caption many images, by the size of the shards, with stragglers and failures.

    python benchmarks/cluster_simulation.py [--workers 1000] [--rate 34] [--mtbf-hours 24] [--figure FILE.svg] ...

Workers take shards from a queue, one after another. Each shard begins with a start-up, the cold start of a process.
The speed of a worker is fixed: `--rate` times a lognormal factor, and a few workers, the stragglers, are slower by a
factor drawn from `--slowdown`. Failures of a computing worker are a Poisson process; after `--restart-seconds` an
equally fast worker replaces it and continues its shard. The simulation compares three ways to treat the rows of the
lost worker:

    resumed     the rows of complete batches are on shared storage; they are read, and the shard continues after them
    from start  the rows are lost, and the shard starts again
    copies      as resumed, but a worker without a shard computes a copy of the one that would end last, if the copy is
                expected to end sooner; the first to finish counts

Times are multiples of the ideal, in which all workers only caption, until the same moment, at the same speeds.
"start-up" is the fraction of computing time spent on start-ups, "tail" the time from the first worker without a shard
to the end, "twice" the fraction of images captioned a second time. Columns without a name are for `resumed`. Each line
is the mean of `--repeats` draws. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from imgcap.pages.plots import Curve, plot_svg

HOUR = 3600.0
SHARD_SIZES = [100, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 1_000_000, 10_000_000]
GIVE_UP = 100.0
"""Multiple of the ideal time after which a run is stopped, since it may never end."""
MODES = {"resumed": (True, False), "from start": (False, False), "copies": (True, True)}
"""Whether shards are resumed, and whether there are copies."""


@dataclass(frozen=True)
class Cluster:
    """Workers and their failures; times are in seconds."""

    workers: int
    rate: float
    """Images a second of a typical worker."""
    spread: float = 0.0
    """Standard deviation of the logarithm of the workers' speeds."""
    stragglers: float = 0.0
    """Fraction of the workers that are slow."""
    slowdown: tuple[float, float] = (2.0, 10.0)
    """Minimum and maximum factor by which they are slower."""
    start_up: float = 0.0
    """Time before the first image of a shard."""
    mtbf: float = math.inf
    """Mean time between the failures of one worker."""
    restart: float = 0.0
    """Time from a failure until another worker has replaced the failed one."""
    rows_rate: float = math.inf
    """Rows a second read to resume a shard."""
    batch: int = 1
    """Number of images whose rows are written together."""

    def speeds(self, random: np.random.Generator) -> np.ndarray:
        """Images a second of each worker; the number of stragglers is fixed."""
        speeds = self.rate * random.lognormal(0, self.spread, self.workers)
        slow = random.permutation(self.workers)[: round(self.stragglers * self.workers)]
        speeds[slow] /= random.uniform(*self.slowdown, len(slow))
        return speeds


@dataclass
class Outcome:
    """Result of a run; times are in seconds."""

    time: float
    ideal: float
    tail: float
    start_up: float
    """Fraction of the computing time."""
    twice: float
    """Fraction of the images that were captioned a second time."""
    failures: float
    copies: float
    unfinished: float
    """1 if the run was stopped early; for several runs, the fraction."""


class _Run:
    """One run, event by event. An event is the end of an attempt at a shard, by success or failure."""

    def __init__(self, cluster: Cluster, images: int, shard_size: int, resume: bool, copies: bool, seed: int) -> None:
        self.cluster, self.images, self.shard_size = cluster, images, shard_size
        self.resume, self.copies = resume, copies
        random = np.random.default_rng(seed)
        self.speed: list[float] = cluster.speeds(random).tolist()
        self.lifetimes = _exponentials(cluster.mtbf, random)
        self.shards = -(-images // shard_size)
        # Until this time every worker has a shard, however many fail. So shards between two failures of a worker need
        # no events of their own.
        self.pace = [cluster.start_up + shard_size / speed for speed in self.speed]
        self.horizon = max(0.0, (self.shards - cluster.workers) / sum(1 / each for each in self.pace))
        self.next_shard = 0
        self.left = self.shards
        self.events: list[tuple[float, int, int]] = []  # time, worker, number of the attempt
        self.attempts = [0] * cluster.workers
        self.shard = [-1] * cluster.workers
        self.done = [0] * cluster.workers  # images of the shard that had rows when the attempt began
        self.started = [0.0] * cluster.workers
        self.ready = [0.0] * cluster.workers  # when the attempt begins its first image
        self.end = [0.0] * cluster.workers  # when the attempt ends, unless the worker fails
        self.holders: dict[int, list[int]] = {}  # workers of a shard
        self.idle: list[tuple[float, int]] = []  # negative speed, worker; the fastest first
        self.first_idle = math.inf
        self.busy = self.preparing = self.captioned = 0.0
        self.failures = self.copied = 0

    def size(self, shard: int) -> int:
        return min(self.shard_size, self.images - shard * self.shard_size)

    def start(self, worker: int, shard: int, now: float, lifetime: float, done: int = 0) -> None:
        """Begin an attempt at `shard`, `done` images of which have rows; the worker fails after `lifetime`."""
        self.attempts[worker] += 1
        self.shard[worker], self.done[worker], self.started[worker] = shard, done, now
        ready = self.ready[worker] = now + self.cluster.start_up + done / self.cluster.rows_rate
        end = self.end[worker] = ready + (self.size(shard) - done) / self.speed[worker]
        heapq.heappush(self.events, (min(end, now + lifetime), worker, self.attempts[worker]))

    def leave(self, worker: int, now: float) -> float:
        """Count an attempt that ends now; returns the number of images that it captioned."""
        captioned = max(0.0, now - self.ready[worker]) * self.speed[worker]
        self.busy += now - self.started[worker]
        self.preparing += min(now, self.ready[worker]) - self.started[worker]
        self.captioned += captioned
        return captioned

    def take(self, worker: int, now: float) -> None:
        """Give `worker` the next shard, or a copy of one, or nothing."""
        lifetime = next(self.lifetimes)
        if self.next_shard < self.shards:
            whole = max(0, int((min(now + lifetime, self.horizon) - now) / self.pace[worker]))
            self.next_shard += whole
            self.left -= whole
            self.captioned += whole * self.shard_size
            self.preparing += whole * self.cluster.start_up
            passed = whole * self.pace[worker]
            self.busy += passed
            now, lifetime = now + passed, lifetime - passed
            shard, self.next_shard = self.next_shard, self.next_shard + 1
        else:
            self.first_idle = min(self.first_idle, now)
            latest = self.latest(worker, now) if self.copies else None
            if latest is None:
                heapq.heappush(self.idle, (-self.speed[worker], worker))
                return
            shard = latest
            self.copied += 1
        self.holders.setdefault(shard, []).append(worker)
        self.start(worker, shard, now, lifetime)

    def latest(self, worker: int, now: float) -> int | None:
        """The shard without a copy that would end last, if a copy by `worker` would end sooner."""
        alone = [(self.end[holders[0]], shard) for shard, holders in self.holders.items() if len(holders) == 1]
        if not alone:
            return None
        end, shard = max(alone)
        return shard if now + self.cluster.start_up + self.size(shard) / self.speed[worker] < end else None

    def fail(self, worker: int, now: float) -> None:
        """Replace a worker that fails; the new one continues the shard."""
        self.failures += 1
        done = self.done[worker] + self.leave(worker, now)
        kept = int(done) // self.cluster.batch * self.cluster.batch if self.resume else 0
        kept = max(kept, self.done[worker])
        self.start(worker, self.shard[worker], now + self.cluster.restart, next(self.lifetimes), kept)
        if self.copies and self.idle:
            self.take(heapq.heappop(self.idle)[1], now)

    def finish(self, worker: int, now: float) -> None:
        """Finish the worker's shard; workers on copies of it stop."""
        self.left -= 1
        holders = self.holders.pop(self.shard[worker])
        for holder in holders:
            self.leave(holder, max(now, self.started[holder]))
            self.attempts[holder] += 1  # so that its pending event is ignored
        if self.left:
            for holder in holders:
                self.take(holder, max(now, self.started[holder]))

    def outcome(self) -> Outcome:
        now, ideal = 0.0, self.images / sum(self.speed)
        for worker in range(self.cluster.workers):
            self.take(worker, now)
        while self.left and now < GIVE_UP * ideal:
            now, worker, attempt = heapq.heappop(self.events)
            if attempt != self.attempts[worker]:
                continue
            if now < self.end[worker]:
                self.fail(worker, now)
            else:
                self.finish(worker, now)
        return Outcome(
            time=now,
            ideal=ideal,
            tail=max(0.0, now - self.first_idle),
            start_up=self.preparing / self.busy,
            twice=self.captioned / self.images - 1,
            failures=self.failures,
            copies=self.copied,
            unfinished=float(self.left > 0),
        )


def simulate(
    cluster: Cluster, images: int, shard_size: int, resume: bool = True, copies: bool = False, seed: int = 0
) -> Outcome:
    """Caption `images` in shards of `shard_size`; equal seeds draw equal speeds for every size."""
    return _Run(cluster, images, shard_size, resume, copies, seed).outcome()


def _exponentials(mean: float, random: np.random.Generator, block: int = 4096) -> Iterator[float]:
    while True:
        yield from (random.exponential(mean, block) if mean < math.inf else np.full(block, math.inf)).tolist()


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*(sum(getattr(each, f.name) for each in outcomes) / len(outcomes) for f in fields(Outcome)))


@dataclass(frozen=True)
class Line:
    """Results for one size of the shards, by mode."""

    shard_size: int
    shards: int
    modes: dict[str, Outcome]

    def slowness(self, mode: str) -> float:
        """Time as a multiple of the ideal."""
        return self.modes[mode].time / self.modes[mode].ideal

    def cell(self, mode: str) -> str:
        """The slowness as a cell of the table."""
        return f"over {GIVE_UP:.0f}" if self.modes[mode].unfinished else f"{self.slowness(mode):.3f}"


def print_table(lines: Sequence[Line]) -> None:
    print("| shard size | shards | h | x ideal | start-up | tail, min | from start | twice | copies | twice |")
    print("| --- " * 10 + "|")
    for line in lines:
        own = line.modes["resumed"]
        cells = [f"{line.shard_size:,}", f"{line.shards:,}", f"{own.time / HOUR:.2f}", line.cell("resumed")]
        cells += [f"{own.start_up:.1%}", f"{own.tail / 60:,.1f}"]
        for mode in ("from start", "copies"):
            cells += [line.cell(mode), f"{line.modes[mode].twice:.2%}"]
        print(f"| {' | '.join(cells)} |")


def figure(lines: Sequence[Line]) -> str:
    """Plot the time beyond the ideal against the size of the shards; both axes are logarithmic."""
    sizes = [math.log10(line.shard_size) for line in lines]
    curves = [
        Curve(mode, sizes, [math.log10(line.slowness(mode) - 1) for line in lines]) for mode in ("resumed", "copies")
    ]
    return plot_svg([("Time beyond the ideal, 10^", curves)], "images in a shard, 10^")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10**9)
    parser.add_argument("--shard-sizes", type=int, nargs="+", default=SHARD_SIZES)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=34.0, help="images a second of a worker")
    parser.add_argument("--spread", type=float, default=0.1, help="of the logarithm of the workers' speeds")
    parser.add_argument("--stragglers", type=float, default=0.02, help="fraction of the workers")
    parser.add_argument("--slowdown", type=float, nargs=2, default=(2.0, 10.0), metavar=("MIN", "MAX"))
    parser.add_argument("--start-up", type=float, default=2.8, help="seconds before the first image of a shard")
    parser.add_argument("--mtbf-hours", type=float, default=24.0, help="mean time between a worker's failures")
    parser.add_argument("--restart-seconds", type=float, default=300.0, help="until a worker is replaced")
    parser.add_argument("--rows-rate", type=float, default=5000.0, help="rows a second that are read to resume")
    parser.add_argument("--batch", type=int, default=8, help="images whose rows are written together")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw the time against the shard size")
    args = parser.parse_args()
    cluster = Cluster(
        workers=args.workers,
        rate=args.rate,
        spread=args.spread,
        stragglers=args.stragglers,
        slowdown=tuple(args.slowdown),
        start_up=args.start_up,
        mtbf=args.mtbf_hours * HOUR,
        restart=args.restart_seconds,
        rows_rate=args.rows_rate,
        batch=args.batch,
    )
    lines = []
    for shard_size in sorted(set(args.shard_sizes)):
        seeds = range(args.seed, args.seed + args.repeats)
        modes = {
            mode: mean_outcome([simulate(cluster, args.images, shard_size, *how, seed) for seed in seeds])
            for mode, how in MODES.items()
        }
        print(f"{shard_size:,} images a shard: {modes['resumed'].time / HOUR:.2f} h", file=sys.stderr)
        lines.append(Line(shard_size, -(-args.images // shard_size), modes))
    if args.figure:
        args.figure.write_text(figure(lines), encoding="utf-8")
    print_table(lines)
    result = {"images": args.images, "cluster": asdict(cluster), "lines": [asdict(line) for line in lines]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
