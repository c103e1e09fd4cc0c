"""A run of `imgcap caption` in shards: one file of rows for each shard, merged when all are complete.

Shard 2 of 4 of `rows.jsonl` is written to `rows.2-of-4.jsonl`. `rows.2-of-4.shard` beside it records the run that the
shard belongs to, and whether the shard is complete.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from imgcap.captioning.rows import Origin
from imgcap.errors import ImgcapError, listing
from imgcap.files import current_keys, make_folder, only_writer, read_json, reason, replacing, write_json, writing
from imgcap.sharding import WHOLE, Shard


@dataclass(frozen=True)
class FinishedShard:
    """The run that a complete shard belongs to. Raises `TypeError` if the number of images is not one."""

    images: int
    """Images of the whole run."""
    names: str
    """SHA-256 of their names, in order."""
    rows: int
    """Images of this shard."""
    origin: Origin

    def __post_init__(self) -> None:
        if not isinstance(self.images, int):
            raise TypeError(self.images)


@dataclass(frozen=True)
class ShardState:
    """Content of a shard's state file."""

    batch_size: int
    """Batch size; a shard takes every nth batch."""
    finished: FinishedShard | None = None
    """None until the shard is complete."""

    @classmethod
    def from_json(cls, data: Any) -> ShardState:
        """Raises `KeyError`, `TypeError` or `ValueError` if `data` is not a state."""
        batch_size, finished = data["batch_size"], data["finished"]
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(batch_size)
        if finished is None:
            return cls(batch_size)
        finished = current_keys(finished)
        return cls(batch_size, FinishedShard(**{**finished, "origin": Origin(**finished["origin"])}))


@dataclass(frozen=True)
class RowShard:
    """One shard of the run that writes `output`."""

    output: Path
    shard: Shard

    @property
    def file(self) -> Path:
        """The rows of this shard."""
        return self._beside(self.output.suffix)

    @property
    def state_file(self) -> Path:
        return self._beside(".shard")

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(f"{self.output.stem}.{self.shard.file_name}{suffix}")

    def state(self) -> ShardState | None:
        """The recorded state; None if the shard was never started. Raises `ImgcapError` if the file is damaged."""
        if not self.state_file.exists():
            return None
        data = read_json(self.state_file)
        try:
            return ShardState.from_json(data)
        except (KeyError, TypeError, ValueError):
            raise ImgcapError(
                f"{self.state_file} is damaged.", f"Remove it, and run shard {self.shard} again."
            ) from None

    def finished(self) -> FinishedShard | None:
        """The run that the shard belongs to; None if the shard is not complete. Raises `ImgcapError`."""
        state = self.state()
        return state.finished if state and self.file.exists() else None

    def start(self, batch_size: int) -> None:
        """Record that the shard is started and not complete. Raises `ImgcapError`."""
        self._write_state(ShardState(batch_size))

    def finish(self, batch_size: int, finished: FinishedShard) -> None:
        """Record that all rows of the shard are on disk. Raises `ImgcapError`."""
        with writing(self.file), self.file.open("rb+") as rows:
            os.fsync(rows.fileno())
        self._write_state(ShardState(batch_size, finished))

    def _write_state(self, state: ShardState) -> None:
        make_folder(self.output.absolute().parent)
        with writing(self.state_file):
            write_json(self.state_file, asdict(state))

    def remove(self) -> None:
        self.state_file.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


@dataclass(frozen=True)
class ShardedRun:
    """A run that writes `output` in `count` shards; `count` may be 1."""

    output: Path
    count: int
    batch_size: int
    """Batch size; a shard takes every nth batch."""
    is_started: bool = False
    """Whether an earlier run has left shards to continue."""

    def shards(self, part: Shard = WHOLE) -> list[RowShard]:
        """The shards that make up `part` of the run; `part.count` divides `count`."""
        factor = self.count // part.count
        return [RowShard(self.output, part.part(number, factor)) for number in range(factor)]


def plan(output: Path, part: Shard, processes: int, batch_size: int, restart: bool) -> ShardedRun:
    """Divide `part` of a run into the shards that an unfinished run has left, else into one for each process.

    A started run keeps its batch size. `restart` ignores the rows of earlier runs; but if `part` is not the whole run,
    other machines may have started the rest, so the number of shards stays. Raises `ImgcapError` if there are shards of
    several runs, or of one that cannot be divided in this way.
    """
    found = [] if restart and part == WHOLE else _shards_of_one_run(output)
    count = found[0].shard.count if found else part.count * processes
    if count % part.count:
        raise ImgcapError(
            f"{output} is divided into {count:,} shards, not {part.count:,}.",
            f"Continue with those, for example with --shard 1/{count}, or remove them.",
        )
    if found and not restart:
        batch_size = _batch_size(found) or batch_size
    return ShardedRun(output, count, batch_size, is_started=bool(found) and not restart)


def remove_shards(output: Path, except_count: int) -> None:
    """Remove the shards of `output`, except those of a run in `except_count` shards.

    Raises `ImgcapError` if one is being written.
    """
    for shard in _find_shards(output):
        if shard.shard.count != except_count:
            with only_writer(shard.file):
                shard.remove()


def merge(output: Path, overwrite: bool = False) -> int:
    """Write the rows of all shards to `output`, in the order of a run without shards, and remove the shards.

    Returns the number of rows. Raises `ImgcapError` if a shard is missing, incomplete, or belongs to another run.
    """
    if output.exists() and not overwrite:
        raise ImgcapError(f"{output} already exists.", "Replace it with --overwrite.")
    found = _shards_of_one_run(output)
    if not found:
        raise ImgcapError(f"{output} has no shards.", "`imgcap caption ... --shard 1/4` and so on write them.")
    shards = ShardedRun(output, found[0].shard.count, 1).shards()
    images, batch_size = _check_complete(output, shards)
    try:
        with only_writer(output), replacing(output) as partial, partial.open("wb") as file:
            for lines in _batches(shards, images, batch_size):
                file.writelines(lines)
    except OSError as error:
        raise ImgcapError(f"The shards of {output} cannot be merged: {reason(error)}.") from None
    for shard in shards:
        shard.remove()
    return images


def _find_shards(output: Path) -> list[RowShard]:
    """The shards of `output` that are started or complete, of any number of runs."""
    if output.suffix.lower() != ".jsonl":
        return []
    name = re.compile(rf"{re.escape(output.stem)}\.([1-9]\d{{0,8}})-of-([1-9]\d{{0,8}})\.\w+", re.ASCII)
    found = set()
    for path in output.absolute().parent.glob(f"{glob.escape(output.stem)}.*-of-*.*"):
        match = name.fullmatch(path.name)
        if not match:
            continue
        number, count = int(match[1]), int(match[2])
        if number <= count and count > 1:
            shard = RowShard(output, Shard(number - 1, count))
            if path.name in (shard.file.name, shard.state_file.name):
                found.add(shard)
    return sorted(found, key=lambda each: (each.shard.count, each.shard.number))


def _shards_of_one_run(output: Path) -> list[RowShard]:
    """The shards of `output`. Raises `ImgcapError` if they belong to runs of different numbers of shards."""
    found = _find_shards(output)
    counts = sorted({each.shard.count for each in found})
    if len(counts) > 1:
        numbers = listing([f"{count:,}" for count in counts])
        raise ImgcapError(f"{output} has shards of several runs: of {numbers}.", "Remove those of the other run.")
    return found


def _batch_size(shards: list[RowShard]) -> int | None:
    """The batch size that `shards` record; None if none does. Raises `ImgcapError` if they differ."""
    states = [(shard, state) for shard in shards if (state := shard.state())]
    for shard, state in states:
        if state.batch_size != states[0][1].batch_size:
            raise _different_runs(states[0][0], shard)
    return states[0][1].batch_size if states else None


def _check_complete(output: Path, shards: list[RowShard]) -> tuple[int, int]:
    """The number of images and the batch size of the run that all `shards` belong to.

    Raises `ImgcapError` if one is incomplete, lacks rows, or belongs to another run.
    """
    finished = {shard: state for shard in shards if (state := shard.finished())}
    if missing := [str(shard.shard) for shard in shards if shard not in finished]:
        subject = (
            f"Shard {missing[0]} of {output} is"
            if len(missing) == 1
            else f"Shards {listing(missing, 10)} of {output} are"
        )
        raise ImgcapError(
            f"{subject} not complete.", f"Run the command that wrote the others with --shard {missing[0]}."
        )
    batch_size = _batch_size(shards) or 1
    first = finished[shards[0]]
    for shard, state in finished.items():
        if (state.images, state.origin) != (first.images, first.origin):
            raise _different_runs(shards[0], shard)
        expected = sum(1 for _ in shard.shard.items(range(first.images), batch_size))
        with shard.file.open("rb") as lines:
            rows = sum(1 for _ in lines)
        if rows != expected or state.rows != expected:
            raise ImgcapError(
                f"{shard.file} has {rows:,} rows instead of {expected:,}.", f"Run shard {shard.shard} again."
            )
    return first.images, batch_size


def _different_runs(one: RowShard, other: RowShard) -> ImgcapError:
    return ImgcapError(
        f"Shards {one.shard} and {other.shard} of {one.output} are from different runs: the images, the model or the "
        "settings have changed.",
        "Remove the older one and run it again.",
    )


def _batches(shards: list[RowShard], images: int, batch_size: int) -> Iterator[list[bytes]]:
    """The lines of each batch in order. Only one file is open at a time: there may be thousands of shards."""
    positions = [0] * len(shards)
    for number in range(-(-images // batch_size)):
        current = number % len(shards)
        with shards[current].file.open("rb") as file:
            file.seek(positions[current])
            lines = list(islice(file, batch_size))
        positions[current] += sum(map(len, lines))
        yield lines
