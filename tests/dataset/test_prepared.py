"""Reading a prepared folder: its records, features and splits, and what damage does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.preparation import Prepare
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    LEFT_OUT_FILE,
    METADATA_FILE,
    RECORDS_FILE,
    RECORDS_INDEX_FILE,
    MappedFeatures,
    PreparedFolder,
)
from imgcap.dataset.records import Dataset
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, write_json


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def edit_metadata(**changes: object) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        data = {**read_json(root / METADATA_FILE), **changes}
        write_json(root / METADATA_FILE, {key: value for key, value in data.items() if value is not None})

    return edit


def save(name: str, array: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    return lambda root: np.save(root / FEATURES_FOLDER / name, array)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "metadata torn": (lambda root: cut(root / METADATA_FILE), "not valid JSON"),
    "metadata a list": (lambda root: write_json(root / METADATA_FILE, [1]), r"prepared\.json is damaged"),
    "metadata without a field": (edit_metadata(images=None), r"prepared\.json is damaged"),
    "metadata with a strange encoder": (edit_metadata(encoder_config={"x": 1}), r"prepared\.json is damaged"),
    "another version": (edit_metadata(format_version=99), "another version of imgcap"),
    "counts wrong": (edit_metadata(images=9), "10 rows of features for 10 records"),
    "records gone": (lambda root: (root / RECORDS_FILE).unlink(), r"records\.jsonl cannot be read"),
    "records torn": (lambda root: cut(root / RECORDS_FILE), r"records\.jsonl, line \d+ is not valid JSON"),
    "record without path": (
        lambda root: (root / RECORDS_FILE).write_text('{"image_id": "a"}\n'),
        "line 1 is not a record",
    ),
    "records not objects": (lambda root: (root / RECORDS_FILE).write_text("5\n"), "line 1 is not a record"),
    "a record gone": (
        lambda root: (root / RECORDS_FILE).write_bytes((root / RECORDS_FILE).read_bytes().split(b"\n", 1)[1]),
        "10 rows of features for 9 records",
    ),
    "features gone": (lambda root: shutil.rmtree(root / FEATURES_FOLDER), "0 rows of features"),
    "last features gone": (lambda root: (root / FEATURES_FOLDER / "00002.npy").unlink(), "8 rows of features"),
    "features torn": (lambda root: cut(root / FEATURES_FOLDER / "00001.npy"), "cannot be read"),
    "features empty": (lambda root: (root / FEATURES_FOLDER / "00001.npy").write_bytes(b""), "cannot be read"),
    "features text": (lambda root: (root / FEATURES_FOLDER / "00001.npy").write_text("numbers"), "cannot be read"),
    "features too short": (save("00000.npy", np.zeros((3, 2048), np.float32)), "too short"),
    "features too narrow": (save("00000.npy", np.zeros((4, 7), np.float32)), "holds no features"),
    "features of another type": (save("00000.npy", np.zeros((4, 2048))), "holds no features"),
    "features of another shape": (save("00000.npy", np.zeros(2048, np.float32)), "holds no features"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_one_sentence(whole: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(whole)
    with pytest.raises(ImgcapError, match=message) as caught:
        PreparedFolder(whole)
    assert str(whole) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['{"name": "a"}', "[1, 2]", "torn {"])
def test_a_damaged_list_of_left_out_images_is_one_sentence(whole: Path, line: str) -> None:
    (whole / LEFT_OUT_FILE).write_text(line)
    with pytest.raises(ImgcapError, match=r"left_out\.jsonl"):
        PreparedFolder(whole).left_out()


@pytest.mark.parametrize("counts", [(4, 4, 3), (4, 4), (2,), (4,)])
@pytest.mark.usefixtures("small_sizes")
def test_mapped_features_equal_the_concatenated_files(tmp_path: Path, counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((count, 2048), np.float32) for count in counts]
    files = [tmp_path / f"{i}.npy" for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        np.save(file, part)
    mapped, matrix = MappedFeatures(files), np.concatenate(parts)
    assert len(mapped) == len(matrix)
    for rows in ([], [0], [len(matrix) - 1], list(range(len(matrix))), rng.integers(0, len(matrix), 50).tolist()):
        found = mapped[rows]
        assert found.dtype == np.float32
        assert found.flags.writeable
        np.testing.assert_array_equal(found, matrix[np.asarray(rows, int)])
    np.testing.assert_array_equal(mapped[np.array([1, 0, 1])], matrix[[1, 0, 1]])
    with pytest.raises(IndexError):
        mapped[[len(matrix)]]


def test_rows_of_a_split_belong_to_it(run: Prepare, dataset: Dataset, tmp_path: Path) -> None:
    splits = ("train", "val", "train", "test")
    records = tuple(replace(record, split=splits[i % 4]) for i, record in enumerate(dataset.records))
    prepared = run(tmp_path / "out", replace(dataset, records=records))
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    assert all(prepared.records[row].split == split for split, found in rows.items() for row in found)
    assert sorted(row for found in rows.values() for row in found) == list(range(10))
    assert {split: len(found) for split, found in rows.items()} | {"none": 0} == prepared.metadata.splits


def test_a_missing_split_names_the_existing_ones(run: Prepare, dataset: Dataset, tmp_path: Path) -> None:
    splits = ["train"] * 9 + ["test", "test", None, None]
    records = tuple(replace(record, split=split) for record, split in zip(dataset.records, splits, strict=True))
    prepared = run(tmp_path / "out", replace(dataset, records=records))
    with pytest.raises(ImgcapError, match="has no images in the split 'val'") as caught:
        prepared.rows("val")
    assert caught.value.hint == "It has: train (6), test (2), none (2)."
    for unknown in ("dev", "none", ""):
        with pytest.raises(UsageError, match="Unknown split"):
            prepared.rows(unknown)


def test_records_are_read_through_their_index(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = run(tmp_path / "out")
    records = tuple(prepared.records)
    assert prepared.records[-1] == records[-1]
    assert prepared.records[2:5] == records[2:5]
    with pytest.raises(IndexError):
        prepared.records[len(records)]
    (tmp_path / "out" / RECORDS_INDEX_FILE).unlink()
    scanned = PreparedFolder(tmp_path / "out")
    assert tuple(scanned.records) == records
    assert scanned.rows("train").tolist() == prepared.rows("train").tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.write_bytes(index.read_bytes()[:100]),
        lambda index: index.write_text("no index"),
        lambda index: np.save(index, np.arange(3)),
        lambda index: np.save(index, np.load(index)[:-1]),
    ],
    ids=["torn", "text", "of numbers", "of fewer records"],
)
def test_a_damaged_index_of_the_records_is_rebuilt(
    run: Prepare, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    prepared = run(tmp_path / "out")
    records, splits = tuple(prepared.records), prepared.records.splits.tolist()
    damage(tmp_path / "out" / RECORDS_INDEX_FILE)
    again = PreparedFolder(tmp_path / "out")
    assert tuple(again.records) == records
    assert again.records.splits.tolist() == splits


def test_records_that_do_not_fit_their_index_are_an_error(run: Prepare, tmp_path: Path) -> None:
    run(tmp_path / "out")
    file = tmp_path / "out" / RECORDS_FILE
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace('"split": "val"', '"split": null').replace('"split": "test"', '"split": "val" '))
    prepared = PreparedFolder(tmp_path / "out")
    with pytest.raises(ImgcapError, match="does not fit its index") as caught:
        list(prepared.records)
    assert RECORDS_INDEX_FILE in caught.value.hint
