"""Encode a data set into a prepared folder, in one run or in shards, resumable at any moment.

Until the folder is complete, everything lives in its sub-folder `.partial`. After each batch the features reach the
disk first and a line of `progress.jsonl` second, so that a run killed at any moment goes on after its last whole batch.
Batches are the same in an interrupted and in an uninterrupted run, and so are the bytes.

A shard keeps its batches in a sub-folder of `.shards`, such as `.shards/2-of-4`, in the same way. The run that puts
shards together copies from there what it finds, and encodes the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from imgcap.dataset.prepared import (
    DTYPES,
    FEATURES_FOLDER,
    FORMAT_VERSION,
    LEFT_OUT_FILE,
    METADATA_FILE,
    MIRRORED_FOLDER,
    PARTIAL_FOLDER,
    RECORDS_FILE,
    RECORDS_INDEX_FILE,
    ROWS_PER_FILE,
    Features,
    PreparedFolder,
    PreparedMetadata,
    read_metadata,
    write_records,
)
from imgcap.dataset.readers import SPLITS, Dataset, LeftOut
from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.files import (
    flush_folder,
    make_folder,
    only_writer,
    reason,
    replacing,
    write_json,
    write_json_lines,
)
from imgcap.images.archives import ArchivedFile
from imgcap.images.decoding import BATCH_SIZE, load_batches
from imgcap.model.encoder import Encoder, EncoderConfig, fingerprint
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.store import ENCODER_FILE
from imgcap.sharding import WHOLE, Shard

PROGRESS_FILE, SHARDS_FOLDER = "progress.jsonl", ".shards"


@dataclass(frozen=True)
class FeatureOptions:
    """What is written of each image."""

    mirrored: bool = False
    """Whether the features of the mirrored image are as well."""
    dtype: str = "float32"
    """float32, or float16 for half the disk: what is read is float32 again, with 11 significant bits."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"Features cannot be {self.dtype!r}.", f"Use {' or '.join(DTYPES)}.")

    def views(self, folder: Path) -> list[Path]:
        """Where in `folder` the features of each view are."""
        return [folder / FEATURES_FOLDER, folder / MIRRORED_FOLDER][: 1 + self.mirrored]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a view."""
        return FEATURE_SIZE * self.on_disk.itemsize

    @property
    def on_disk(self) -> np.dtype[np.floating[Any]]:
        """The type of a feature in a file: little-endian, whatever the machine."""
        return np.dtype({"float32": "<f4", "float16": "<f2"}[self.dtype])

    def write_header(self, file: BinaryIO, rows: int) -> None:
        """Write the head of a .npy file; NumPy pads it so that the number of rows can grow in place."""
        header = {"descr": self.on_disk.str, "fortran_order": False, "shape": (rows, FEATURE_SIZE)}
        np.lib.format.write_array_header_1_0(file, header)

    @property
    def header_size(self) -> int:
        """Bytes of that head."""
        header = io.BytesIO()
        self.write_header(header, ROWS_PER_FILE)
        return header.tell()


PLAIN = FeatureOptions()
"""Images as they are, in float32."""


def prepare(
    dataset: Dataset,
    encoder_file: Path,
    encoder: Encoder,
    encoder_name: str,
    out: Path,
    options: FeatureOptions = PLAIN,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> PreparedFolder:
    """Encode the images of `dataset` into the folder `out`, going on where an interrupted run stopped.

    Images that cannot be decoded are left out and listed. `on_progress(done, total)` counts images. A folder that
    is complete already, from the same inputs, is returned as it is; one from other inputs needs `overwrite`, and is
    kept until the new one is whole; so does one with other things under the names used here. Raises `ImgcapError`, also
    if another process is preparing the same folder.
    """
    encoder_id = fingerprint(encoder_file)
    digest = _digest(dataset, encoder_id, options)
    make_folder(out)
    with only_writer(out):
        if not overwrite and _is_complete(out, digest):
            return PreparedFolder(out)
        with _told(out):
            work = _Work(out / PARTIAL_FOLDER, digest, options, overwrite)
            _encode(work, WHOLE, dataset, encoder, _FinishedBatches(out, digest, options), on_progress)
            _finish(work, dataset, encoder_file, encoder.config, encoder_name, encoder_id, out)
    return PreparedFolder(out)


def prepare_shard(
    dataset: Dataset,
    encoder_file: Path,
    encoder: Encoder,
    out: Path,
    shard: Shard,
    options: FeatureOptions = PLAIN,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Encode the images of `shard`, for `prepare` with the same arguments to put together; goes on where it stopped.

    Any number of shards can be at work on the same folder, on machines that share it. Raises `ImgcapError`.
    """
    digest = _digest(dataset, fingerprint(encoder_file), options)
    folder = out / SHARDS_FOLDER / shard.file_name
    if not overwrite and _is_complete(out, digest):
        return
    make_folder(folder)
    with only_writer(folder), _told(out):
        work = _Work(folder, digest, options, overwrite)
        _encode(work, shard, dataset, encoder, _FinishedBatches(out, digest, options), on_progress)


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """What the system says is an `ImgcapError`."""
    try:
        yield
    except OSError as error:
        raise ImgcapError(
            f"{out} cannot be written: {reason(error)}.", "What is there is kept: run again to go on."
        ) from None


def _is_complete(out: Path, digest: str) -> bool:
    """Whether `out` is prepared from the inputs that `digest` stands for. Raises `ImgcapError` if it holds others."""
    partial = out / PARTIAL_FOLDER
    if (out / METADATA_FILE).exists():
        if read_metadata(out).digest != digest:
            raise ImgcapError(f"{out} is prepared from other inputs.", "Give another folder, or --overwrite.")
        if not (partial / FEATURES_FOLDER).exists():  # a run that was killed in its last step leaves this
            shutil.rmtree(partial, ignore_errors=True)
        return True
    names = (FEATURES_FOLDER, MIRRORED_FOLDER, RECORDS_FILE, RECORDS_INDEX_FILE, LEFT_OUT_FILE, ENCODER_FILE)
    foreign = [name for name in names if (out / name).exists()]
    if foreign and not partial.exists():
        raise ImgcapError(
            f"{out} is not a prepared folder, but holds {listing(foreign)}.", "Give another folder, or --overwrite."
        )
    return False


def _digest(dataset: Dataset, encoder_fingerprint: str, options: FeatureOptions) -> str:
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(json.dumps(values).encode() + b"\n")

    add(FORMAT_VERSION, BATCH_SIZE, encoder_fingerprint, dataset.location)
    if options.mirrored:
        add(MIRRORED_FOLDER)
    if options.dtype != PLAIN.dtype:
        add(options.dtype)
    for record in dataset.records:
        stamp = _stamp(dataset.source(record))
        add(record.image_id, record.path, record.captions, record.split, stamp)
    for left_out in dataset.left_out:
        add(left_out.name, left_out.reason)
    return digest.hexdigest()


def _stamp(image: Path | ArchivedFile) -> tuple[int | str, ...] | None:
    """Size and time of the last change; None for an image that cannot be read, which will be left out."""
    if isinstance(image, ArchivedFile):
        return *image.archive.stamp, image.offset, image.size
    try:
        stat = image.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class _Work:
    """Unfinished features in a folder of their own: batches are added, each durable before it is counted."""

    def __init__(self, folder: Path, digest: str, options: FeatureOptions, overwrite: bool) -> None:
        self.folder = folder
        self.options = options
        self.views = options.views(folder)
        self.progress = folder / PROGRESS_FILE
        self.done = 0
        """Images that were tried."""
        self.rows = 0
        """Images that have features."""
        self.failed: dict[int, str] = {}
        """Why an image has none, by its place in the data set."""
        self.ends: list[int] = []
        """Images that had features after each batch."""
        self.digest = digest
        rows = self._read_progress()
        same_inputs = rows[:1] == [{"digest": digest}]
        if rows and not same_inputs and not overwrite:
            raise ImgcapError(
                f"{folder} holds an interrupted preparation of other inputs.",
                "Give another folder, or --overwrite.",
            )
        if not same_inputs or not self._take_up(rows[1:]):
            self.progress.unlink(missing_ok=True)
            for view in self.views:
                shutil.rmtree(view, ignore_errors=True)
                view.mkdir(parents=True)
            self._append({"digest": digest})
            for changed in (folder, folder.parent):
                flush_folder(changed)

    def _read_progress(self) -> list[dict[str, Any]]:
        """The whole lines of `progress.jsonl`; what follows them is torn, and is cut off."""
        rows, size = _read_progress(self.progress)
        if self.progress.exists():
            os.truncate(self.progress, size)
        return rows

    def _take_up(self, rows: list[dict[str, Any]]) -> bool:
        """Go on after `rows` of progress; features beyond them are cut off. False if they do not fit."""
        if not all(map(_is_progress, rows)):
            return False
        encoded = rows[-1]["rows"] if rows else 0
        for view in self.views:
            if not view.exists():
                continue  # it is in its place already, and only `_finish` is left to do
            for number, file_rows in _rows_by_file(encoded):
                path, size = _features_file(view, number), self._size(file_rows)
                if not path.exists() or path.stat().st_size < size:
                    return False
                os.truncate(path, size)
        self.done, self.rows = (rows[-1]["done"], encoded) if rows else (0, 0)
        self.failed = {int(i): why for row in rows for i, why in row["failed"]}
        self.ends = [row["rows"] for row in rows]
        return True

    def _size(self, rows: int) -> int:
        """Bytes of a file of features."""
        return self.options.header_size + rows * self.options.row_bytes

    def add(self, views: list[Features], tried: int, failed: list[tuple[int, str]]) -> None:
        for view, features in zip(self.views, views, strict=True):
            self._add_rows(view, features)
        self.rows += len(views[0])
        self.done += tried
        self.failed.update(failed)
        self.ends.append(self.rows)
        self._append({"done": self.done, "rows": self.rows, "failed": failed})

    def _add_rows(self, view: Path, features: Features) -> None:
        start, values = 0, self._on_disk(features)
        while start < len(values):
            number, place = divmod(self.rows + start, ROWS_PER_FILE)
            part = values[start : start + ROWS_PER_FILE - place]
            with _features_file(view, number).open("ab") as file:
                if place == 0:
                    file.truncate(0)
                    self.options.write_header(file, 0)
                file.write(part.tobytes())
                _flush(file)
            if place == 0:
                flush_folder(view)
            start += len(part)

    def _on_disk(self, features: Features) -> npt.NDArray[np.floating[Any]]:
        """Features as they are written. Raises `ImgcapError` if they are too large for their type."""
        try:
            with np.errstate(over="raise"):
                return features.astype(self.options.on_disk, copy=False)
        except FloatingPointError:
            raise ImgcapError(
                f"Features of this encoder are too large for {self.options.dtype}.",
                "Prepare with --dtype float32 --overwrite.",
            ) from None

    def move_to(self, out: Path) -> None:
        """Give every file its final header, and move them all to `out`."""
        for view in self.views:
            if view.exists():  # else it was moved before the run was killed
                for number, rows in _rows_by_file(self.rows):
                    with _features_file(view, number).open("rb+") as file:
                        self.options.write_header(file, rows)
                        _flush(file)
                shutil.rmtree(out / view.name, ignore_errors=True)
                view.rename(out / view.name)

    def _append(self, row: object) -> None:
        with self.progress.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            _flush(file)


class _FinishedBatches:
    """Batches that other processes have encoded, each as a shard of the same inputs; nothing of theirs is changed."""

    def __init__(self, out: Path, digest: str, options: FeatureOptions) -> None:
        self._options = options
        self._batches: dict[int, tuple[list[Path], int, dict[str, Any]]] = {}
        """By number: the folders of the views, the first row, and the line of progress."""
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

    def read(self, batch: int) -> tuple[list[Features], list[tuple[int, str]]]:
        """The features of a batch in each view, and which images failed."""
        views, first, row = self._batches[batch]
        return [self._rows(view, first, row["rows"]) for view in views], [(i, why) for i, why in row["failed"]]

    def _rows(self, view: Path, first: int, end: int) -> Features:
        """Rows `first` to `end` of unfinished features."""
        parts = [np.empty((0, FEATURE_SIZE), np.float32)]
        while first < end:
            number, place = divmod(first, ROWS_PER_FILE)
            rows = min(end - first, ROWS_PER_FILE - place)
            offset = self._options.header_size + place * self._options.row_bytes
            file, values = _features_file(view, number), rows * FEATURE_SIZE
            part = np.fromfile(file, self._options.on_disk, values, offset=offset)
            parts.append(part.reshape(rows, FEATURE_SIZE).astype(np.float32))
            first += rows
        return np.concatenate(parts)


def _read_progress(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of `progress.jsonl`, and their bytes; what follows them is torn."""
    rows, size = [], 0
    for line in file.read_bytes().splitlines(keepends=True) if file.exists() else ():
        try:
            rows.append(json.loads(line if line.endswith(b"\n") else b""))
        except (ValueError, RecursionError):
            break
        size += len(line)
    return rows, size


def _is_progress(row: Any) -> bool:
    """Whether a line of `progress.jsonl` is one that `_Work.add` may have written."""
    counts = (row.get("done"), row.get("rows")) if isinstance(row, dict) else ()
    failed = row.get("failed") if counts else None
    return (
        isinstance(failed, list)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(pair, list) and list(map(type, pair)) == [int, str] for pair in failed)
    )


def _features_file(view: Path, number: int) -> Path:
    return view / f"{number:05}.npy"


def _rows_by_file(rows: int) -> Iterator[tuple[int, int]]:
    for number in range(-(-rows // ROWS_PER_FILE)):
        yield number, min(ROWS_PER_FILE, rows - number * ROWS_PER_FILE)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _encode(
    work: _Work,
    shard: Shard,
    dataset: Dataset,
    encoder: Encoder,
    finished: _FinishedBatches,
    on_progress: Callable[[int, int], None],
) -> None:
    """Add the batches of `shard` that are not there yet; those in `finished` need no encoding."""

    def images(batch: int) -> range:
        return range(batch * BATCH_SIZE, min((batch + 1) * BATCH_SIZE, len(dataset.records)))

    batches = shard.of(range(-(-len(dataset.records) // BATCH_SIZE)))
    left, total = batches[len(work.ends) :], sum(len(images(batch)) for batch in batches)
    sources = (dataset.source(dataset.records[i]) for batch in left if batch not in finished for i in images(batch))
    decoded = load_batches(sources, encoder.config.pixels, BATCH_SIZE)
    on_progress(work.done, total)
    for batch in left:
        if batch in finished:
            features, failed = finished.read(batch)
        else:
            results = dict(zip(images(batch), next(decoded), strict=True))
            failed = [(i, str(result)) for i, result in results.items() if isinstance(result, ImgcapError)]
            good = [result for result in results.values() if not isinstance(result, ImgcapError)]
            views = [good, [pixels[:, ::-1] for pixels in good]][: len(work.views)]
            features = [encoder(view).numpy() if view else np.empty((0, FEATURE_SIZE), np.float32) for view in views]
        work.add(features, len(images(batch)), failed)
        on_progress(work.done, total)


def _finish(
    work: _Work,
    dataset: Dataset,
    encoder_file: Path,
    encoder_config: EncoderConfig,
    encoder_name: str,
    encoder_fingerprint: str,
    out: Path,
) -> None:
    """Move the finished features out of `.partial` and write the rest around them, the metadata last."""
    if not work.rows:
        shutil.rmtree(work.folder)
        raise ImgcapError(
            f"None of the {len(dataset.records):,} images could be decoded.", f"The first: {work.failed[0]}"
        )
    (out / METADATA_FILE).unlink(missing_ok=True)
    flush_folder(out)  # never the old metadata beside other features
    work.move_to(out)
    if not work.options.mirrored:
        shutil.rmtree(out / MIRRORED_FOLDER, ignore_errors=True)
    records = [record for i, record in enumerate(dataset.records) if i not in work.failed]
    failed = [LeftOut(dataset.records[i].path, why) for i, why in work.failed.items()]
    left_out = [*dataset.left_out, *failed]
    write_records(out, records)
    write_json_lines(out / LEFT_OUT_FILE, map(asdict, left_out))
    with replacing(out / ENCODER_FILE) as partial:
        shutil.copyfile(encoder_file, partial)
    splits = [record.split or "none" for record in records]
    metadata = PreparedMetadata(
        format_version=FORMAT_VERSION,
        digest=work.digest,
        image_root=dataset.location,
        encoder=encoder_name,
        encoder_fingerprint=encoder_fingerprint,
        encoder_config=encoder_config,
        images=len(records),
        captions=sum(len(record.captions) for record in records),
        splits={split: splits.count(split) for split in (*SPLITS, "none")},
        left_out=len(left_out),
        mirrored=work.options.mirrored,
        archives=dataset.archives,
    )
    write_json(out / METADATA_FILE, asdict(metadata))
    shutil.rmtree(work.folder)
    shutil.rmtree(out / SHARDS_FOLDER, ignore_errors=True)
