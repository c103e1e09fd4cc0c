"""Preparing again: unchanged inputs need no work, changed ones need --overwrite."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers.data import draw
from helpers.preparation import Crash, NoEncoder, Prepare, content, crash_after, crash_at_line
from imgcap.dataset import preparation
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.preparation import NamedEncoder, prepare
from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.records import Dataset
from imgcap.dataset.unfinished import UnfinishedFeatures
from imgcap.errors import ImgcapError


def test_unchanged_inputs_are_not_encoded_again(run: Prepare, whole: Path) -> None:
    before = content(whole)
    again = run(whole, encoder=NoEncoder())
    assert len(again.records) == 10
    assert content(whole) == before


def test_other_inputs_need_overwrite(run: Prepare, whole: Path, tmp_path: Path, other_data: Dataset) -> None:
    before = content(whole)
    with pytest.raises(ImgcapError, match="prepared from other inputs") as caught:
        run(whole, other_data)
    assert "--overwrite" in caught.value.hint
    assert content(whole) == before
    run(whole, other_data, overwrite=True)
    assert content(whole) == content(run(tmp_path / "fresh", other_data).root) != before


@pytest.mark.parametrize("done", [0, 2, 8, 13])
def test_the_old_folder_survives_until_the_new_one_is_whole(
    run: Prepare, whole: Path, tmp_path: Path, other_data: Dataset, done: int
) -> None:
    before = content(whole)
    with pytest.raises(Crash):
        run(whole, other_data, overwrite=True, on_progress=crash_after(done))
    assert before.items() <= content(whole).items()
    assert PreparedFolder(whole).records[0].captions != other_data.records[0].captions
    run(whole, encoder=NoEncoder())  # the old inputs are still there, and the half-made new ones stay
    seen: list[int] = []
    run(whole, other_data, overwrite=True, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == done
    assert content(whole) == content(run(tmp_path / "fresh", other_data).root)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a crash as a file is opened
@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True)])
def test_a_folder_is_never_half_old_and_half_new(
    run: Prepare, dataset: Dataset, tmp_path: Path, mirrored: tuple[bool, bool]
) -> None:
    """Killed at any line that puts the new features in the place of the old."""
    old_data, new_data = (replace(dataset, records=dataset.records[i : i + 3]) for i in (0, 9))
    old, out = run(tmp_path / "old", old_data, mirrored=mirrored[0]), tmp_path / "out"
    new = run(tmp_path / "new", new_data, mirrored=mirrored[1])
    wholes = [(tuple(prepared.records), prepared.features[[0, 1, 2]].tobytes()) for prepared in (old, new)]
    number, crashed = 0, True
    found = set()
    while crashed:
        number, crashed = number + 1, False
        shutil.copytree(old.root, out)
        try:
            with crash_at_line(number, {preparation._finish.__code__, UnfinishedFeatures.move_to.__code__}):
                run(out, new_data, mirrored=mirrored[1], overwrite=True)
        except Crash:
            crashed = True
        try:
            opened = PreparedFolder(out)
            found.add(wholes.index((tuple(opened.records), opened.features[[0, 1, 2]].tobytes())))
        except ImgcapError as error:
            assert "interrupted" in str(error)
            found.add(-1)
        run(out, new_data, mirrored=mirrored[1], overwrite=True)
        assert content(out) == content(new.root), f"killed before line {number}"
        shutil.rmtree(out)
    assert found == {0, 1, -1}


def test_an_interrupted_preparation_of_other_inputs_needs_overwrite(
    run: Prepare, tmp_path: Path, other_data: Dataset, whole: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Crash):
        run(out, other_data, on_progress=crash_after(8))
    with pytest.raises(ImgcapError, match="interrupted preparation of other inputs"):
        run(out)
    run(out, overwrite=True)
    assert content(out) == content(whole)


@pytest.mark.parametrize("change", ["image", "time", "split", "left out", "encoder", "order"])
def test_any_changed_input_is_noticed(
    source: Path, tiny_encoder_file: Path, tmp_path: Path, change: str, run: Prepare
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    data = read_dataset(folder / "images", folder / "captions.csv")
    run(tmp_path / "out", data)
    encoder_file, records = tiny_encoder_file, data.records
    if change == "image":
        draw("white", 3, size=32).save(folder / "images" / "000.png")
    elif change == "time":
        os.utime(folder / "images" / "000.png", ns=(1, 1))
    elif change == "split":
        other = "test" if records[0].split == "train" else "train"
        data = replace(data, records=(replace(records[0], split=other), *records[1:]))
    elif change == "left out":
        data = replace(data, left_out=())
    elif change == "order":
        data = replace(data, records=records[::-1])
    else:
        encoder_file = tmp_path / "other.safetensors"
        save_file({"weight": torch.zeros(5)}, encoder_file)
    with pytest.raises(ImgcapError, match="other inputs"):
        prepare(data, NamedEncoder("fake", encoder_file, NoEncoder()), tmp_path / "out")


def test_an_image_that_changes_while_it_is_prepared_is_noticed_afterwards(
    source: Path, tmp_path: Path, run: Prepare
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    data = read_dataset(folder / "images", folder / "captions.csv")

    def change(done: int, total: int) -> None:
        if done == total:
            draw("white", 3, size=32).save(folder / "images" / "000.png")

    run(tmp_path / "out", data, on_progress=change)
    with pytest.raises(ImgcapError, match="other inputs"):
        run(tmp_path / "out", data)
