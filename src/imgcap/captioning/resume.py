"""Resume a run: which images the rows of an earlier run already cover."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from imgcap.captioning.rows import FileState, Origin, Row, read_settings, write_settings
from imgcap.errors import ImgcapError, UsageError, flag
from imgcap.files import reason, replacing


@dataclass(frozen=True)
class ResumeOptions:
    """Which rows of an earlier run count as done."""

    by_content: bool = False
    """Detect changed images by SHA-256, not by size and time of change."""
    retry_failed: bool = False
    """Try images again that failed."""


@dataclass
class DoneRows:
    """The images that a file of rows covers: `path in done`. Takes about 60 bytes an image."""

    kept: int = 0
    dropped: int = 0
    """Rows of images that have changed since, or that failed and are tried again."""
    _names: set[int] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return _hash(name) in self._names

    def add(self, name: str) -> None:
        self.kept += 1
        self._names.add(_hash(name))


def resume(file: Path, origin: Origin, options: ResumeOptions) -> DoneRows:
    """Prepare the JSON Lines in `file` for more rows, and return the images that need no new caption.

    Cuts off an incomplete last line, which a killed process may leave, and removes the rows of images that have changed
    since. Raises `ImgcapError` if another line is invalid, and `UsageError` if a row has another origin.
    """
    done = DoneRows()
    try:
        lines = list(_check_lines(file, origin, options, done))
        if done.dropped:
            with replacing(file) as partial, file.open("rb") as old, partial.open("wb") as new:
                # Without strict: the incomplete last line was not checked.
                new.writelines(line for line, (_, is_kept) in zip(old, lines) if is_kept)  # noqa: B905
        else:
            os.truncate(file, sum(length for length, _ in lines))
    except OSError as error:
        raise ImgcapError(f"{file} cannot be resumed: {reason(error)}.") from None
    return done


def _check_lines(file: Path, origin: Origin, options: ResumeOptions, done: DoneRows) -> Iterator[tuple[int, bool]]:
    """Length in bytes of each complete line of `file`, and whether its row is kept; adds the kept rows to `done`."""
    expected = asdict(origin)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            row = _parse(file, number, line)
            if any(row.get(name) != value for name, value in expected.items()):
                raise UsageError(
                    f"{file}, line {number} was written {_difference(row, origin)}.",
                    "Use the model and the options of the earlier run, or another file.",
                )
            is_kept = _is_done(row, options)
            if is_kept:
                done.add(row["path"])
            else:
                done.dropped += 1
            yield len(line), is_kept


def _difference(row: Row, origin: Origin) -> str:
    """How the model or the settings that `row` comes from differ from `origin`, in words that follow "was written"."""
    model, digest, settings = (row.get(name) for name in asdict(origin))
    if model != origin.model:
        return f"by the model {model!r}, not by {origin.model!r}"
    if digest != origin.model_hash:
        return f"by another model named {model!r}, with the hash {digest!r}, not {origin.model_hash!r}"
    try:
        before, now = read_settings(str(settings)), read_settings(origin.settings)
    except (ValueError, RecursionError):
        before, now = {}, {}
    if (write_settings(before), write_settings(now)) != (settings, origin.settings):  # the row was edited
        return f"with the settings {settings!r}, not {origin.settings!r}"
    was, is_now = (
        " ".join(_as_typed(name, value) for name, value in these.items() if others.get(name) != value)
        for these, others in ((before, now), (now, before))
    )
    if was and is_now:
        return f"with {was}, not with {is_now}"
    return f"with {was}, which this command lacks" if was else f"without {is_now}"


def _as_typed(name: str, value: Any) -> str:
    """An option and its value as in a command."""
    if value is True:
        return flag(name)
    return " ".join(f"{flag(name)} {quote(str(each))}" for each in (value if isinstance(value, list) else [value]))


def _parse(file: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise ImgcapError(f"{file}, line {number} is not a row of captions.", "Use another file, or fix that line.")
    return row


def _is_done(row: Row, options: ResumeOptions) -> bool:
    if "error" in row and options.retry_failed:
        return False
    before = FileState.from_row(row)
    if before.bytes is not None and before.modified is None:  # in an archive: recognised by its name alone
        return True
    now = FileState.of(row["path"], options.by_content)
    is_gone = now.bytes is None and "error" not in row  # the caption of a removed image is kept
    return is_gone or before.same_image(now)


def _hash(name: str) -> int:
    """64 bits of a hash, so that a million names fit into little memory."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
