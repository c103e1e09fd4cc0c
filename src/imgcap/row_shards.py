"""A run of `imgcap caption` in shards: a file of rows for each, and the one of the whole run when all are done.

Shard 2 of 4 of `rows.jsonl` is `rows.2-of-4.jsonl`; `rows.2-of-4.done` beside it says that it is complete, and of what.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from imgcap.errors import ImgcapError, listing
from imgcap.files import only_writer, read_json, reason, replacing, write_json
from imgcap.sharding import Shard


@dataclass(frozen=True)
class Finished:
    """What a complete shard is a share of."""

    pictures: int
    """Pictures of the whole run."""
    batch_size: int
    rows: int
    """Pictures of this shard."""
    origin: dict[str, str]
    """Model and settings, as they stand in each row."""


@dataclass(frozen=True)
class RowShard:
    """The rows of a shard of the run that writes `output`."""

    output: Path
    shard: Shard

    @property
    def file(self) -> Path:
        return self._beside(self.output.suffix)

    @property
    def marker(self) -> Path:
        return self._beside(".done")

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(f"{self.output.stem}.{self.shard.file_name}{suffix}")

    @property
    def is_complete(self) -> bool:
        return self.marker.exists()

    def siblings(self) -> list[RowShard]:
        """All shards of the run."""
        return [RowShard(self.output, Shard(number, self.shard.count)) for number in range(self.shard.count)]

    def finish(self, finished: Finished) -> None:
        """Say that all rows of the shard are written. Raises `ImgcapError`."""
        try:
            with self.file.open("rb+") as rows:
                os.fsync(rows.fileno())
            write_json(self.marker, asdict(finished))
        except OSError as error:
            raise ImgcapError(f"{self.marker} cannot be written: {reason(error)}.") from None

    def finished(self) -> Finished:
        """What was said of the complete shard. Raises `ImgcapError`."""
        try:
            return Finished(**read_json(self.marker))
        except TypeError:
            raise ImgcapError(f"{self.marker} is damaged.", f"Run shard {self.shard} again.") from None


def merge(output: Path, overwrite: bool = False) -> int:
    """Write the rows of all shards of `output` to it, in the order of a run without shards, and remove the shards.

    Returns the number of rows. Raises `ImgcapError` if a shard is missing, not complete, or of another run.
    """
    if output.exists() and not overwrite:
        raise ImgcapError(f"{output} is there already.", "Replace it with --overwrite.")
    shards = _find(output)
    finished = _check(output, shards)
    try:
        with only_writer(output), replacing(output) as partial, partial.open("wb") as file:
            for lines in _batches(shards, finished):
                file.writelines(lines)
    except OSError as error:
        raise ImgcapError(f"The shards of {output} cannot be put together: {reason(error)}.") from None
    for shard in shards:
        shard.marker.unlink(missing_ok=True)
        shard.file.unlink(missing_ok=True)
    return finished.pictures


def _find(output: Path) -> list[RowShard]:
    """All shards of `output`, in their order. Raises `ImgcapError` unless each is complete."""
    name = re.compile(rf"{re.escape(output.stem)}\.(\d+)-of-(\d+)(?:\.done|{re.escape(output.suffix)})", re.ASCII)
    names = (path.name for path in output.absolute().parent.glob(f"{glob.escape(output.stem)}.*-of-*"))
    counts = {int(match[2]) for match in map(name.fullmatch, names) if match}
    if not counts:
        raise ImgcapError(f"There are no shards of {output}.", "`imgcap caption ... --shard 1/4` and so on write them.")
    if len(counts) > 1:
        several = listing([f"{count:,}" for count in sorted(counts)])
        raise ImgcapError(f"There are shards of {output} out of {several}.", "Remove those of the other run.")
    shards = RowShard(output, Shard(0, counts.pop())).siblings()
    missing = [str(shard.shard) for shard in shards if not shard.is_complete]
    if missing:
        raise ImgcapError(
            f"Of the shards of {output}, {listing(missing[:10])} {'is' if len(missing) == 1 else 'are'} not complete"
            + f", and {len(missing) - 10:,} more" * (len(missing) > 10)
            + ".",
            f"The command that wrote the others goes on with --shard {missing[0]}.",
        )
    return shards


def _check(output: Path, shards: list[RowShard]) -> Finished:
    """What all `shards` say they are a share of. Raises `ImgcapError` if they differ, or one lacks rows."""
    first = shards[0].finished()
    for shard in shards:
        finished = shard.finished()
        if (finished.pictures, finished.batch_size, finished.origin) != (
            first.pictures,
            first.batch_size,
            first.origin,
        ):
            raise ImgcapError(
                f"Shards {shards[0].shard} and {shard.shard} of {output} are of different runs: pictures, model or "
                "settings have changed.",
                "Remove the older one and run it again.",
            )
        wanted = sum(1 for _ in shard.shard.items(range(first.pictures), first.batch_size))
        with shard.file.open("rb") as lines:
            rows = sum(1 for _ in lines)
        if rows != wanted or finished.rows != wanted:
            raise ImgcapError(
                f"{shard.file} holds {rows:,} rows instead of {wanted:,}.", f"Run shard {shard.shard} again."
            )
    return first


def _batches(shards: list[RowShard], finished: Finished) -> Iterator[list[bytes]]:
    """The lines of one batch after the other; a file is open only while it is read, as there may be thousands."""
    places = [0] * len(shards)
    for number in range(-(-finished.pictures // finished.batch_size)):
        which = number % len(shards)
        with shards[which].file.open("rb") as file:
            file.seek(places[which])
            lines = list(islice(file, finished.batch_size))
        places[which] += sum(map(len, lines))
        yield lines
