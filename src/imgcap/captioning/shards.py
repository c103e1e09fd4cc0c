"""A run of `imgcap caption` in shards: a file of rows for each, and the one of the whole run when all are done.

Shard 2 of 4 of `rows.jsonl` is `rows.2-of-4.jsonl`; `rows.2-of-4.shard` beside it says what it is a share of, and
whether it is complete.
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

from imgcap.errors import ImgcapError, listing
from imgcap.files import current_keys, make_folder, only_writer, read_json, reason, replacing, write_json
from imgcap.sharding import WHOLE, Shard


@dataclass(frozen=True)
class Finished:
    """What a complete shard is a share of."""

    images: int
    """Images of the whole run."""
    names: str
    """SHA-256 of their names, in their order."""
    rows: int
    """Images of this shard."""
    origin: dict[str, str]
    """Model and settings, as they stand in each row."""

    def __post_init__(self) -> None:
        if not isinstance(self.images, int):
            raise TypeError(self.images)


@dataclass(frozen=True)
class ShardState:
    """What is said of a shard in the file beside its rows."""

    batch_size: int
    """Of all batches of so many images, the shard has every n-th."""
    finished: Finished | None = None
    """None until the shard is complete."""

    @classmethod
    def from_json(cls, said: Any) -> ShardState:
        """Raises `KeyError`, `TypeError` or `ValueError` for what is no state."""
        batch_size, finished = said["batch_size"], said["finished"]
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(batch_size)
        return cls(batch_size, None if finished is None else Finished(**current_keys(finished)))


@dataclass(frozen=True)
class RowShard:
    """The rows of a shard of the run that writes `output`."""

    output: Path
    shard: Shard

    @property
    def file(self) -> Path:
        return self._beside(self.output.suffix)

    @property
    def state_file(self) -> Path:
        return self._beside(".shard")

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(f"{self.output.stem}.{self.shard.file_name}{suffix}")

    def state(self) -> ShardState | None:
        """What was said of the shard when it was begun or finished, if it was. Raises `ImgcapError`."""
        if not self.state_file.exists():
            return None
        said = read_json(self.state_file)
        try:
            return ShardState.from_json(said)
        except (KeyError, TypeError, ValueError):
            raise ImgcapError(
                f"{self.state_file} is damaged.", f"Remove it, and run shard {self.shard} again."
            ) from None

    def finished(self) -> Finished | None:
        """What the shard is a share of, if it is complete. Raises `ImgcapError`."""
        state = self.state()
        return state.finished if state and self.file.exists() else None

    def begin(self, batch_size: int) -> None:
        """Say of what batches the shard has its share, and that it is not complete. Raises `ImgcapError`."""
        self._say(ShardState(batch_size))

    def finish(self, batch_size: int, finished: Finished) -> None:
        """Say that all rows of the shard are written. Raises `ImgcapError`."""
        try:
            with self.file.open("rb+") as rows:
                os.fsync(rows.fileno())
        except OSError as error:
            raise ImgcapError(f"{self.file} cannot be written: {reason(error)}.") from None
        self._say(ShardState(batch_size, finished))

    def _say(self, state: ShardState) -> None:
        make_folder(self.output.absolute().parent)
        try:
            write_json(self.state_file, asdict(state))
        except OSError as error:
            raise ImgcapError(f"{self.state_file} cannot be written: {reason(error)}.") from None

    def remove(self) -> None:
        self.state_file.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


@dataclass(frozen=True)
class ShardedRun:
    """A run that writes `output` in `count` shards of batches of `batch_size` images; `count` may be 1."""

    output: Path
    count: int
    batch_size: int
    begun: bool = False
    """Whether an earlier run has left shards of it."""

    def shards(self, share: Shard = WHOLE) -> list[RowShard]:
        """The shards that `share` of the run consists of; `share.count` divides their number."""
        parts = self.count // share.count
        return [RowShard(self.output, share.part(number, parts)) for number in range(parts)]


def plan(output: Path, share: Shard, processes: int, batch_size: int, anew: bool) -> ShardedRun:
    """How `share` of a run is done: in the shards that an unfinished run has left, else in one for each process.

    What has been begun keeps the size of its batches. With `anew` nothing is gone on with; but of a `share`, other
    machines may have begun the rest, whose number holds. Raises `ImgcapError` if shards of several runs are there, or
    of one that has no such share.
    """
    begun = [] if anew and share == WHOLE else _one_run(output)
    count = begun[0].shard.count if begun else share.count * processes
    if count % share.count:
        raise ImgcapError(
            f"There are shards of {output} out of {count:,}, not {share.count:,}.",
            f"Go on with those, such as --shard 1/{count}, or remove them.",
        )
    if begun and not anew:
        batch_size = _batch_size(begun) or batch_size
    return ShardedRun(output, count, batch_size, begun=bool(begun) and not anew)


def remove_shards(output: Path, but: int) -> None:
    """Remove the shards of `output` that are not out of `but`. Raises `ImgcapError` if one is being written."""
    for shard in _find(output):
        if shard.shard.count != but:
            with only_writer(shard.file):
                shard.remove()


def merge(output: Path, overwrite: bool = False) -> int:
    """Write the rows of all shards of `output` to it, in the order of a run without shards, and remove the shards.

    Returns the number of rows. Raises `ImgcapError` if a shard is missing, not complete, or of another run.
    """
    if output.exists() and not overwrite:
        raise ImgcapError(f"{output} is there already.", "Replace it with --overwrite.")
    begun = _one_run(output)
    if not begun:
        raise ImgcapError(f"There are no shards of {output}.", "`imgcap caption ... --shard 1/4` and so on write them.")
    shards = ShardedRun(output, begun[0].shard.count, 1).shards()
    images, batch_size = _check(output, shards)
    try:
        with only_writer(output), replacing(output) as partial, partial.open("wb") as file:
            for lines in _batches(shards, images, batch_size):
                file.writelines(lines)
    except OSError as error:
        raise ImgcapError(f"The shards of {output} cannot be put together: {reason(error)}.") from None
    for shard in shards:
        shard.remove()
    return images


def _find(output: Path) -> list[RowShard]:
    """The shards of `output` that are begun or complete, of whatever runs."""
    if output.suffix.lower() != ".jsonl":
        return []
    name = re.compile(rf"{re.escape(output.stem)}\.([1-9]\d{{0,8}})-of-([1-9]\d{{0,8}})\.\w+", re.ASCII)
    found = set()
    for path in output.absolute().parent.glob(f"{glob.escape(output.stem)}.*-of-*.*"):
        number, count = map(int, match.groups()) if (match := name.fullmatch(path.name)) else (0, 0)
        if number <= count > 1:
            shard = RowShard(output, Shard(number - 1, count))
            if path.name in (shard.file.name, shard.state_file.name):
                found.add(shard)
    return sorted(found, key=lambda each: (each.shard.count, each.shard.number))


def _one_run(output: Path) -> list[RowShard]:
    """The shards that `_find` finds. Raises `ImgcapError` if they are not all out of one number."""
    found = _find(output)
    counts = sorted({each.shard.count for each in found})
    if len(counts) > 1:
        several = listing([f"{count:,}" for count in counts])
        raise ImgcapError(f"There are shards of {output} out of {several}.", "Remove those of the other run.")
    return found


def _batch_size(shards: list[RowShard]) -> int | None:
    """The size of the batches that `shards` are begun with, if any says so. Raises `ImgcapError` if they differ."""
    states = [(shard, state) for shard in shards if (state := shard.state())]
    for shard, state in states:
        if state.batch_size != states[0][1].batch_size:
            raise _different_runs(states[0][0], shard)
    return states[0][1].batch_size if states else None


def _check(output: Path, shards: list[RowShard]) -> tuple[int, int]:
    """The images and the batch size of the run that all `shards` are of.

    Raises `ImgcapError` if one is not complete, lacks rows, or is of another run.
    """
    finished = {shard: said for shard in shards if (said := shard.finished())}
    if missing := [str(shard.shard) for shard in shards if shard not in finished]:
        raise ImgcapError(
            f"Of the shards of {output}, {listing(missing[:10])} {'is' if len(missing) == 1 else 'are'} not complete"
            + f", and {len(missing) - 10:,} more" * (len(missing) > 10)
            + ".",
            f"The command that wrote the others goes on with --shard {missing[0]}.",
        )
    batch_size = _batch_size(shards) or 1
    first = finished[shards[0]]
    for shard, said in finished.items():
        if (said.images, said.origin) != (first.images, first.origin):
            raise _different_runs(shards[0], shard)
        wanted = sum(1 for _ in shard.shard.items(range(first.images), batch_size))
        with shard.file.open("rb") as lines:
            rows = sum(1 for _ in lines)
        if rows != wanted or said.rows != wanted:
            raise ImgcapError(
                f"{shard.file} holds {rows:,} rows instead of {wanted:,}.", f"Run shard {shard.shard} again."
            )
    return first.images, batch_size


def _different_runs(one: RowShard, other: RowShard) -> ImgcapError:
    return ImgcapError(
        f"Shards {one.shard} and {other.shard} of {one.output} are of different runs: images, model or settings have "
        "changed.",
        "Remove the older one and run it again.",
    )


def _batches(shards: list[RowShard], images: int, batch_size: int) -> Iterator[list[bytes]]:
    """The lines of one batch after the other; a file is open only while it is read, as there may be thousands."""
    places = [0] * len(shards)
    for number in range(-(-images // batch_size)):
        which = number % len(shards)
        with shards[which].file.open("rb") as file:
            file.seek(places[which])
            lines = list(islice(file, batch_size))
        places[which] += sum(map(len, lines))
        yield lines
