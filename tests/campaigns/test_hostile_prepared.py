"""Rows and prepared folders from strangers: every fault is one sentence."""

from __future__ import annotations

import struct
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from helpers.hostile import DEEP, METADATA, RECORDS, write_prepared
from imgcap.captioning.row_files import read_rows
from imgcap.dataset.features import FeatureOptions
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    METADATA_FILE,
    PARTIAL_FOLDER,
    RECORDS_FILE,
    PreparedFolder,
)
from imgcap.dataset.unfinished import PROGRESS_FILE, UnfinishedFeatures
from imgcap.errors import ImgcapError
from imgcap.files import write_json, write_json_lines
from imgcap.model.inception import FEATURE_SIZE
from imgcap.pages.gallery import GalleryWriter


def test_a_table_of_rows_with_an_invalid_header_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"path,caption,{'x' * 140_000}\na.jpg,a dog,x\n")
    with pytest.raises(ImgcapError, match="is not valid CSV: field larger than field limit"):
        list(read_rows(tmp_path / "a.csv"))


def test_a_row_that_is_nested_too_deeply_for_a_page_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(ImgcapError, match=r"a\.jpg is nested too deeply"),
        GalleryWriter(tmp_path / "a.html", "") as page,
    ):
        page.add({"path": "a.jpg", "words": [DEEP] if sys.getrecursionlimit() < 1500 else DEEP}, None)


@pytest.mark.parametrize(
    "changes",
    [
        *({"image_id": 5}, {"path": None}, {"captions": "a dog"}, {"captions": {"a": 1}}, {"captions": [1]}),
        *({"captions": ["a dog", None]}, {"split": "dev"}, {"split": []}, {"split": 1}),
    ],
    ids=str,
)
def test_a_record_with_wrong_types_is_one_sentence(tmp_path: Path, changes: dict[str, object]) -> None:
    root = write_prepared(tmp_path / "prepared")
    write_json_lines(root / RECORDS_FILE, [RECORDS[0], {**RECORDS[1], **changes}, RECORDS[2]])
    with pytest.raises(ImgcapError, match=r"records\.jsonl, line 2 is not a record"):
        PreparedFolder(root)


@pytest.mark.parametrize("changes", [{"image_root": 5}, {"splits": []}, {"splits": {"val": "many"}}], ids=str)
def test_metadata_with_wrong_types_is_one_sentence(tmp_path: Path, changes: dict[str, object]) -> None:
    root = write_prepared(tmp_path / "prepared")
    write_json(root / METADATA_FILE, {**asdict(METADATA), **changes})
    with pytest.raises(ImgcapError, match=r"prepared\.json is damaged"):
        PreparedFolder(root)


@pytest.mark.parametrize(
    "shape", ["(3, 2048", "(-1, 2048)", f"({10**30}, 2048)", "(2**62, 2048)", "(True, 2048)", "(3L,"]
)
def test_an_invalid_header_of_features_is_one_sentence(tmp_path: Path, shape: str) -> None:
    root = write_prepared(tmp_path / "prepared")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(3 * FEATURE_SIZE * 4)
    (root / FEATURES_FOLDER / "00000.npy").write_bytes(content)
    with pytest.raises(ImgcapError, match=r"features in .* cannot be read|rows of features") as caught:
        PreparedFolder(root)
    assert "\n" not in str(caught.value)


def test_features_in_an_archive_are_not_unpacked(tmp_path: Path) -> None:
    root = write_prepared(tmp_path / "prepared")
    with (root / FEATURES_FOLDER / "00000.npy").open("wb") as file:
        np.savez_compressed(file, features=np.zeros((3, FEATURE_SIZE), np.float32))
    with pytest.raises(ImgcapError, match="cannot be read"):
        PreparedFolder(root)


@pytest.mark.parametrize(
    "line",
    ["5", "[]", '{"done": 1}', '{"done": -1, "rows": 0, "failed": []}', '{"done": 1, "rows": 1, "failed": [[1]]}'],
)
def test_invalid_progress_is_discarded(tmp_path: Path, line: str) -> None:
    file = write_prepared(tmp_path / "prepared") / PARTIAL_FOLDER / PROGRESS_FILE
    file.write_text(f'{{"digest": "d"}}\n{line}\n')
    work = UnfinishedFeatures(file.parent, "d", FeatureOptions(), overwrite=False)
    assert (work.done, work.rows, work.failed) == (0, 0, {})
    assert file.read_text() == '{"digest": "d"}\n'
