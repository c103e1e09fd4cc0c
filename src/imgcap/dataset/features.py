"""How features are written: which views of an image, in which type, in files of how many rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from imgcap.dataset.prepared import DTYPES, FEATURES_FOLDER, MIRRORED_FOLDER, ROWS_PER_FILE, Features
from imgcap.errors import ImgcapError, UsageError
from imgcap.model.inception import FEATURE_SIZE


@dataclass(frozen=True)
class FeatureOptions:
    """What is written for each image. Raises `UsageError` for an unknown type."""

    mirrored: bool = False
    """Whether to write the features of the mirrored image too."""
    dtype: str = "float32"
    """float32, or float16 for half the disk space and 11 significant bits; readers always get float32."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"Features cannot be {self.dtype!r}.", f"Use {' or '.join(DTYPES)}.")

    def views(self, folder: Path) -> list[Path]:
        """The sub-folder of `folder` for each view: the images, and the mirrored images."""
        return [folder / FEATURES_FOLDER, folder / MIRRORED_FOLDER][: 1 + self.mirrored]

    @property
    def row_bytes(self) -> int:
        """Size of a row of a view."""
        return FEATURE_SIZE * self.on_disk.itemsize

    @property
    def on_disk(self) -> np.dtype[np.floating[Any]]:
        """Type of a feature in a file: little-endian on every machine."""
        return np.dtype({"float32": "<f4", "float16": "<f2"}[self.dtype])

    def to_disk(self, features: Features) -> npt.NDArray[np.floating[Any]]:
        """Features as they are written. Raises `ImgcapError` if a value is too large for the type."""
        try:
            with np.errstate(over="raise"):
                return features.astype(self.on_disk, copy=False)
        except FloatingPointError:
            raise ImgcapError(
                f"Features of this encoder are too large for {self.dtype}.",
                "Prepare with --dtype float32 --overwrite.",
            ) from None

    def write_header(self, file: BinaryIO, rows: int) -> None:
        """Write the header of a .npy file. NumPy pads it, so the number of rows can grow in place."""
        header = {"descr": self.on_disk.str, "fortran_order": False, "shape": (rows, FEATURE_SIZE)}
        np.lib.format.write_array_header_1_0(file, header)

    @property
    def header_size(self) -> int:
        """Size of that header in bytes."""
        header = io.BytesIO()
        self.write_header(header, ROWS_PER_FILE)
        return header.tell()


PLAIN = FeatureOptions()
"""The images as they are, in float32."""


def features_file(view: Path, number: int) -> Path:
    """File `number` of a view."""
    return view / f"{number:05}.npy"


def rows_by_file(rows: int) -> Iterator[tuple[int, int]]:
    """Number and rows of each file of a view with `rows` rows."""
    for number in range(-(-rows // ROWS_PER_FILE)):
        yield number, min(ROWS_PER_FILE, rows - number * ROWS_PER_FILE)
