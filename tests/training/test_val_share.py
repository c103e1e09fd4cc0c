"""A val split that is drawn from the training images of a folder without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.data import TINY_TRAINING, with_records
from helpers.training import CPU, Killer
from imgcap.captioning.explain import TrainingIndex
from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.splits import TRAIN
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, INDEX_FILE
from imgcap.training.export import finish
from imgcap.training.options import TrainingOptions
from imgcap.training.trainer import train


@pytest.fixture
def without_val(prepared: PreparedFolder, tmp_path: Path) -> PreparedFolder:
    records = [replace(record, split=TRAIN if record.split == "val" else record.split) for record in prepared.records]
    return with_records(prepared, records, tmp_path / "without-val")


def test_a_folder_without_a_val_split_names_the_option(without_val: PreparedFolder, tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match="has no images in the split 'val'") as caught:
        train(without_val, TINY_TRAINING, tmp_path / "model")
    assert caught.value.hint == (
        "Draw a val split with --val-share 0.1, or keep the last of N epochs with --patience 0 --epochs N."
    )


def test_the_val_split_is_drawn_by_image_and_seed(without_val: PreparedFolder) -> None:
    all_rows = without_val.rows("train")
    drawn = without_val.with_val_share(0.25, seed=3)
    val, rest = drawn.rows("val"), drawn.rows("train")
    assert len(val) == round(0.25 * len(all_rows))
    assert sorted([*val, *rest]) == all_rows.tolist()
    np.testing.assert_array_equal(without_val.with_val_share(0.25, seed=3).rows("val"), val)
    assert without_val.with_val_share(0.25, seed=4).rows("val").tolist() != val.tolist()
    assert without_val.rows("train").tolist() == all_rows.tolist()
    assert without_val.with_val_share(0.0, seed=3) is without_val


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_neither_split_is_empty(without_val: PreparedFolder, share: float) -> None:
    drawn = without_val.with_val_share(share, seed=0)
    assert min(len(drawn.rows("val")), len(drawn.rows("train"))) == 1


def test_a_val_split_is_not_drawn_where_there_is_one(prepared: PreparedFolder) -> None:
    with pytest.raises(UsageError, match="has a val split already"):
        prepared.with_val_share(0.1, seed=0)


def test_a_single_training_image_is_too_few(without_val: PreparedFolder, tmp_path: Path) -> None:
    records = [replace(record, split=TRAIN if row == 0 else None) for row, record in enumerate(without_val.records)]
    with pytest.raises(ImgcapError, match="only one training image"):
        with_records(without_val, records, tmp_path / "one").with_val_share(0.1, seed=0)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="--val-share must be at least 0 and below 1, not"):
        TrainingOptions(val_share=share)


def test_a_resumed_training_keeps_the_drawn_split(without_val: PreparedFolder, tmp_path: Path) -> None:
    options = replace(TINY_TRAINING, val_share=0.2, seed=5)
    train(without_val, options, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(without_val, options, tmp_path / "killed", listener=Killer(2, RuntimeError))
    train(without_val, TrainingOptions(), tmp_path / "killed", resume=True)
    for name in (DECODER_FILE, INDEX_FILE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    rows = without_val.with_val_share(0.2, seed=5).rows("train")
    names = tuple(without_val.records[row].path for row in rows)
    assert TrainingIndex.load(tmp_path / "whole" / INDEX_FILE).names == names
    assert read_json(tmp_path / "whole" / CONFIG_FILE)["training"]["images"]["train"] == len(rows)
    before = (tmp_path / "whole" / INDEX_FILE).read_bytes()
    finish(without_val, tmp_path / "whole", CPU)  # draws the same split
    assert (tmp_path / "whole" / INDEX_FILE).read_bytes() == before
