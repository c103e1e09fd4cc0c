"""Parquet files as Hugging Face writes them, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
import pyarrow.parquet as pq  # noqa: E402

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The type of Hugging Face's images."""


def image(content: bytes | None, path: str | None = None) -> dict[str, object]:
    return {"bytes": content, "path": path}


def write_parquet(
    file: Path, columns: Mapping[str, Sequence[object]], types: Mapping[str, Any] | None = None, group: int = 100
) -> Path:
    """`file` with these columns, `group` rows in a group; `image` is a column of images unless `types` has another."""
    known = {"image": IMAGE, **(types or {})}
    arrays = {name: pa.array(values, known.get(name)) for name, values in columns.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), file, row_group_size=group)
    return file
