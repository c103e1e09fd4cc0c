"""Captions in tar archives, as WebDataset keeps them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from helpers.archives import header
from helpers.data import write_data_set
from helpers.tars import write_shards, write_tar
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.records import Dataset
from imgcap.dataset.splits import SPLITS
from imgcap.errors import ImgcapError, UsageError


def captions_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {record.path: record.captions for record in dataset.records}


def left_out(dataset: Dataset) -> dict[str, str]:
    return {left.name: left.reason for left in dataset.left_out}


def test_samples_are_files_of_one_key(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        [
            ("1.png", b""),
            ("1.txt", "\ufeffOne .\r\n\n Ün .\n".encode()),
            ("1.json", b'{"caption": "not this one", "split": "dev"}'),
            ("d/2.json", b'{"captions": ["Two .", "Zwei ."], "caption": null, "split": "test"}'),
            ("d/2.seg.png", b""),
            ("3.1.jpg", b""),
            ("3.1.txt", b"Three one ."),
            ("3.2.jpg", b""),
            ("3.2.txt", b"Three two ."),
            ("4.jpg", b""),
            ("5.txt", b"No image ."),
            ("6.jpg", b""),
            ("6.txt", b"\xff\xfe"),
            ("7.json", b'{"caption": 7}'),
            ("7.jpg", b""),
            ("8.json", b"[]"),
            ("8.cls", b"3"),
            (header("9.jpg", tarfile.SYMTYPE), b""),
        ],
    )
    dataset = read_dataset(str(tmp_path / "a.tar"))
    assert dataset.root == str(tmp_path)
    assert captions_of(dataset) == {
        "a.tar/1.png": ("One .", "Ün ."),
        "a.tar/d/2.seg.png": ("Two .", "Zwei ."),
        "a.tar/3.1.jpg": ("Three one .",),
        "a.tar/3.2.jpg": ("Three two .",),
    }
    assert [record.split for record in dataset.records] == ["val", "test", None, None]
    reasons = left_out(dataset)
    assert reasons["a.tar/4.jpg"] == "has no caption"
    assert reasons["a.tar/5"] == "has captions, but no image"
    assert "UTF-8" in reasons["a.tar/6.txt"]
    assert "not text" in reasons["a.tar/7.json"]
    assert "JSON object" in reasons["a.tar/8.json"]
    assert "link" in reasons["a.tar/9.jpg"]
    assert dataset.source(dataset.records[0]) == dataset.archived["a.tar/1.png"]


def test_splits_by_lists_of_keys_or_by_the_name_of_the_member(tmp_path: Path) -> None:
    captions = write_data_set(tmp_path, 30)
    shards = write_shards(tmp_path / "shards", tmp_path / "images", captions)
    pattern = str(tmp_path / "shards" / "{00..02}.tar")
    folder = read_dataset(tmp_path / "images", captions)
    dataset = read_dataset(pattern)
    assert dataset.archives == ("00.tar", "01.tar", "02.tar")
    assert [record.path for record in dataset.records[9:11]] == ["00.tar/009.png", "01.tar/010.png"]
    assert [(r.captions, r.split) for r in dataset.records] == [(r.captions, r.split) for r in folder.records]
    for split in SPLITS:
        names = {"train": "000\n001.png", "val": "01.tar/010.png", "test": "029"}[split]
        (tmp_path / f"{split}.lst").write_text(names)
    listed = read_dataset(pattern, split_files={split: tmp_path / f"{split}.lst" for split in SPLITS})
    splits = {record.path: record.split for record in listed.records if record.split}
    assert splits == {
        "00.tar/000.png": "train",
        "00.tar/001.png": "train",
        "01.tar/010.png": "val",
        "02.tar/029.png": "test",
    }
    beside = read_dataset(pattern, captions)  # captions from a file of their own
    assert [r.captions for r in beside.records] == [r.captions for r in folder.records]
    shards[1].unlink()
    with pytest.raises(ImgcapError, match=r"01\.tar does not exist"):
        read_dataset(pattern)


def test_archives_without_captions_or_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.png", b"")])
    with pytest.raises(ImgcapError, match="No caption in"):
        read_dataset(str(tmp_path / "a.tar"))
    write_tar(tmp_path / "b.tar", [("1.txt", b"One .")])
    with pytest.raises(ImgcapError, match="no images"):
        read_dataset(str(tmp_path / "b.tar"))
    with pytest.raises(UsageError, match="captions"):
        read_dataset(tmp_path)
