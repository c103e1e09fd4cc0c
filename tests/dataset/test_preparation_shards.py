"""A preparation in shards: the same bytes as in one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.data import write_data_set
from helpers.preparation import rows_in_a_file
from imgcap.dataset import preparation
from imgcap.dataset.features import FeatureOptions
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.preparation import NamedEncoder, prepare, prepare_shard
from imgcap.dataset.prepared import PARTIAL_FOLDER
from imgcap.dataset.records import Dataset
from imgcap.dataset.unfinished import PROGRESS_FILE, SHARDS_FOLDER
from imgcap.errors import ImgcapError
from imgcap.model.encoder import Encoder
from imgcap.sharding import Shard

OPTIONS = FeatureOptions(mirrored=True, dtype="float16")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BATCH_SIZE", 4)
    rows_in_a_file(monkeypatch, 5)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """22 images, of which two are damaged."""
    captions = write_data_set(tmp_path, 22)
    for number in (1, 13):
        (tmp_path / "images" / f"{number:03}.png").write_bytes(b"damaged")
    return read_dataset(tmp_path / "images", captions)


@pytest.fixture
def named_encoder(encoder_file: Path, encoder: Encoder) -> NamedEncoder:
    return NamedEncoder("test", encoder_file, encoder)


@pytest.fixture
def whole(dataset: Dataset, named_encoder: NamedEncoder, tmp_path: Path) -> Path:
    prepare(dataset, named_encoder, tmp_path / "whole", OPTIONS)
    return tmp_path / "whole"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_merged_shards_equal_a_single_run(
    dataset: Dataset, named_encoder: NamedEncoder, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    for number in (2, 0, 1):
        prepare_shard(
            dataset,
            named_encoder,
            out,
            Shard(number, 3),
            OPTIONS,
            on_progress=lambda *counts: seen.append(counts),
        )
    assert {total for _, total in seen} == {6, 8}
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "__call__", lambda *_: pytest.fail("encoded again"))
        prepare(dataset, named_encoder, out, OPTIONS)
    assert contents(out) == contents(whole)


def test_unfinished_batches_of_a_shard_are_encoded_by_the_next_run(
    dataset: Dataset, named_encoder: NamedEncoder, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for shard in (Shard(0, 3), Shard(1, 3)):
        prepare_shard(dataset, named_encoder, out, shard, OPTIONS)
    progress = out / SHARDS_FOLDER / "2-of-3" / PROGRESS_FILE
    lines = progress.read_bytes().splitlines(keepends=True)
    progress.write_bytes(b"".join(lines[:-1]) + lines[-1][:5])  # as a kill leaves it
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    prepare(dataset, named_encoder, out, OPTIONS)
    assert contents(out) == contents(whole)

    prepare_shard(dataset, named_encoder, copy, Shard(0, 2), OPTIONS)  # takes from the shards of three
    prepare_shard(dataset, named_encoder, copy, Shard(1, 3), OPTIONS)  # resumes after the torn line
    assert progress.read_bytes() != b"".join(lines[:-1]) if progress.exists() else True
    prepare(dataset, named_encoder, copy, OPTIONS)
    assert contents(copy) == contents(whole)


def test_shards_of_other_inputs_are_not_used(
    dataset: Dataset, named_encoder: NamedEncoder, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare_shard(dataset, named_encoder, out, Shard(0, 2), FeatureOptions(mirrored=True))
    with pytest.raises(ImgcapError, match="other inputs"):
        prepare_shard(dataset, named_encoder, out, Shard(0, 2), OPTIONS)
    prepare(dataset, named_encoder, out, OPTIONS)
    assert contents(out) == contents(whole)


def test_a_shard_of_a_complete_folder_does_nothing(dataset: Dataset, named_encoder: NamedEncoder, whole: Path) -> None:
    before = contents(whole)
    prepare_shard(dataset, named_encoder, whole, Shard(0, 2), OPTIONS)
    assert contents(whole) == before
    assert not (whole / PARTIAL_FOLDER).exists()
