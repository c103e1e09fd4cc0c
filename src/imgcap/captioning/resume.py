"""Go on with a file of rows that an earlier run has begun."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.captioning.rows import FileState, Row
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import reason, replacing


@dataclass(frozen=True)
class ResumeOptions:
    """What counts as done."""

    by_content: bool = False
    """Whether an image is known by its content, not by its size and time."""
    retry_failed: bool = False
    """Whether images that failed are tried again."""


@dataclass
class DoneRows:
    """What a file of rows holds already: `name in done` for a path."""

    kept: int = 0
    dropped: int = 0
    """Rows of images that have changed since, or failed and are tried again."""
    _names: set[int] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._names

    def add(self, name: str) -> None:
        self.kept += 1
        self._names.add(_key(name))


def take_up(file: Path, origin: dict[str, str], options: ResumeOptions) -> DoneRows:
    """Make the JSON Lines in `file` ready to go on, and tell which images need no caption any more.

    A torn last line, as a kill leaves it, is cut off; rows of images that have changed since are taken out. Raises
    `ImgcapError` if another line is broken, or if rows come from another model or other settings than `origin` says.
    """
    done = DoneRows()
    try:
        judged = list(_judge(file, origin, options, done))
        if done.dropped:
            with replacing(file) as partial, file.open("rb") as old, partial.open("wb") as new:
                new.writelines(line for line, (_, kept) in zip(old, judged) if kept)  # noqa: B905 (not the torn line)
        else:
            os.truncate(file, sum(length for length, _ in judged))
    except OSError as error:
        raise ImgcapError(f"{file} cannot be gone on with: {reason(error)}.") from None
    return done


def _judge(file: Path, origin: dict[str, str], options: ResumeOptions, done: DoneRows) -> Iterator[tuple[int, bool]]:
    """The bytes of each whole line of `file` and whether to keep it; what is kept is added to `done`."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            row = _parse(file, number, line)
            for name, wanted in origin.items():
                if row.get(name) != wanted:
                    raise UsageError(
                        f"{file}, line {number} was written with {name} {row.get(name)!r}, not {wanted!r}.",
                        "Give the model and the options of the earlier run, or another file.",
                    )
            kept = _is_done(row, options)
            if kept:
                done.add(row["path"])
            else:
                done.dropped += 1
            yield len(line), kept


def _parse(file: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise ImgcapError(f"{file}, line {number} is not a row of captions.", "Give another file, or mend that line.")
    return row


def _is_done(row: Row, options: ResumeOptions) -> bool:
    if "error" in row and options.retry_failed:
        return False
    before = FileState.from_row(row)
    if before.bytes is not None and before.modified is None:  # in an archive, where it is known by its name
        return True
    now = FileState.of(row["path"], options.by_content)
    gone = now.bytes is None and "error" not in row  # a caption outlives its image
    return gone or before.same_image(now)


def _key(name: str) -> int:
    """64 bits of a hash: a million names fit into little memory."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
