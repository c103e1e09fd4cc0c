"""Small data sets from public reports, as their users have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.data import SHARED_DATA
from helpers.data_sets import contents, left_out
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.splits import split_note
from imgcap.images.sidecars import SidecarPaths
from imgcap.text.scripts import unspaced_note

REPORTS = SHARED_DATA.parent / "reports"
pytestmark = pytest.mark.shared_data


@pytest.fixture
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder `photos` of the report that the test names."""
    shutil.copytree(REPORTS / request.param / "photos", tmp_path / "photos")
    for path in (tmp_path / "photos", *(tmp_path / "photos").iterdir()):
        path.chmod(0o755)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("captions", "images", "place", "reason"),
    [
        ("photos", 3, "metadata.jsonl, line 3", "has no caption for 002.jpg"),
        ("null.coco.json", 3, "null.coco.json, annotations[2]", "has no caption for 002.jpg"),
        ("subset.coco.json", 3, "subset.coco.json, annotations[3]", "is of the image 3, which is not in images"),
        ("results.csv", 4, "results.csv, line 6", "has 2 of 3 columns"),
        ("e.csv", 3, "e.csv, line 4", "has an empty caption for 002.jpg"),
    ],
)
def test_one_bad_row_is_left_out(captions: str, images: int, place: str, reason: str) -> None:
    report = REPORTS / "null-caption"
    dataset = read_dataset(report / "photos", report / captions)
    assert len(dataset.records) == images
    assert left_out(dataset)[place] == reason


def test_ids_of_text_are_the_same_as_numbers() -> None:
    report = REPORTS / "null-caption"
    dataset = read_dataset(report / "photos", report / "strid.coco.json")
    assert len(dataset.records) == 4
    assert not dataset.left_out


def test_one_sidecar_of_another_encoding_is_left_out() -> None:
    photos = REPORTS / "sidecar-cp1252" / "photos"
    dataset = read_dataset(photos, photos)
    assert len(dataset.records) == 3
    assert left_out(dataset) == {"002.txt": "line 1 is not UTF-8 text", "002.jpg": "no caption names it"}


def test_numbered_captions_and_lists_in_cells_are_read() -> None:
    report = REPORTS / "hf-caption-n"
    numbered = read_dataset(report / "data", report / "data")
    assert {len(record.captions) > 1 for record in numbered.records} == {True}
    lists = read_dataset(report / "data", report / "flickr_annotations.csv")
    assert contents(lists)["dev/004.jpg"] == (["a red dog runs", "the dog runs on grass"], "val")
    assert not [item for item in (*numbered.left_out, *lists.left_out) if "line" in item.name]


def test_a_small_data_set_without_a_val_split_can_be_trained_on() -> None:
    report = REPORTS / "no-val"
    for folder in ("hf", "hf1"):
        dataset = read_dataset(report / folder, report / folder)
        assert split_note(record.split for record in dataset.records) == ""


def test_captions_without_spaces_are_noted() -> None:
    report = REPORTS / "chinese"
    dataset = read_dataset(report / "p", report / "c.csv")
    assert "no spaces between words (Chinese)" in unspaced_note(
        c for record in dataset.records for c in record.captions
    )


@pytest.mark.parametrize("photos", ["sidecar-roundtrip"], indirect=True)
@pytest.mark.parametrize(("suffix", "mirrored"), [(".txt", False), (".txt", True), (".caption", False)])
def test_sidecars_survive_the_round_trip(photos: Path, tmp_path: Path, suffix: str, mirrored: bool) -> None:
    folder = tmp_path / "captions" if mirrored else photos
    places = SidecarPaths(suffix, folder if mirrored else None, photos)
    names = sorted(path.name for path in photos.iterdir())
    for name in names:
        places.of(photos / name).parent.mkdir(exist_ok=True)
        places.of(photos / name).write_text(f"a caption of {name}\n")
    dataset = read_dataset(photos, folder)
    assert {path: captions for path, (captions, _) in contents(dataset).items()} == {
        name: [f"a caption of {name}"] for name in names
    }
