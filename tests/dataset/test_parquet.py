"""Data sets in Parquet files, as Hugging Face writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.archives import png
from helpers.parquet import IMAGE, image, pa, write_parquet
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.parquet import split_in_name
from imgcap.dataset.records import Dataset
from imgcap.errors import ImgcapError
from imgcap.text.columns import Columns

COLOURS = ("red", "green", "blue", "white")


def images(count: int, named: bool = True) -> list[dict[str, object]]:
    return [image(png(COLOURS[i % 4], i), f"{i}.png" if named else None) for i in range(count)]


def told(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {record.path: record.captions for record in dataset.records}


def left_out(dataset: Dataset) -> dict[str, str]:
    return {left.name: left.reason for left in dataset.left_out}


def refusal(file: Path, **options: Any) -> str:
    with pytest.raises(ImgcapError) as caught:
        read_dataset(str(file), **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "types"),
    [
        ({"caption": ["a b", "c"]}, {}),
        ({"text": ["a b", "c"]}, {"text": pa.large_string()}),
        ({"captions": [["a b", "A b ."], ["c", "C !"]]}, {}),
        ({"sentences": [[{"raw": "a b", "n": 1}], [{"raw": "c", "n": 2}]]}, {}),
        ({"sentences": [{"raw": "a b"}, {"raw": "c"}]}, {}),
        ({"sentences_raw": [["a b"], ["c"]]}, {}),
        ({"caption_0": ["a b", "c"], "caption_1": ["A b .", "C !"]}, {}),
        ({"alt_text": ["a b", "c"]}, {"alt_text": pa.dictionary(pa.int32(), pa.string())}),
    ],
)
def test_captions_are_found_by_name_and_may_be_lists(
    tmp_path: Path, columns: dict[str, list[object]], types: dict[str, object]
) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": images(2), "label": [1, 2], **columns}, types)
    captions = told(read_dataset(str(file)))
    assert [tuple(caption for caption in each if caption in ("a b", "c")) for each in captions.values()] == [
        ("a b",),
        ("c",),
    ]
    assert {len(each) for each in captions.values()} == {2 if len(columns) == 2 or "captions" in columns else 1}
    assert list(captions) == ["a.parquet/0.png", "a.parquet/1.png"]


def test_a_named_column_counts(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": images(1), "caption": ["a"], "en": ["b"]})
    assert list(told(read_dataset(str(file), columns=Columns(caption="en"))).values()) == [("b",)]
    sentence = f"{file} has no column 'fr'; its columns: image, caption, en."
    assert refusal(file, columns=Columns(caption="fr")).startswith(sentence)


@pytest.mark.parametrize(
    ("location", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "val"),
        ("TEST.parquet", "test"),
        ("flickr30k_test.parquet", "test"),
        ("default/partial-train/0000.parquet", "train"),
        ("hf://datasets/a/b@~parquet/default/dev/0000.parquet", "val"),
        ("https://host/test/a.parquet?split=train", "test"),
        ("a.parquet", None),
        ("training/data/a.parquet", None),
        ("trains.parquet", None),
    ],
)
def test_the_split_is_in_the_name(location: str, split: str | None) -> None:
    assert split_in_name(location) == split


def test_shards_have_their_splits_and_rows_may_have_others(tmp_path: Path) -> None:
    for name, start in (("train-00000-of-00002", 0), ("train-00001-of-00002", 3), ("test-00000-of-00001", 6)):
        columns: dict[str, list[object]] = {
            "image": [image(png(COLOURS[i % 4], i), f"{i}.png") for i in range(start, start + 3)],
            "caption": [f"wall {i}" for i in range(start, start + 3)],
            "split": ["", "val", None],
        }
        write_parquet(tmp_path / "data" / f"{name}.parquet", columns)
    dataset = read_dataset(str(tmp_path))
    assert [(record.path.rpartition("/")[2], record.split) for record in dataset.records] == [
        ("6.png", "test"),
        ("7.png", "val"),
        ("8.png", "test"),
        ("0.png", "train"),
        ("1.png", "val"),
        ("2.png", "train"),
        ("3.png", "train"),
        ("4.png", "val"),
        ("5.png", "train"),
    ]
    assert dataset.archives == (
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    )


@pytest.mark.parametrize("named", [True, False])
def test_rows_with_one_image_are_one_record(tmp_path: Path, named: bool) -> None:
    five = [each for each in images(3, named) for _ in range(5)]
    captions = [f"caption {i}" for i in range(15)]
    write_parquet(tmp_path / "0.parquet", {"image": five[:7], "caption": captions[:7]})
    write_parquet(tmp_path / "1.parquet", {"image": five[7:], "caption": captions[7:]})
    assert told(read_dataset(str(tmp_path))) == {
        "0.parquet/0": tuple(captions[:5]),
        "0.parquet/5": tuple(captions[5:10]),
        "1.parquet/3": tuple(captions[10:]),
    }


def test_other_images_of_one_name_stay_apart(tmp_path: Path) -> None:
    same_names = [image(png(colour), "image.png") for colour in COLOURS]
    file = write_parquet(tmp_path / "a.parquet", {"image": same_names, "caption": COLOURS})
    assert told(read_dataset(str(file))) == {f"a.parquet/{i}": (colour,) for i, colour in enumerate(COLOURS)}


def test_rows_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "image": [*images(5)],
        "captions": [["a"], [], None, ["", None], ["b", "\0"]],
        "split": ["train", None, None, None, "later"],
    }
    assert told(read_dataset(str(write_parquet(tmp_path / "a.parquet", columns)))) == {"a.parquet/0.png": ("a",)}
    assert left_out(read_dataset(str(tmp_path / "a.parquet"))) == {
        "a.parquet/1.png": "has no caption",
        "a.parquet/2.png": "has no caption",
        "a.parquet/3.png": "has no caption",
        "a.parquet/4.png": "has the unknown split 'later'; known are train, val, test",
    }


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({}, "has no caption column; its columns: image."),
        ({"caption": [1]}, "has no captions: its column 'caption' holds int64, not text."),
        ({"captions": [[1]]}, "not text."),
        ({"caption": [None]}, "has no captions: its column 'caption' holds null, not text."),
        ({"sentences": [{"tokens": ["a"]}]}, "not text."),
    ],
)
def test_captions_that_are_not_text_are_one_sentence(
    tmp_path: Path, columns: dict[str, list[object]], sentence: str
) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": images(1), **columns})
    error = refusal(file)
    assert error.startswith(f"{file} has no caption")
    assert sentence in error


def test_captions_may_be_in_another_file(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": images(2)})
    (tmp_path / "captions.csv").write_text("image,caption\n0.png,a wall\na.parquet/1.png,another\n")
    assert list(told(read_dataset(str(file), tmp_path / "captions.csv")).values()) == [("a wall",), ("another",)]


@pytest.mark.parametrize(
    ("columns", "types"),
    [
        ({"file_name": ["0.png", "1.png"], "captions": [["a"], ["b"]], "split": ["train", "val"]}, {}),
        ({"image": [image(b"other", "0.png"), image(None, "1.png")], "text": ["a", "b"]}, {"image": IMAGE}),
    ],
)
def test_captions_of_images_in_a_folder_may_be_parquet(
    tmp_path: Path, columns: dict[str, list[object]], types: dict[str, object]
) -> None:
    (tmp_path / "images").mkdir()
    for i in range(2):
        (tmp_path / "images" / f"{i}.png").write_bytes(png())
    file = write_parquet(tmp_path / "captions.parquet", columns, types if "image" in columns else None)
    assert told(read_dataset(tmp_path / "images", file)) == {"0.png": ("a",), "1.png": ("b",)}


def test_a_caption_file_without_captions_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png())
    file = write_parquet(tmp_path / "captions.parquet", {"path": ["0.png"], "n": [1]})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(tmp_path / "images", file)
    assert str(caught.value).startswith(f"{file} has no caption column; its columns: path, n.")
