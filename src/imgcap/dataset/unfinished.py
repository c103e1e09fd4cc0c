"""Features of an unfinished preparation: batch after batch, each safe on disk before it counts.

The features of a batch are flushed first, and a line of `progress.jsonl` second, so that a run that is killed at any
moment resumes after its last complete batch.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from imgcap.dataset.features import FeatureOptions, features_file, rows_by_file
from imgcap.dataset.prepared import ROWS_PER_FILE, Features
from imgcap.errors import ImgcapError
from imgcap.files import flush_folder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.sharding import Shard

PROGRESS_FILE, SHARDS_FOLDER = "progress.jsonl", ".shards"

Failures = list[tuple[int, str]]
"""Images without features: the index in the data set, and why."""


class UnfinishedFeatures:
    """A folder that batches of features are added to."""

    def __init__(self, folder: Path, digest: str, options: FeatureOptions, overwrite: bool) -> None:
        """Start in `folder`, or resume there if it has features of the same inputs, which `digest` stands for.

        Raises `ImgcapError` if it has those of other inputs, unless with `overwrite`.
        """
        self.folder = folder
        self.options = options
        self.views = options.views(folder)
        self.progress = folder / PROGRESS_FILE
        self.done = 0
        """Images that were tried."""
        self.rows = 0
        """Images that have features."""
        self.failed: dict[int, str] = {}
        """Why an image has none, by its index in the data set."""
        self.batches = 0
        self.digest = digest
        rows = self._read_progress()
        same_inputs = rows[:1] == [{"digest": digest}]
        if rows and not same_inputs and not overwrite:
            raise ImgcapError(
                f"{folder} holds an interrupted preparation of other inputs.",
                "Give another folder, or --overwrite.",
            )
        if not same_inputs or not self._resume(rows[1:]):
            self.progress.unlink(missing_ok=True)
            for view in self.views:
                shutil.rmtree(view, ignore_errors=True)
                view.mkdir(parents=True)
            self._append({"digest": digest})
            for changed in (folder, folder.parent):
                flush_folder(changed)

    def _read_progress(self) -> list[dict[str, Any]]:
        """The complete lines of `progress.jsonl`; a torn one after them is cut off."""
        rows, size = _read_progress(self.progress)
        if self.progress.exists():
            os.truncate(self.progress, size)
        return rows

    def _resume(self, rows: list[dict[str, Any]]) -> bool:
        """Continue after the batches in `rows`, and cut off features beyond them. False if the files do not fit."""
        if not all(map(_is_progress, rows)):
            return False
        encoded = rows[-1]["rows"] if rows else 0
        for view in self.views:
            if not view.exists():
                continue  # it has been moved already: the run was killed while it finished
            for number, file_rows in rows_by_file(encoded):
                path, size = features_file(view, number), self._size(file_rows)
                if not path.exists() or path.stat().st_size < size:
                    return False
                os.truncate(path, size)
        self.done, self.rows = (rows[-1]["done"], encoded) if rows else (0, 0)
        self.failed = {int(i): why for row in rows for i, why in row["failed"]}
        self.batches = len(rows)
        return True

    def _size(self, rows: int) -> int:
        """Size in bytes of a file of features."""
        return self.options.header_size + rows * self.options.row_bytes

    def add(self, views: list[Features], tried: int, failed: Failures) -> None:
        """Add a batch of `tried` images: the features in each view, and the images without any."""
        for view, features in zip(self.views, views, strict=True):
            self._add_rows(view, features)
        self.rows += len(views[0])
        self.done += tried
        self.failed.update(failed)
        self.batches += 1
        self._append({"done": self.done, "rows": self.rows, "failed": failed})

    def _add_rows(self, view: Path, features: Features) -> None:
        start, values = 0, self.options.to_disk(features)
        while start < len(values):
            number, place = divmod(self.rows + start, ROWS_PER_FILE)
            part = values[start : start + ROWS_PER_FILE - place]
            with features_file(view, number).open("ab") as file:
                if place == 0:
                    file.truncate(0)
                    self.options.write_header(file, 0)
                file.write(part.tobytes())
                _flush(file)
            if place == 0:
                flush_folder(view)
            start += len(part)

    def move_to(self, out: Path) -> None:
        """Give every file its final header, and move the views to `out`."""
        for view in self.views:
            if view.exists():  # else it was moved before the run was killed
                for number, rows in rows_by_file(self.rows):
                    with features_file(view, number).open("rb+") as file:
                        self.options.write_header(file, rows)
                        _flush(file)
                shutil.rmtree(out / view.name, ignore_errors=True)
                view.rename(out / view.name)

    def _append(self, row: object) -> None:
        with self.progress.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            _flush(file)


class ShardBatches:
    """The batches that shards of the same inputs have encoded; their files are only read."""

    def __init__(self, out: Path, digest: str, options: FeatureOptions) -> None:
        self._options = options
        self._batches: dict[int, tuple[list[Path], int, dict[str, Any]]] = {}
        """By number of the batch: the folders of the views, its first row there, and its line of progress."""
        for folder in sorted((out / SHARDS_FOLDER).glob("*-of-*")):
            number, _, count = folder.name.partition("-of-")
            lines, _ = _read_progress(folder / PROGRESS_FILE)
            rows = lines[1:]
            if lines[:1] != [{"digest": digest}] or not all(map(_is_progress, rows)):
                continue
            shard, first = Shard.parse(f"{number}/{count}"), 0
            for i, row in enumerate(rows):
                self._batches[shard.number + i * shard.count] = options.views(folder), first, row
                first = row["rows"]

    def __contains__(self, batch: int) -> bool:
        return batch in self._batches

    def read(self, batch: int) -> tuple[list[Features], Failures]:
        """The features of a batch in each view, and the images without any."""
        views, first, row = self._batches[batch]
        return [self._rows(view, first, row["rows"]) for view in views], [(i, why) for i, why in row["failed"]]

    def _rows(self, view: Path, first: int, end: int) -> Features:
        """Rows `first` to `end` of unfinished features, (end - first, 2048)."""
        parts = [np.empty((0, FEATURE_SIZE), np.float32)]
        while first < end:
            number, place = divmod(first, ROWS_PER_FILE)
            rows = min(end - first, ROWS_PER_FILE - place)
            offset = self._options.header_size + place * self._options.row_bytes
            file, values = features_file(view, number), rows * FEATURE_SIZE
            part = np.fromfile(file, self._options.on_disk, values, offset=offset)
            parts.append(part.reshape(rows, FEATURE_SIZE).astype(np.float32))
            first += rows
        return np.concatenate(parts)


def _read_progress(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The complete lines of `progress.jsonl`, and their size in bytes."""
    rows, size = [], 0
    for line in file.read_bytes().splitlines(keepends=True) if file.exists() else ():
        try:
            rows.append(json.loads(line if line.endswith(b"\n") else b""))
        except (ValueError, RecursionError):
            break
        size += len(line)
    return rows, size


def _is_progress(row: Any) -> bool:
    """Whether `UnfinishedFeatures.add` may have written this line of `progress.jsonl`."""
    counts = (row.get("done"), row.get("rows")) if isinstance(row, dict) else ()
    failed = row.get("failed") if counts else None
    return (
        isinstance(failed, list)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(pair, list) and list(map(type, pair)) == [int, str] for pair in failed)
    )


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
