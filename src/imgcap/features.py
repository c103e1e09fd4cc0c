"""The prepared folder: the features of a data set's pictures, computed once, beside its captions.

    prepared.json         what this is: encoder, counts, digest of the inputs; written last
    encoder.safetensors   the encoder that the features came from
    records.jsonl         one captioned picture a line, in the order of the feature rows
    left_out.jsonl        what the data set names that is not in here, and why
    features/00000.npy    float32 (rows, 2048), 65,536 rows in each file but the last
    mirrored/00000.npy    the same of the mirrored pictures, if they were asked for: a second view to train on

Until it is complete, everything lives in the sub-folder `.partial`. After each batch the features reach the disk first
and a line of `progress.jsonl` second, so that a run killed at any moment goes on after its last whole batch. Batches
are the same in an interrupted and in an uninterrupted run, and so are the bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from imgcap.datasets import SPLITS, Dataset, LeftOut, Record
from imgcap.encoder import Encoder, EncoderConfig, fingerprint
from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.files import make_folder, read_json, read_json_lines, reason, replacing, write_json, write_json_lines
from imgcap.images import BATCH_SIZE, load_batches
from imgcap.inception import FEATURE_SIZE
from imgcap.model_store import ENCODER_FILE

FORMAT_VERSION = 1
ROWS_PER_FILE = 65_536
METADATA_FILE, RECORDS_FILE, LEFT_OUT_FILE = "prepared.json", "records.jsonl", "left_out.jsonl"
FEATURES_FOLDER, MIRRORED_FOLDER, PARTIAL_FOLDER, PROGRESS_FILE = "features", "mirrored", ".partial", "progress.jsonl"

_ROW_BYTES = FEATURE_SIZE * 4
_HEADER = {"descr": "<f4", "fortran_order": False}

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PreparedMetadata:
    """What `prepared.json` says: where the features come from and how many there are."""

    format_version: int
    digest: str
    """SHA-256 over everything that the features and records were made from."""
    image_root: str
    encoder: str
    """Name or path that the encoder was given by."""
    encoder_fingerprint: str
    encoder_config: EncoderConfig
    pictures: int
    captions: int
    splits: dict[str, int]
    """Pictures by split; "none" counts those that are in no split."""
    left_out: int
    mirrored: bool = False
    """Whether the mirrored pictures' features are there too."""


class MappedFeatures:
    """Features on disk as one matrix (N, 2048), float32, mapped and never read as a whole."""

    def __init__(self, files: list[Path]) -> None:
        self._maps = [np.lib.format.open_memmap(file, mode="r") for file in files]
        for file, rows in zip(files, self._maps, strict=True):
            if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != FEATURE_SIZE:
                raise ImgcapError(f"{file} holds no features: expected float32 (rows, {FEATURE_SIZE}).")
        if any(len(rows) != ROWS_PER_FILE for rows in self._maps[:-1]):
            raise ImgcapError(f"{files[0].parent} is damaged: a file of features is too short.", "Prepare again.")

    def __len__(self) -> int:
        return sum(map(len, self._maps))

    def __getitem__(self, rows: list[int] | npt.NDArray[np.int64]) -> Features:
        """The features of `rows`, in that order: float32 (len(rows), 2048)."""
        wanted = np.asarray(rows, dtype=np.int64)
        files, places = np.divmod(wanted, ROWS_PER_FILE)
        out = np.empty((len(wanted), FEATURE_SIZE), dtype=np.float32)
        for file in np.unique(files):
            mask = files == file
            out[mask] = self._maps[file][places[mask]]
        return out


class PreparedFolder:
    """A complete prepared folder: `metadata`, `records` and `features`, row i of which belongs to record i.

    `mirrored` holds the features of the mirrored pictures, or is None.
    """

    def __init__(self, root: Path) -> None:
        """Open the folder `root`. Raises `ImgcapError` if it is not a complete prepared folder."""
        self.root = root
        self.metadata = _read_metadata(root)
        self.records = tuple(_read_records(root))
        self.features = self._map(FEATURES_FOLDER)
        self.mirrored = self._map(MIRRORED_FOLDER) if self.metadata.mirrored else None

    def _map(self, folder: str) -> MappedFeatures:
        try:
            features = MappedFeatures(sorted((self.root / folder).glob("*.npy")))
        except ImgcapError:
            raise
        except Exception as error:  # on a damaged header NumPy raises whatever it stumbles over
            why = " ".join(str(error).split()).rstrip(".")[:200]
            raise ImgcapError(f"The features in {self.root} cannot be read: {why}.", "Prepare again.") from None
        if not len(features) == len(self.records) == self.metadata.pictures:
            raise ImgcapError(
                f"{self.root} is damaged: {len(features):,} rows of {folder} for {len(self.records):,} records.",
                "Prepare again with --overwrite.",
            )
        return features

    @property
    def image_root(self) -> Path:
        return Path(self.metadata.image_root)

    @property
    def encoder_file(self) -> Path:
        return self.root / ENCODER_FILE

    def left_out(self) -> list[LeftOut]:
        """What the data set names that is not in here. Raises `ImgcapError`."""
        try:
            return [LeftOut(**row) for _, row in read_json_lines(self.root / LEFT_OUT_FILE)]
        except TypeError:
            raise ImgcapError(f"{self.root / LEFT_OUT_FILE} is damaged.", "Prepare again with --overwrite.") from None

    def rows(self, split: str) -> list[int]:
        """Rows of the records in `split`. Raises `ImgcapError` if there is none."""
        if split not in SPLITS:
            raise UsageError(f"Unknown split {split!r}.", f"Known splits: {', '.join(SPLITS)}.")
        rows = [i for i, record in enumerate(self.records) if record.split == split]
        if not rows:
            there = ", ".join(f"{name} ({count:,})" for name, count in self.metadata.splits.items() if count)
            raise ImgcapError(f"{self.root} has no pictures in the split {split!r}.", f"It has: {there}.")
        return rows


def _read_metadata(root: Path) -> PreparedMetadata:
    if not (root / METADATA_FILE).is_file():
        half = (root / PARTIAL_FOLDER).is_dir()
        raise ImgcapError(
            f"{root} is not {'complete: its preparation was interrupted' if half else 'a prepared folder'}.",
            f"Run `imgcap prepare ... -o {root}`{' again to go on' if half else ' first'}.",
        )
    data = read_json(root / METADATA_FILE)
    try:
        if data["format_version"] != FORMAT_VERSION:
            raise ImgcapError(f"{root} was prepared by another version of imgcap.", "Prepare again with --overwrite.")
        metadata = PreparedMetadata(**{**data, "encoder_config": EncoderConfig(**data["encoder_config"])})
        whole = isinstance(metadata.image_root, str) and all(type(n) is int for n in metadata.splits.values())
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ImgcapError(f"{root / METADATA_FILE} is damaged.", "Prepare again with --overwrite.")
    return metadata


def _read_records(root: Path) -> Iterator[Record]:
    for number, row in read_json_lines(root / RECORDS_FILE):
        try:
            record = Record(row["image_id"], row["path"], tuple(row["captions"]), row["split"])
            texts = (record.image_id, record.path, *record.captions)
            whole = isinstance(row["captions"], list) and all(isinstance(text, str) for text in texts)
        except (KeyError, TypeError):
            whole = False
        if not whole or record.split not in (*SPLITS, None):
            raise ImgcapError(f"{root / RECORDS_FILE}, line {number} is not a record.")
        yield record


def prepare(
    dataset: Dataset,
    encoder_file: Path,
    encoder: Encoder,
    encoder_name: str,
    out: Path,
    *,
    mirrored: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> PreparedFolder:
    """Encode the pictures of `dataset` into the folder `out`, going on where an interrupted run stopped.

    With `mirrored`, the mirrored pictures are encoded as well. Pictures that cannot be decoded are left out and listed.
    `on_progress(done, total)` counts pictures. A folder that is complete already, from the same inputs, is returned as
    it is; one from other inputs needs `overwrite`, and is kept until the new one is whole; so does one with other
    things under the names used here. Raises `ImgcapError`.
    """
    encoder_id = fingerprint(encoder_file)
    digest = _digest(dataset, encoder_id, mirrored)
    if not overwrite and _is_complete(out, digest):
        return PreparedFolder(out)
    make_folder(out)
    try:
        work = _Work(out / PARTIAL_FOLDER, digest, mirrored, overwrite)
        on_progress(work.done, len(dataset.records))
        sources = (dataset.root / record.path for record in dataset.records[work.done :])
        for batch in load_batches(sources, encoder.config.pixels, BATCH_SIZE):
            decoded = [pixels for pixels in batch if not isinstance(pixels, ImgcapError)]
            failed = [(i, str(error)) for i, error in enumerate(batch, work.done) if isinstance(error, ImgcapError)]
            views = [decoded, [pixels[:, ::-1] for pixels in decoded]][: len(work.views)]
            features = [encoder(view).numpy() if view else np.empty((0, FEATURE_SIZE), np.float32) for view in views]
            work.add(features, len(batch), failed)
            on_progress(work.done, len(dataset.records))
        _finish(work, dataset, encoder_file, encoder.config, encoder_name, encoder_id, out)
    except OSError as error:
        raise ImgcapError(
            f"{out} cannot be written: {reason(error)}.", "What is there is kept: run again to go on."
        ) from None
    return PreparedFolder(out)


def _is_complete(out: Path, digest: str) -> bool:
    """Whether `out` is prepared from the inputs that `digest` stands for. Raises `ImgcapError` if it holds others."""
    partial = out / PARTIAL_FOLDER
    if (out / METADATA_FILE).exists():
        if _read_metadata(out).digest != digest:
            raise ImgcapError(f"{out} is prepared from other inputs.", "Give another folder, or --overwrite.")
        if not (partial / FEATURES_FOLDER).exists():  # a run that was killed in its last step leaves this
            shutil.rmtree(partial, ignore_errors=True)
        return True
    names = (FEATURES_FOLDER, MIRRORED_FOLDER, RECORDS_FILE, LEFT_OUT_FILE, ENCODER_FILE)
    foreign = [name for name in names if (out / name).exists()]
    if foreign and not partial.exists():
        raise ImgcapError(
            f"{out} is not a prepared folder, but holds {listing(foreign)}.", "Give another folder, or --overwrite."
        )
    return False


def _digest(dataset: Dataset, encoder_fingerprint: str, mirrored: bool) -> str:
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(json.dumps(values).encode() + b"\n")

    add(FORMAT_VERSION, BATCH_SIZE, encoder_fingerprint, str(dataset.root.resolve()))
    if mirrored:
        add(MIRRORED_FOLDER)
    for record in dataset.records:
        stamp = _stamp(dataset.root / record.path)
        add(record.image_id, record.path, record.captions, record.split, stamp)
    for left_out in dataset.left_out:
        add(left_out.name, left_out.reason)
    return digest.hexdigest()


def _stamp(picture: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None for a picture that cannot be read, which will be left out."""
    try:
        stat = picture.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class _Work:
    """The unfinished features in `.partial`: batches are added, each durable before it is counted."""

    def __init__(self, folder: Path, digest: str, mirrored: bool, overwrite: bool) -> None:
        self.folder = folder
        self.views = [folder / FEATURES_FOLDER, folder / MIRRORED_FOLDER][: 1 + mirrored]
        self.progress = folder / PROGRESS_FILE
        self.done = 0
        """Pictures that were tried."""
        self.rows = 0
        """Pictures that have features."""
        self.failed: dict[int, str] = {}
        """Why a picture has none, by its place in the data set."""
        self.digest = digest
        rows = self._read_progress()
        same_inputs = rows[:1] == [{"digest": digest}]
        if rows and not same_inputs and not overwrite:
            raise ImgcapError(
                f"{folder.parent} holds an interrupted preparation of other inputs.",
                "Give another folder, or --overwrite.",
            )
        if not same_inputs or not self._take_up(rows[1:]):
            shutil.rmtree(folder, ignore_errors=True)
            for view in self.views:
                view.mkdir(parents=True)
            self._append({"digest": digest})

    def _read_progress(self) -> list[dict[str, Any]]:
        """The whole lines of `progress.jsonl`; what follows them is torn, and is cut off."""
        if not self.progress.exists():
            return []
        rows, size = [], 0
        with self.progress.open("rb+") as file:
            for line in file:
                try:
                    rows.append(json.loads(line if line.endswith(b"\n") else b""))
                except (ValueError, RecursionError):
                    break
                size += len(line)
            file.truncate(size)
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
                path, size = _features_file(view, number), _header_size() + file_rows * _ROW_BYTES
                if not path.exists() or path.stat().st_size < size:
                    return False
                os.truncate(path, size)
        self.done, self.rows = (rows[-1]["done"], encoded) if rows else (0, 0)
        self.failed = {int(i): why for row in rows for i, why in row["failed"]}
        return True

    def add(self, views: list[Features], tried: int, failed: list[tuple[int, str]]) -> None:
        for view, features in zip(self.views, views, strict=True):
            self._add_rows(view, features)
        self.rows += len(views[0])
        self.done += tried
        self.failed.update(failed)
        self._append({"done": self.done, "rows": self.rows, "failed": failed})

    def _add_rows(self, view: Path, features: Features) -> None:
        start = 0
        while start < len(features):
            number, place = divmod(self.rows + start, ROWS_PER_FILE)
            part = features[start : start + ROWS_PER_FILE - place]
            with _features_file(view, number).open("ab") as file:
                if place == 0:
                    file.truncate(0)
                    _write_header(file, 0)
                file.write(part.astype("<f4", copy=False).tobytes())
                _flush(file)
            start += len(part)

    def move_to(self, out: Path) -> None:
        """Give every file its final header, and move them all to `out`."""
        for view in self.views:
            if view.exists():  # else it was moved before the run was killed
                for number, rows in _rows_by_file(self.rows):
                    with _features_file(view, number).open("rb+") as file:
                        _write_header(file, rows)
                        _flush(file)
                shutil.rmtree(out / view.name, ignore_errors=True)
                view.rename(out / view.name)

    def _append(self, row: object) -> None:
        with self.progress.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            _flush(file)


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


def _write_header(file: BinaryIO, rows: int) -> None:
    # NumPy pads the header so that the number of rows can grow in place.
    np.lib.format.write_array_header_1_0(file, {**_HEADER, "shape": (rows, FEATURE_SIZE)})


def _header_size() -> int:
    header = io.BytesIO()
    _write_header(header, ROWS_PER_FILE)
    return header.tell()


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


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
            f"None of the {len(dataset.records):,} pictures could be decoded.", f"The first: {work.failed[0]}"
        )
    (out / METADATA_FILE).unlink(missing_ok=True)
    work.move_to(out)
    mirrored = len(work.views) > 1
    if not mirrored:
        shutil.rmtree(out / MIRRORED_FOLDER, ignore_errors=True)
    records = [record for i, record in enumerate(dataset.records) if i not in work.failed]
    failed = [LeftOut(dataset.records[i].path, why) for i, why in work.failed.items()]
    left_out = [*dataset.left_out, *failed]
    write_json_lines(out / RECORDS_FILE, map(asdict, records))
    write_json_lines(out / LEFT_OUT_FILE, map(asdict, left_out))
    with replacing(out / ENCODER_FILE) as partial:
        shutil.copyfile(encoder_file, partial)
    splits = [record.split or "none" for record in records]
    metadata = PreparedMetadata(
        format_version=FORMAT_VERSION,
        digest=work.digest,
        image_root=str(dataset.root.resolve()),
        encoder=encoder_name,
        encoder_fingerprint=encoder_fingerprint,
        encoder_config=encoder_config,
        pictures=len(records),
        captions=sum(len(record.captions) for record in records),
        splits={split: splits.count(split) for split in (*SPLITS, "none")},
        left_out=len(left_out),
        mirrored=mirrored,
    )
    write_json(out / METADATA_FILE, asdict(metadata))
    shutil.rmtree(work.folder)
