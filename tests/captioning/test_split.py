"""Captioning a split of a prepared folder, and the file it is written to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.data import TINY_TRAINING, with_records
from imgcap.captioning.captioner import load_model
from imgcap.captioning.split import (
    CaptionedRecord,
    caption_split,
    remarks_on,
    write_captions,
)
from imgcap.dataset.prepared import METADATA_FILE, PreparedFolder
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, write_json
from imgcap.model.search import SearchOptions
from imgcap.model.store import CONFIG_FILE, INDEX_FILE, import_model, write_manifest
from imgcap.scoring.caption_files import read_captions
from imgcap.scoring.pairs import read_pairs
from imgcap.training.trainer import train

FEW_STEPS = replace(TINY_TRAINING, epochs=1, patience=0, embedding_size=None, hidden_size=None)


@pytest.fixture(scope="module")
def captioned(prepared: PreparedFolder, telling_model: Path) -> tuple[CaptionedRecord, ...]:
    return caption_split(prepared.root, str(telling_model), "train").records


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_image_of_the_split_has_one_row(prepared: PreparedFolder, telling_model: Path, split: str) -> None:
    rows = caption_split(prepared.root, str(telling_model), split).records
    expected = [record for record in prepared.records if record.split == split]
    assert expected
    assert [(row.image_id, row.path, row.references) for row in rows] == [
        (record.image_id, record.path, record.captions) for record in expected
    ]
    assert all(len(row.references) == 2 for row in rows)
    assert all(row.caption and row.log_probability < 0 for row in rows)


def test_captions_are_those_of_the_images(
    captioned: tuple[CaptionedRecord, ...], prepared: PreparedFolder, telling_model: Path
) -> None:
    captions = load_model(telling_model).caption([prepared.image_root / row.path for row in captioned])
    assert len({row.caption for row in captioned}) > 3  # else a wrong order could not be seen
    assert [row.caption for row in captioned] == [caption.text for caption in captions]
    for row, caption in zip(captioned, captions, strict=True):
        assert row.log_probability == pytest.approx(caption.log_probability, abs=1e-2)


def test_options_start_from_the_models_own_and_are_passed_on(prepared: PreparedFolder, telling_model: Path) -> None:
    seen = []

    def choose(own: SearchOptions) -> SearchOptions:
        seen.append(own)
        return replace(own, min_length=6, max_length=6)

    found = caption_split(prepared.root, str(telling_model), "test", choose)
    assert found.search == replace(seen[0], min_length=6, max_length=6)
    assert seen == [SearchOptions(beam_size=2)]
    assert all(len(row.caption.split()) == 6 for row in found.records)


def test_progress_counts_from_0_to_the_end(prepared: PreparedFolder, telling_model: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = caption_split(prepared.root, str(telling_model), "train", on_progress=lambda *now: seen.append(now))
    count = len(found.records)
    assert seen == [(done, count) for done in range(count + 1)]


def test_it_has_what_it_takes_to_score_it(prepared: PreparedFolder, telling_model: Path) -> None:
    found = caption_split(prepared.root, str(telling_model), "test")
    assert found.training == [record.captions for record in prepared.records if record.split == "train"]
    assert found.model.config.name == "telling"
    assert found.prepared.image_root == prepared.image_root


def test_an_imported_model_is_found_by_name(
    prepared: PreparedFolder, telling_model: Path, captioned: tuple[CaptionedRecord, ...]
) -> None:
    import_model(telling_model, "mine")
    assert caption_split(prepared.root, "mine", "train").records == captioned


@pytest.fixture
def copy(prepared: PreparedFolder, tmp_path: Path) -> Path:
    """The prepared folder again, its files linked, its metadata free to be changed."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    for path in prepared.root.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / METADATA_FILE).unlink()
    write_json(folder / METADATA_FILE, read_json(prepared.root / METADATA_FILE))
    return folder


def test_features_of_another_encoder_are_computed_again(
    copy: Path, prepared: PreparedFolder, telling_model: Path
) -> None:
    write_json(copy / METADATA_FILE, {**read_json(copy / METADATA_FILE), "encoder_fingerprint": "0" * 64})
    found, fitting = (caption_split(folder, str(telling_model), "test") for folder in (copy, prepared.root))
    assert [record.caption for record in found.records] == [record.caption for record in fitting.records]
    assert remarks_on(found)[:-1] == [
        f"The features in {copy} come from another encoder than {telling_model} needs, so its own encoder encoded the "
        "images again."
    ]


def test_what_is_missing_is_one_sentence(
    prepared: PreparedFolder, copy: Path, telling_model: Path, tmp_path: Path
) -> None:
    model = str(telling_model)
    with pytest.raises(ImgcapError, match="is not a prepared folder"):
        caption_split(tmp_path / "nothing", model, "test")
    with pytest.raises(ImgcapError, match="There is no model 'barns'"):
        caption_split(prepared.root, "barns", "test")
    with pytest.raises(UsageError, match="Unknown split 'dev'"):
        caption_split(prepared.root, model, "dev")
    lines = (copy / "records.jsonl").read_text().replace('"split": "val"', '"split": "train"')
    (copy / "records.jsonl").unlink()
    (copy / "records.jsonl").write_text(lines)
    with pytest.raises(ImgcapError, match="no images in the split 'val'"):
        caption_split(copy, model, "val")


def test_written_captions_are_read_back(captioned: tuple[CaptionedRecord, ...], tmp_path: Path) -> None:
    odd = [
        CaptionedRecord(
            'a "quoted" name.jpg', "sub/a.jpg", "line\u2028separators, ünïcödé and \\ too", -1.23456789, ()
        ),
        CaptionedRecord("empty.jpg", "empty.jpg", "", -2.0, ()),
    ]
    file = tmp_path / "new" / "folder" / "captions.jsonl"
    write_captions(file, [*captioned, *odd])
    assert read_captions(file) == {row.image_id: [row.caption] for row in [*captioned, *odd]}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    assert rows[-2] == {"image_id": odd[0].image_id, "path": "sub/a.jpg", "caption": odd[0].caption} | {
        "log_probability": -1.2346
    }
    assert list(file.parent.iterdir()) == [file]


def test_written_captions_match_their_references(captioned: tuple[CaptionedRecord, ...], tmp_path: Path) -> None:
    write_captions(tmp_path / "captions.jsonl", captioned)
    references = [{"image_id": row.image_id, "captions": list(row.references)} for row in captioned]
    write_json(tmp_path / "references.json", references)
    pairs = read_pairs(tmp_path / "captions.jsonl", [tmp_path / "references.json"])
    assert pairs.image_ids == [row.image_id for row in captioned]
    assert pairs.hypotheses == [row.caption for row in captioned]
    assert pairs.references == [list(row.references) for row in captioned]


def learned_from(name: Path, count: int, total: int) -> str:
    return f"{name} has learned from {count} of these {total} images, which raises its scores."


def without_index(name: Path) -> str:
    return f"{name} has no index of its training images, so nothing tells whether it has learned from some of these."


def test_images_that_a_model_has_learned_from_are_said_with_and_without_a_comparison(
    prepared: PreparedFolder, model_folder: Path, telling_model: Path
) -> None:
    ours, theirs = (caption_split(prepared.root, str(model), "train") for model in (model_folder, telling_model))
    count = len(ours.records)
    assert remarks_on(ours) == [learned_from(model_folder, count, count)]
    assert remarks_on(ours, theirs) == [learned_from(model_folder, count, count), without_index(telling_model)]
    assert remarks_on(theirs) == [without_index(telling_model)]
    assert remarks_on(caption_split(prepared.root, str(model_folder), "test")) == []


def test_images_of_the_trainings_before_the_last_are_known_too(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(model_folder, tmp_path / "start"))
    records = [replace(r, split="train" if r.split == "test" else None) for r in prepared.records]
    last = with_records(prepared, records, tmp_path / "last")
    train(last, replace(FEW_STEPS, start_from=str(start)), tmp_path / "mine")
    mine, count = tmp_path / "mine", len(prepared.rows("train"))

    def remarks(split: str = "train") -> list[str]:
        return remarks_on(caption_split(prepared.root, str(mine), split))

    assert remarks() == [learned_from(mine, count, count)]
    assert remarks("val") == []
    gone = (
        f"{mine} was trained from {start}, and nothing tells whether that model had learned from some of these images."
    )
    start.rename(tmp_path / "moved")
    assert remarks() == remarks("val") == [gone]
    known = len(prepared.rows("test"))
    assert remarks("test") == [learned_from(mine, known, known), gone.replace("some of", "others of")]
    shutil.copytree(tmp_path / "moved", start)
    (start / INDEX_FILE).unlink()
    write_manifest(start)
    assert remarks() == [gone]
    shutil.rmtree(start)
    shutil.copytree(tmp_path / "moved", start)
    config = read_json(mine / CONFIG_FILE)
    assert remarks() == [learned_from(mine, count, count)]
    config["training"]["start_hash"] = "another model"
    write_json(mine / CONFIG_FILE, config)
    write_manifest(mine)
    assert remarks() == [gone]
    del config["training"]["start_hash"]
    write_json(mine / CONFIG_FILE, {**config, "encoder_fingerprint": "0" * 64})
    write_manifest(mine)


def test_a_model_that_has_started_from_its_own_name_is_read_once(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(model_folder, tmp_path / "mine"))
    config = read_json(mine / CONFIG_FILE)
    config["training"]["options"]["start_from"] = str(mine)
    write_json(mine / CONFIG_FILE, config)
    write_manifest(mine)
    assert remarks_on(caption_split(prepared.root, str(mine), "test")) == []


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"captions": ("The only reference.",)}, True),
        ({"captions": ("A red wall.", "It is warm.")}, True),
        ({"path": "renamed.png"}, False),  # too few training images to be sure
    ],
)
def test_an_image_is_known_by_its_features(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, change: dict[str, Any], known: bool
) -> None:
    changed = with_records(prepared, [replace(r, **change) for r in prepared.records], tmp_path / "prepared")
    found = caption_split(changed.root, str(model_folder), "train").records
    assert {record.known for record in found} == {known}


def test_with_many_training_images_it_is_known_by_any_name(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcap.captioning.split._TELLING_COMPONENTS", 2)
    renamed = with_records(prepared, [replace(r, path="renamed.png") for r in prepared.records], tmp_path / "prepared")
    assert all(record.known for record in caption_split(renamed.root, str(model_folder), "train").records)


def test_a_smaller_copy_is_known_by_its_name_and_its_references(
    prepared: PreparedFolder, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcap.captioning.split._SAME_IMAGE", 2)
    assert all(record.known for record in caption_split(prepared.root, str(model_folder), "train").records)


def test_a_file_that_cannot_be_written_is_one_sentence(captioned: tuple[CaptionedRecord, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ImgcapError, match="cannot be created"):
        write_captions(tmp_path / "file" / "captions.jsonl", captioned)
    with pytest.raises(ImgcapError, match="cannot be written: is a directory"):
        write_captions(tmp_path / "folder.jsonl", captioned)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.jsonl"]


def test_captions_replace_those_of_an_earlier_run(captioned: tuple[CaptionedRecord, ...], tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    write_captions(file, captioned)
    write_captions(file, captioned[:1])
    assert len(read_captions(file)) == 1
