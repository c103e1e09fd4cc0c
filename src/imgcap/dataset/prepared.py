"""The prepared folder: the features of a data set's images, computed once, beside its captions.

prepared.json         metadata: encoder, counts, digest of the inputs; written last
encoder.safetensors   the encoder of the features
records.jsonl         one captioned image a line, in the order of the feature rows
records.npy           offset and split of each line, so that a line is read only when it is needed
left_out.jsonl        everything that was left out, and why
features/00000.npy    float32 or float16 (rows, 2048), 65,536 rows in each file but the last
mirrored/00000.npy    optional: features of the mirrored images, a second view to train on
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from imgcap.dataset.records import LeftOut, Record
from imgcap.dataset.splits import SPLITS, TEST, TRAIN, VAL
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import (
    current_keys,
    parse_json_line,
    read_json,
    read_json_lines,
    reason,
    replacing,
    write_json_lines,
)
from imgcap.images.archived import ArchivedFile
from imgcap.images.archives import find_image
from imgcap.images.decoding import Pixels, load_batches
from imgcap.model.encoder import EncoderConfig
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.store import ENCODER_FILE

FORMAT_VERSION = 1
ROWS_PER_FILE = 65_536
METADATA_FILE, RECORDS_FILE, LEFT_OUT_FILE = "prepared.json", "records.jsonl", "left_out.jsonl"
RECORDS_INDEX_FILE = "records.npy"
FEATURES_FOLDER, MIRRORED_FOLDER = "features", "mirrored"
DTYPES = ("float32", "float16")
"""Types of features on disk."""
PARTIAL_FOLDER = ".partial"
"""Sub-folder of an unfinished preparation."""

INDEX_DTYPE = np.dtype([("begin", "<i8"), ("split", "u1")])
"""An entry of the index of the records: the offset of a line, and its split as an index into `SPLIT_CODES`."""
SPLIT_CODES = (None, *SPLITS)

Features = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PreparedMetadata:
    """Content of `prepared.json`: where the features come from, and how many there are."""

    format_version: int
    digest: str
    """SHA-256 over all inputs of the preparation."""
    image_root: str
    encoder: str
    """Name or path of the encoder, as the user gave it."""
    encoder_fingerprint: str
    encoder_config: EncoderConfig
    images: int
    captions: int
    splits: dict[str, int]
    """Number of images by split; "none" counts those in no split."""
    left_out: int
    mirrored: bool = False
    """Whether there are features of the mirrored images."""
    archives: Sequence[str] = ()
    """Archives of the images, relative to `image_root`."""


class MappedFeatures:
    """Features on disk as one matrix (N, 2048), memory-mapped.

    Raises `ImgcapError` if a file does not hold features.
    """

    def __init__(self, files: list[Path]) -> None:
        self._maps = [np.lib.format.open_memmap(file, mode="r") for file in files]
        for file, rows in zip(files, self._maps, strict=True):
            if rows.dtype not in DTYPES or rows.ndim != 2 or rows.shape[1] != FEATURE_SIZE:
                raise ImgcapError(f"{file} holds no features: expected {' or '.join(DTYPES)} (rows, {FEATURE_SIZE}).")
        if any(len(rows) != ROWS_PER_FILE for rows in self._maps[:-1]):
            raise ImgcapError(f"{files[0].parent} is damaged: a file of features is too short.", "Prepare again.")

    def __len__(self) -> int:
        return sum(map(len, self._maps))

    def __getitem__(self, rows: Sequence[int] | Rows) -> Features:
        """Features of `rows`, in that order: float32 (len(rows), 2048)."""
        wanted = np.asarray(rows, dtype=np.int64)
        files, places = np.divmod(wanted, ROWS_PER_FILE)
        out = np.empty((len(wanted), FEATURE_SIZE), dtype=np.float32)
        for file in np.unique(files):
            mask = files == file
            out[mask] = self._maps[file][places[mask]]
        return out


class PreparedFolder:
    """A complete prepared folder: its `metadata`, its `records`, and their `features`, row by row.

    `mirrored` has the features of the mirrored images, or is None.
    """

    def __init__(self, root: Path) -> None:
        """Open the folder `root`. Raises `ImgcapError` if it is not a complete prepared folder."""
        self.root = root
        self.metadata = read_metadata(root)
        self.records = Records(root)
        self._splits = self.records.splits
        self.features = self._map(FEATURES_FOLDER)
        self.mirrored = self._map(MIRRORED_FOLDER) if self.metadata.mirrored else None

    def _map(self, folder: str) -> MappedFeatures:
        try:
            features = MappedFeatures(sorted((self.root / folder).glob("*.npy")))
        except ImgcapError:
            raise
        except Exception as error:  # on a damaged header, NumPy raises errors of any kind
            why = " ".join(str(error).split()).rstrip(".")[:200]
            raise ImgcapError(f"The features in {self.root} cannot be read: {why}.", "Prepare again.") from None
        if not len(features) == len(self.records) == self.metadata.images:
            raise ImgcapError(
                f"{self.root} is damaged: {len(features):,} rows of {folder} for {len(self.records):,} records.",
                "Prepare again with --overwrite.",
            )
        return features

    @property
    def image_root(self) -> Path:
        return Path(self.metadata.image_root)

    def source(self, path: str) -> Path | ArchivedFile:
        """The image of the record with this path. Raises `ImageError` if its archive no longer exists."""
        if not self.metadata.archives:
            return self.image_root / path
        return find_image(self._prefix + path, self._archives)

    def decode(self, rows: Iterable[int], size: int) -> Iterator[Pixels]:
        """The images of `rows`, decoded a few batches ahead and resized to `size` x `size` pixels.

        Raises `ImgcapError` if one of them can no longer be decoded.
        """
        sources = (self.source(self.records[row].path) for row in rows)
        for batch in load_batches(sources, size):
            for pixels in batch:
                if isinstance(pixels, ImgcapError):
                    raise pixels
                yield pixels

    @property
    def _prefix(self) -> str:
        return f"{self.metadata.image_root}/" if self.metadata.image_root else ""

    @cached_property
    def _archives(self) -> frozenset[str]:
        return frozenset(self._prefix + archive for archive in self.metadata.archives)

    @property
    def encoder_file(self) -> Path:
        return self.root / ENCODER_FILE

    def left_out(self) -> list[LeftOut]:
        """Everything that was left out. Raises `ImgcapError` if the list is damaged."""
        try:
            return [LeftOut(**row) for _, row in read_json_lines(self.root / LEFT_OUT_FILE)]
        except TypeError:
            raise ImgcapError(f"{self.root / LEFT_OUT_FILE} is damaged.", "Prepare again with --overwrite.") from None

    def rows(self, split: str, *, may_be_empty: bool = False) -> Rows:
        """Rows of the records in `split`, int64, ascending.

        Raises `ImgcapError` if there is none, unless it `may_be_empty`, and `UsageError` for an unknown split.
        """
        if split not in SPLITS:
            raise UsageError(f"Unknown split {split!r}.", f"Known splits: {', '.join(SPLITS)}.")
        rows = np.flatnonzero(self._splits == SPLIT_CODES.index(split))
        if not len(rows) and not may_be_empty:
            there = ", ".join(f"{name} ({count:,})" for name, count in self.metadata.splits.items() if count)
            raise ImgcapError(f"{self.root} has no images in the split {split!r}.", f"It has: {there}.")
        return rows

    def with_val_share(self, share: float, seed: int) -> PreparedFolder:
        """This folder with a val split of `share` of its training images, drawn by `seed`; itself if `share` is 0.

        Nothing is written. Raises `ImgcapError` if the training split has fewer than two images, and `UsageError` if
        there is a val split already.
        """
        if not share:
            return self
        if (self._splits == SPLIT_CODES.index(VAL)).any():
            raise UsageError(f"{self.root} has a val split already.", "Leave out --val-share.")
        rows = self.rows(TRAIN)
        if len(rows) < 2:
            raise ImgcapError(f"{self.root} has only one training image: too few to draw a val split.")
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        chosen = np.random.default_rng([seed, 0]).choice(rows, count, replace=False)  # epochs have [seed, 1] and so on
        return self.with_splits(
            {TRAIN: np.setdiff1d(rows, chosen), VAL: chosen, TEST: self.rows(TEST, may_be_empty=True)}
        )

    def with_splits(self, splits: Mapping[str, Rows]) -> PreparedFolder:
        """This folder with other splits, given as rows; the other images are in none. Nothing is written."""
        divided = copy(self)
        divided._splits = np.zeros_like(self._splits)
        for split, rows in splits.items():
            divided._splits[rows] = SPLIT_CODES.index(split)
        return divided


def read_metadata(root: Path) -> PreparedMetadata:
    """The metadata of the prepared folder `root`. Raises `ImgcapError` if it is not complete, or damaged."""
    if not (root / METADATA_FILE).is_file():
        half = (root / PARTIAL_FOLDER).is_dir()
        raise ImgcapError(
            f"{root} is not {'complete: its preparation was interrupted' if half else 'a prepared folder'}.",
            f"Run `imgcap prepare ... -o {root}` {'again to resume' if half else 'first'}.",
        )
    data = read_json(root / METADATA_FILE)
    try:
        data = current_keys(data)
        if data["format_version"] != FORMAT_VERSION:
            raise ImgcapError(f"{root} was prepared by another version of imgcap.", "Prepare again with --overwrite.")
        metadata = PreparedMetadata(**{**data, "encoder_config": EncoderConfig(**data["encoder_config"])})
        texts = (metadata.image_root, *metadata.archives)
        whole = all(isinstance(text, str) for text in texts) and all(type(n) is int for n in metadata.splits.values())
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ImgcapError(f"{root / METADATA_FILE} is damaged.", "Prepare again with --overwrite.")
    return metadata


class Records(Sequence[Record]):
    """The records of a prepared folder; each access reads one line."""

    def __init__(self, root: Path) -> None:
        """Open the records in `root`. Raises `ImgcapError` if they cannot be read."""
        self._file = root / RECORDS_FILE
        try:
            with self._file.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise ImgcapError(f"{self._file} cannot be read: {reason(error)}.") from None
        self._index = self._saved_index(root / RECORDS_INDEX_FILE)

    @property
    def splits(self) -> npt.NDArray[np.uint8]:
        """The split of each record, (N,), as an index into `SPLIT_CODES`."""
        return self._index["split"]

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, row: int) -> Record: ...

    @overload
    def __getitem__(self, row: slice) -> tuple[Record, ...]: ...

    def __getitem__(self, row: int | slice) -> Record | tuple[Record, ...]:
        if isinstance(row, slice):
            return tuple(self[i] for i in range(len(self))[row])
        number = range(len(self))[row]
        begin, split = self._index[number].item()
        record = self._parse(number + 1, self._lines[begin : self._end(begin)])
        if record.split != SPLIT_CODES[split]:
            hint = f"Remove {RECORDS_INDEX_FILE} beside it."
            raise ImgcapError(f"{self._file} does not fit its index: it was changed later.", hint)
        return record

    def _end(self, begin: int) -> int:
        end = self._lines.find(b"\n", begin)
        return len(self._lines) if end < 0 else end

    def _parse(self, number: int, line: bytes) -> Record:
        row = parse_json_line(self._file, number, line)
        try:
            record = Record(row["image_id"], row["path"], tuple(row["captions"]), row["split"])
            texts = (record.image_id, record.path, *record.captions)
            whole = isinstance(row["captions"], list) and all(isinstance(text, str) for text in texts)
        except (KeyError, TypeError):
            whole = False
        if not whole or record.split not in SPLIT_CODES:
            raise ImgcapError(f"{self._file}, line {number} is not a record.")
        return record

    def _saved_index(self, file: Path) -> npt.NDArray[np.void]:
        """The index in `file`; rebuilt if it is missing, damaged or of other records."""
        with suppress(Exception):  # on a damaged header, NumPy raises errors of any kind
            index: npt.NDArray[np.void] = np.load(file, mmap_mode="r")
            is_whole = self._end(index[-1]["begin"]) == len(self._lines) - 1
            if is_whole and index.dtype == INDEX_DTYPE and (index["split"] < len(SPLIT_CODES)).all():
                return index
        return self._scan()

    def _scan(self) -> npt.NDArray[np.void]:
        """The index, built by reading every record. Raises `ImgcapError` naming a line that is no record."""
        entries, begin, number = [], 0, 0
        while begin < len(self._lines):
            end, number = self._end(begin), number + 1
            if (line := self._lines[begin:end]).strip():
                entries.append((begin, SPLIT_CODES.index(self._parse(number, line).split)))
            begin = end + 1
        return np.array(entries, dtype=INDEX_DTYPE)


def write_records(out: Path, records: Iterable[Record]) -> None:
    """Write the records of the prepared folder `out`, and their index."""
    index = out / RECORDS_INDEX_FILE
    index.unlink(missing_ok=True)
    write_json_lines(out / RECORDS_FILE, map(asdict, records))
    with replacing(index) as partial, partial.open("wb") as file:
        np.save(file, Records(out)._index)
