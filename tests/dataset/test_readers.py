"""Data sets: every format read as people have it, and wrong inputs refused in one sentence that names the file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers.data import SHARED_DATA
from imgcap.dataset.readers import FORMATS, SPLITS, Dataset, detect_format, read_dataset, split_name
from imgcap.errors import ImgcapError, UsageError

Files = Mapping[str, object]
Captions = dict[str, tuple[list[str], str | None]]
"""The captions and the split of each image, by its path."""


def write(folder: Path, files: Files) -> None:
    """Files below `folder`: bytes and text as they are, all else as JSON (in .jsonl, one item a line)."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
            continue
        if not isinstance(content, str):
            rows = content if isinstance(content, list) and name.endswith("jsonl") else [content]
            content = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text(content, encoding="utf-8", newline="")


def write_images(folder: Path, *names: str) -> Path:
    """Empty files named like images: reading a data set does not decode them."""
    folder.mkdir(exist_ok=True)
    write(folder, dict.fromkeys(names, b""))
    return folder


def contents(dataset: Dataset) -> Captions:
    return {record.path: (list(record.captions), record.split) for record in dataset.records}


def left_out(dataset: Dataset) -> dict[str, str]:
    return {item.name: item.reason for item in dataset.left_out}


def csv_text(*rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


# --- formats

FLICKR8K = (
    "1000_a.jpg#0\tA child in a pink dress .\n"
    "1000_a.jpg#1\tA girl going into a wooden building .\n"
    "2258277193_586949ec62.jpg.1#0\tPeople wait for a train .\n"
    "1001_b.jpg#0\tA black dog and a tri-colored dog\n"
    "1002_c.jpg#0\tA image that is missing .\n"
    "1003_d.jpg#0\tTwo men .\n"
    "1004_e.jpg#0\tIn no split .\n"
)
COCO: dict[str, object] = {
    "info": {"description": "COCO 2014 Dataset"},
    "images": [
        {"license": 5, "file_name": "COCO_val2014_000000057870.jpg", "height": 480, "width": 640, "id": 57870},
        {"license": 5, "file_name": "COCO_val2014_000000384029.jpg", "height": 429, "width": 640, "id": 384029},
    ],
    "licenses": [{"id": 1, "name": "CC"}],
    "annotations": [
        {"image_id": 384029, "id": 37, "caption": "A bathtub."},
        {"image_id": 57870, "id": 48, "caption": "A restaurant has modern wooden tables and chairs."},
        {"image_id": 384029, "id": 38, "caption": "A white bathtub"},
    ],
}
KARPATHY: dict[str, object] = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "sentids": [0, 1],
            "filename": "COCO_val2014_000000000042.jpg",
            "imgid": 0,
            "split": "test",
            "sentences": [
                {"tokens": ["a", "shoe"], "raw": "A shoe.", "imgid": 0, "sentid": 0},
                {"tokens": ["shoes"], "raw": "Shoes", "imgid": 0, "sentid": 1},
            ],
            "cocoid": 42,
        },
        {"filepath": "val2014", "filename": "b.jpg", "split": "restval", "sentences": [{"raw": "A boat."}]},
        {"filepath": "train2014", "filename": "c.jpg", "split": "train", "sentences": [{"raw": "A cat."}]},
        {"filepath": "val2014", "filename": "d.jpg", "split": "val", "sentences": [{"raw": "A dog."}]},
    ],
}

# What the caption file, or the folder of them, is called; the files; the images; and what is read of them.
EXAMPLES: dict[str, tuple[str, str, Files, list[str], Captions]] = {
    "flickr8k": (
        "flickr8k",
        "Flickr8k.token.txt",
        {"Flickr8k.token.txt": FLICKR8K},
        ["1000_a.jpg", "1001_b.jpg", "1003_d.jpg", "1004_e.jpg"],
        {
            "1000_a.jpg": (["A child in a pink dress .", "A girl going into a wooden building ."], None),
            "1001_b.jpg": (["A black dog and a tri-colored dog"], None),
            "1003_d.jpg": (["Two men ."], None),
            "1004_e.jpg": (["In no split ."], None),
        },
    ),
    "flickr8k of Windows": (
        "flickr8k",
        "results_20130124.token",
        {"results_20130124.token": b"\xef\xbb\xbfa.jpg#0\tA dog .\r\nb.jpg#0\tA cat .\r\n"},
        ["a.jpg", "b.jpg"],
        {"a.jpg": (["A dog ."], None), "b.jpg": (["A cat ."], None)},
    ),
    "Kaggle's Flickr8k": (
        "csv",
        "captions.txt",
        {"captions.txt": 'image,caption\na.jpg,A dog .\na.jpg,"A dog , and a ""cat"" ."\nb.jpg, Two men .\n'},
        ["a.jpg", "b.jpg"],
        {"a.jpg": (["A dog .", 'A dog , and a "cat" .'], None), "b.jpg": (["Two men ."], None)},
    ),
    "Kaggle's Flickr30k": (
        "csv",
        "results.csv",
        {
            "results.csv": "image_name| comment_number| comment\n"
            "1000092795.jpg| 0| Two young guys , one with shaggy hair , look at their hands .\n"
            '1000092795.jpg| 1| " Two young " , White males are outside .\n'
            '10002456.jpg| 0| " A sign in the image\n'
            "10002456.jpg| 1| Several men\n"
        },
        ["1000092795.jpg", "10002456.jpg"],
        {
            "1000092795.jpg": (
                [
                    "Two young guys , one with shaggy hair , look at their hands .",
                    '" Two young " , White males are outside .',
                ],
                None,
            ),
            "10002456.jpg": (['" A sign in the image', "Several men"], None),
        },
    ),
    "csv with a split column": (
        "csv",
        "all.csv",
        {
            "all.csv": csv_text(
                ["ID", "Split", "Text", "File_Name"],
                ["1", "train", "One\nline and another", "a.jpg"],
                ["2", "Dev", "Two, three", "b.jpg"],
                ["3", "TEST ", "Four", "c.jpg"],
                ["4", "", "Five", "d.jpg"],
                [],
                ["", "", "", ""],
            )
        },
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        {
            "a.jpg": (["One\nline and another"], "train"),
            "b.jpg": (["Two, three"], "val"),
            "c.jpg": (["Four"], "test"),
            "d.jpg": (["Five"], None),
        },
    ),
    "tsv": (
        "csv",
        "all.tsv",
        {"all.tsv": "image_path\tcaption\n./sub/a.jpg\tA dog, running; it is fast\nsub\\b.jpg\tA cat\t\n"},
        ["sub/a.jpg", "sub/b.jpg"],
        {"sub/a.jpg": (["A dog, running; it is fast"], None), "sub/b.jpg": (["A cat"], None)},
    ),
    "csv of Excel": (
        "csv",
        "all.csv",
        {"all.csv": b"\xef\xbb\xbfimage;caption\r\na.jpg;Ein Hund, ein Ball\r\nb.jpg;Zwei \xc3\x84pfel\r\n"},
        ["a.jpg", "b.jpg"],
        {"a.jpg": (["Ein Hund, ein Ball"], None), "b.jpg": (["Zwei Äpfel"], None)},
    ),
    "coco": (
        "coco",
        "captions_val2014.json",
        {"captions_val2014.json": COCO},
        ["COCO_val2014_000000057870.jpg", "COCO_val2014_000000384029.jpg"],
        {
            "COCO_val2014_000000384029.jpg": (["A bathtub.", "A white bathtub"], None),
            "COCO_val2014_000000057870.jpg": (["A restaurant has modern wooden tables and chairs."], None),
        },
    ),
    "karpathy": (
        "karpathy",
        "dataset_coco.json",
        {"dataset_coco.json": KARPATHY},
        ["val2014/COCO_val2014_000000000042.jpg", "val2014/b.jpg", "train2014/c.jpg", "val2014/d.jpg"],
        {
            "val2014/COCO_val2014_000000000042.jpg": (["A shoe.", "Shoes"], "test"),
            "val2014/b.jpg": (["A boat."], "train"),
            "train2014/c.jpg": (["A cat."], "train"),
            "val2014/d.jpg": (["A dog."], "val"),
        },
    ),
    "karpathy with all images in one folder": (
        "karpathy",
        "dataset_coco.json",
        {"dataset_coco.json": KARPATHY},
        ["COCO_val2014_000000000042.jpg", "b.jpg", "c.jpg", "d.jpg"],
        {
            "COCO_val2014_000000000042.jpg": (["A shoe.", "Shoes"], "test"),
            "b.jpg": (["A boat."], "train"),
            "c.jpg": (["A cat."], "train"),
            "d.jpg": (["A dog."], "val"),
        },
    ),
    "json lines": (
        "jsonl",
        "all.jsonl",
        {
            "all.jsonl": [
                {"image": "a.jpg", "caption": "A dog.", "split": "training"},
                {"image": "b.jpg", "captions": ["A cat.", "Two\ncats"], "split": "validation"},
                {"file_name": "c.jpg", "text": "A cow.", "split": "test", "width": 3},
                {"image_path": "d", "caption": "By its stem", "split": None},
                {"image": "a.jpg", "caption": "The dog again", "split": "train"},
            ]
        },
        ["a.jpg", "b.jpg", "c.jpg", "d.png"],
        {
            "a.jpg": (["A dog.", "The dog again"], "train"),
            "b.jpg": (["A cat.", "Two\ncats"], "val"),
            "c.jpg": (["A cow."], "test"),
            "d.png": (["By its stem"], None),
        },
    ),
    "json lines by their content": (
        "jsonl",
        "captions",
        {"captions": '\n{"caption": "A dog", "image": "a.jpg"}\n'},
        ["a.jpg", "b.jpg", "c.jpg"],
        {"a.jpg": (["A dog"], None)},
    ),
    "sidecars": (
        "sidecars",
        "images",
        {
            "images/a.txt": "A dog.\n\n  A brown dog. \n",
            "images/deep/b.txt": b"\xef\xbb\xbfA cat\xe2\x80\xa8and more\r\n",
            "images/unrelated.txt": "Nothing",
        },
        ["a.jpg", "deep/b.png", "no-sidecar.jpg"],
        {"a.jpg": (["A dog.", "A brown dog."], None), "deep/b.png": (["A cat\u2028and more"], None)},
    ),
    "imagefolder with csv": (
        "imagefolder",
        "images",
        {"images/metadata.csv": "file_name,text\n0001.png,This is a golden retriever\n0002.png,A dalmatian\n"},
        ["0001.png", "0002.png"],
        {"0001.png": (["This is a golden retriever"], None), "0002.png": (["A dalmatian"], None)},
    ),
    "imagefolder with json lines": (
        "imagefolder",
        "images",
        {"images/metadata.jsonl": [{"file_name": "sub/1.png", "text": "A dog"}, {"file_name": "2.png", "text": "B"}]},
        ["sub/1.png", "2.png"],
        {"sub/1.png": (["A dog"], None), "2.png": (["B"], None)},
    ),
    "imagefolder with a folder for each split": (
        "imagefolder",
        "images",
        {
            "images/train/metadata.csv": "file_name,text\n1.png,Trained\nsub/2.png,Trained too\n",
            "images/validation/metadata.jsonl": [{"file_name": "1.png", "text": "Validated"}],
            "images/test/metadata.csv": "file_name,text\n1.png,Tested\n",
        },
        ["train/1.png", "train/sub/2.png", "validation/1.png", "test/1.png"],
        {
            "test/1.png": (["Tested"], "test"),
            "train/1.png": (["Trained"], "train"),
            "train/sub/2.png": (["Trained too"], "train"),
            "validation/1.png": (["Validated"], "val"),
        },
    ),
}


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_format_is_read_whether_detected_or_named(tmp_path: Path, example: str, forced: bool) -> None:
    format_name, file, files, names, expected = EXAMPLES[example]
    write(tmp_path, files)
    image_folder = write_images(tmp_path / "images", *names)
    assert detect_format(tmp_path / file) == format_name
    dataset = read_dataset(image_folder, tmp_path / file, format_name if forced else None)
    found = contents(dataset)
    if any(split for _, split in expected.values()):
        assert found == expected
    else:
        assert {path: captions for path, (captions, _) in found.items()} == {p: c for p, (c, _) in expected.items()}
        assert None not in {record.split for record in dataset.records}
    assert list(found) == list(expected)
    assert dataset.root == image_folder


def test_every_format_has_an_example() -> None:
    assert {format_name for format_name, *_ in EXAMPLES.values()} == set(FORMATS)


def test_records_keep_the_name_that_the_caption_file_gives(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "val2014/a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\nb,y\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv")
    assert [(record.image_id, record.path) for record in dataset.records] == [
        ("a.jpg", "val2014/a.jpg"),
        ("b", "b.jpg"),
    ]


# --- split lists


def flickr8k(tmp_path: Path) -> tuple[Path, Path, dict[str, Path]]:
    """Flickr8k in small, with an odd entry, a missing image and one that is in no split."""
    write(
        tmp_path,
        {
            "tokens.txt": FLICKR8K,
            "train.txt": "1000_a.jpg\n1002_c.jpg\n",
            "dev.txt": "\ufeff1001_b.jpg\r\n\r\n",
            "test.txt": " 1003_d ",
        },
    )
    image_folder = write_images(tmp_path / "images", "1000_a.jpg", "1001_b.jpg", "1003_d.jpg", "1004_e.jpg")
    splits = {"train": tmp_path / "train.txt", "val": tmp_path / "dev.txt", "test": tmp_path / "test.txt"}
    return image_folder, tmp_path / "tokens.txt", splits


def test_split_lists_decide_and_what_is_missing_is_named(tmp_path: Path) -> None:
    image_folder, tokens, splits = flickr8k(tmp_path)
    dataset = read_dataset(image_folder, tokens, split_files=splits)
    assert {path: split for path, (_, split) in contents(dataset).items()} == {
        "1000_a.jpg": "train",
        "1001_b.jpg": "val",
        "1003_d.jpg": "test",
        "1004_e.jpg": None,
    }
    assert left_out(dataset) == {
        "2258277193_586949ec62.jpg.1": "has captions, but its name does not end like an image's",
        "1002_c.jpg": "has captions, but no image",
    }


def test_split_lists_go_before_the_splits_of_the_caption_file(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption,split\na.jpg,x,test\nb.jpg,y,test\n", "train.txt": "a.jpg\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={"train": tmp_path / "train.txt"})
    assert {record.path: record.split for record in dataset.records} == {"a.jpg": "train", "b.jpg": None}


def test_what_a_split_list_names_in_vain_is_left_out_with_a_reason(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n", "train.txt": "a.jpg\nb.jpg\nmissing.jpg\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={"train": tmp_path / "train.txt"})
    assert left_out(dataset) == {
        "missing.jpg": "is in the train list, but has no image",
        "b.jpg": "is in a split list, but has no caption",
        "c.jpg": "has no caption",
    }


def test_naming_a_image_twice_in_one_list_is_no_mistake(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n", "train.txt": "a.jpg\na\n./a.jpg\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv", split_files={"train": tmp_path / "train.txt"})
    assert [record.split for record in dataset.records] == ["train"]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"train": "nothing.jpg\nat all\n"}, "The split list TRAIN names none of the images."),
        ({"train": ""}, "The split list TRAIN names none of the images."),
        ({"train": "a.jpg\n", "val": "b.jpg\na.jpg\n"}, "a.jpg is in two split lists, train and val."),
        ({"train": b"\xe4.jpg\n"}, "TRAIN, line 1 is not UTF-8 text."),
        ({"train": None}, "TRAIN cannot be read: no such file or directory."),
    ],
)
def test_split_lists_that_do_not_fit_are_one_sentence(
    tmp_path: Path, lists: dict[str, str | bytes | None], sentence: str
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\nb.jpg,y\n"})
    write(tmp_path, {f"{name}.txt": content for name, content in lists.items() if content is not None})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv", split_files={name: tmp_path / f"{name}.txt" for name in lists})
    assert str(caught.value) == sentence.replace("TRAIN", str(tmp_path / "train.txt"))


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("restval", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("VALIDATION", "val"),
        (" dev\n", "val"),
        ("test", "test"),
    ],
)
def test_split_names_that_people_use(text: str, split: str) -> None:
    assert split_name(text, "here") == split


@pytest.mark.parametrize("text", ["", "holdout", "train2014"])
def test_other_split_names_are_one_sentence(text: str) -> None:
    with pytest.raises(ImgcapError) as caught:
        split_name(text, "all.csv, line 3")
    assert str(caught.value) == f"all.csv, line 3: unknown split {text!r}."
    assert "train, val, test" in caught.value.hint


# --- automatic splits


def automatic(tmp_path: Path, names: list[str]) -> dict[str, str | None]:
    folder = tmp_path / hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    image_folder = write_images(folder, *names)
    write(tmp_path, {"all.csv": csv_text(["image", "caption"], *([n, f"{n} {i}"] for n in names for i in range(2)))})
    return {record.path: record.split for record in read_dataset(image_folder, tmp_path / "all.csv").records}


def test_automatic_splits_are_by_image_and_always_the_same(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(500)]
    splits = automatic(tmp_path, names)
    assert splits == automatic(tmp_path, names)
    assert splits == automatic(tmp_path, names[::-1])
    counts = Counter(splits.values())
    assert set(counts) == set(SPLITS)
    assert counts["train"] == pytest.approx(400, abs=30)
    assert counts["val"] == pytest.approx(50, abs=25)
    assert counts["test"] == pytest.approx(50, abs=25)
    assert [splits[f"{i}.jpg"] for i in range(12)] == [automatic(tmp_path, names[:250])[f"{i}.jpg"] for i in range(12)]


def test_adding_images_leaves_the_others_in_their_split(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(400)]
    before, after = automatic(tmp_path, names[:200]), automatic(tmp_path, names)
    assert {name: after[name] for name in before} == before


def test_no_split_is_empty_from_three_images_on(tmp_path: Path) -> None:
    for count in (3, 4, 5, 10, 20):
        for start in range(20):
            splits = automatic(tmp_path, [f"{start}-{i}.jpg" for i in range(count)])
            assert set(splits.values()) == set(SPLITS), (count, start)


def test_captions_of_one_image_never_stand_in_two_splits(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption,split\na.jpg,x,\na.jpg,y,test\na.jpg,z,train\nb.jpg,x,train\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv")
    assert contents(dataset) == {"a.jpg": (["x", "y", "z"], "test"), "b.jpg": (["x"], "train")}


# --- names of images


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("sub/b.jpg", "sub/b.jpg"),
        ("sub\\b.jpg", "sub/b.jpg"),
        ("sub/b", "sub/b.jpg"),
        ("b.jpg", "sub/b.jpg"),
        ("b", "sub/b.jpg"),
        ("images/train/b.jpg", None),
        ("images/sub/b.jpg", "sub/b.jpg"),
        ("a.JPG", "a.jpg"),
        ("sub/a.jpg", None),
        ("/data/flickr/images/a.jpg", "a.jpg"),
        ("C:\\Users\\me\\a.jpg", "a.jpg"),
        ("../../a.jpg", "a.jpg"),
        ("../outside.jpg", None),
        ("../../outside.jpg", None),
        ("sub/../../outside.jpg", None),
        ("ABSOLUTE", None),
        ("/etc/passwd", None),
        ("..", None),
        ("", None),
        ("twice.jpg", None),
        ("one/twice.jpg", "one/twice.jpg"),
        ("a.png", None),
        (".hidden.jpg", None),
        ("notes.txt", None),
        ("notes", None),
    ],
)
def test_names_find_images_and_nothing_outside_their_folder(tmp_path: Path, name: str, path: str | None) -> None:
    name = name.replace("ABSOLUTE", str(tmp_path / "outside.jpg"))
    write(
        tmp_path, {"outside.jpg": b"", "ref.jsonl": [{"image": name, "caption": "x"}, {"image": "y", "caption": "y"}]}
    )
    image_folder = write_images(tmp_path / "images", "a.jpg", "sub/b.jpg", "y.jpg", "one/twice.jpg", "two/twice.jpg")
    write(image_folder, {".hidden.jpg": b"", "notes.txt": "x"})
    dataset = read_dataset(image_folder, tmp_path / "ref.jsonl")
    found = {record.path for record in dataset.records if record.captions == ("x",)}
    assert found == ({path} if path else set())
    assert (name in left_out(dataset)) == (path is None)
    for record in dataset.records:
        assert (image_folder / record.path).resolve().is_relative_to(image_folder.resolve())


def test_an_exact_name_goes_before_a_stem(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "a.jpg.png", "sub/a.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n"})
    assert [record.path for record in read_dataset(image_folder, tmp_path / "all.csv").records] == ["a.jpg"]


def test_images_and_captions_without_each_other_are_left_out_with_a_reason(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg", "sub/c.jpg", "empty.jpg")
    rows = "image,caption\na.jpg,x\na.jpg,\nmissing.jpg,y\nmissing.jpg,z\nodd.jpg.1,y\nempty.jpg,...\n"
    write(tmp_path, {"all.csv": rows})
    dataset = read_dataset(image_folder, tmp_path / "all.csv")
    assert {path: captions for path, (captions, _) in contents(dataset).items()} == {"a.jpg": ["x"]}
    assert left_out(dataset) == {
        "a.jpg": "has an empty caption",
        "missing.jpg": "has captions, but no image",
        "odd.jpg.1": "has captions, but its name does not end like an image's",
        "b.jpg": "has no caption",
        "empty.jpg": "has no caption",
        "sub/c.jpg": "has no caption",
    }


# --- what cannot be read


LONG_HEADER = f"{'x' * 40}, b, c, d, e and 2 more"
NO_TEXTS = "FILE: the captions of line 1 are neither text nor a list of texts."


def coco(**fields: object) -> dict[str, object]:
    return {**COCO, **fields}


def karpathy(**fields: object) -> dict[str, object]:
    image = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "x"}], **fields}
    return {"images": [{key: value for key, value in image.items() if value is not ...}]}


@pytest.mark.parametrize(
    ("name", "content", "format_name", "sentence"),
    [
        # tables
        ("all.csv", "image,words\na.jpg,x\n", None, "FILE has no caption column; its header is image, words."),
        ("all.csv", "image,caption\na.jpg,x\n", None, "FILE has no image column; its header is image, caption."),
        ("all.csv", "a.jpg,A dog\n", None, "FILE has no image column; its header is a.jpg, a dog."),
        ("all.csv", "", None, "FILE has no image column; its header is empty."),
        ("all.csv", "image,caption\na.jpg,x\na.jpg", None, "FILE, line 3 has 1 of 2 columns."),
        ("all.csv", "image,caption,split\na.jpg,x\n", None, "FILE, line 2 has 2 of 3 columns."),
        ("all.csv", "image,caption\na.jpg,A dog, running\n", None, "FILE, line 2 has 3 columns, but the header 2."),
        ("all.csv", 'image,caption\na.jpg,"A dog\n', None, "FILE, line 2 is not valid CSV: unexpected end of data."),
        ("all.csv", 'image,caption\na.jpg,"A" dog\n', None, "FILE, line 2 is not valid CSV: ',' expected after '\"'."),
        ("all.csv", "image,caption,split\na.jpg,x,eval\n", None, "FILE, line 2: unknown split 'eval'."),
        ("all.csv", "image,caption\na.jpg,caf\xe9\n".encode("latin-1"), None, "FILE, line 2 is not UTF-8 text."),
        ("all.csv", "image,caption\na.jpg,x\n".encode("utf-16"), None, "FILE, line 1 is not UTF-8 text."),
        ("a.csv", "image| number| comment\na.jpg| 4   A dog .\n", None, "FILE, line 2 has 2 of 3 columns."),
        ("a.csv", "x" * 99 + ",b,c,d,e,f,g\n", None, f"FILE has no image column; its header is {LONG_HEADER}."),
        # Flickr8k
        ("t.txt", "a.jpg#0\tx\na.jpg\tx\n", None, "FILE, line 2 is not NAME.jpg#K<TAB>caption."),
        ("t.txt", "a.jpg#0\tx\na.jpg#1 x\n", None, "FILE, line 2 is not NAME.jpg#K<TAB>caption."),
        ("t.txt", b"a.jpg#0\tcaf\xe9\n", None, "FILE, line 1 is not UTF-8 text."),
        # COCO
        ("a.json", '{"images": [],\n"annotations": [', None, "FILE is not valid JSON at line 2."),
        ("a.json", coco(images={}), None, "FILE: 'images' of the file is not a list."),
        ("a.json", coco(annotations="x"), None, "FILE: 'annotations' of the file is not a list."),
        ("a.json", coco(images=[{"id": 1}]), None, "FILE: images[0] has no 'file_name'."),
        ("a.json", coco(images=[{"id": 1, "file_name": 5}]), None, "FILE: 'file_name' of images[0] is not text."),
        ("a.json", coco(images=["a.jpg"]), None, "FILE: images[0] has no 'id'."),
        (
            "a.json",
            coco(images=[{"id": {}, "file_name": "a"}]),
            None,
            "FILE: 'id' of images[0] is neither a number nor text.",
        ),
        ("a.json", coco(annotations=[5]), None, "FILE: annotations[0] has no 'image_id'."),
        ("a.json", coco(annotations=[{"image_id": 57870}]), None, "FILE: annotations[0] has no 'caption'."),
        (
            "a.json",
            coco(annotations=[{"image_id": 57870, "caption": 3}]),
            None,
            "FILE: 'caption' of annotations[0] is not text.",
        ),
        (
            "a.json",
            coco(annotations=[{"image_id": 9, "caption": "x"}]),
            None,
            "FILE: annotations[0] names image_id 9, which is not in images.",
        ),
        # Karpathy
        ("k.json", {"images": {}}, None, "FILE: 'images' of the file is not a list."),
        ("k.json", {"images": [[]]}, None, "FILE: images[0] has no 'filename'."),
        ("k.json", karpathy(filename=...), None, "FILE: images[0] has no 'filename'."),
        ("k.json", karpathy(sentences=...), None, "FILE: images[0] has no 'sentences'."),
        ("k.json", karpathy(sentences={}), None, "FILE: 'sentences' of images[0] is not a list."),
        ("k.json", karpathy(sentences=["x"]), None, "FILE: images[0].sentences[0] has no 'raw'."),
        ("k.json", karpathy(sentences=[{"raw": 4}]), None, "FILE: 'raw' of images[0].sentences[0] is not text."),
        ("k.json", karpathy(split="eval"), None, "FILE: images[0]: unknown split 'eval'."),
        ("k.json", karpathy(split=1), None, "FILE: 'split' of images[0] is not text."),
        # JSON Lines
        ("a.jsonl", '{"image": "a.jpg", "caption": "x"}\n{"image": "a.j', None, "FILE, line 2 is not valid JSON."),
        ("a.jsonl", [["a.jpg", "x"]], None, "FILE: line 1 is not a JSON object."),
        ("a.jsonl", [{"caption": "x"}], None, "FILE: line 1 has no 'image'."),
        ("a.jsonl", [{"image": "a.jpg"}], None, "FILE: line 1 has no 'caption'."),
        ("a.jsonl", [{"image": 5, "caption": "x"}], None, "FILE: 'image' of line 1 is not text."),
        ("a.jsonl", [{"image": "a.jpg", "caption": 5}], None, NO_TEXTS),
        ("a.jsonl", [{"image": "a.jpg", "captions": ["x", 5]}], None, NO_TEXTS),
        ("a.jsonl", [{"image": "a.jpg", "caption": None}], None, NO_TEXTS),
        ("a.jsonl", [{"image": "a.jpg", "caption": "x", "split": "eval"}], None, "FILE, line 1: unknown split 'eval'."),
        ("a.jsonl", [{"image": "a.jpg", "caption": "x", "split": 1}], None, "FILE: 'split' of line 1 is not text."),
        # no format at all
        ("a.json", [{"image": "a.jpg", "caption": "x"}], None, "The format of FILE cannot be told from its content."),
        ("a.json", {"a.jpg": "x"}, None, "The format of FILE cannot be told from its content."),
        ("a.json", "", None, "FILE is not valid JSON at line 1."),
        ("a.json", '"text"', None, "The format of FILE cannot be told from its content."),
        ("a.txt", "A dog\nA cat\n", None, "The format of FILE cannot be told from its content."),
        ("a.txt", "", None, "The format of FILE cannot be told from its content."),
        ("a.bin", bytes(range(256)), None, "FILE, line 2 is not UTF-8 text."),
        # another format than the one named
        ("a.csv", "image,caption\na.jpg,x\n", "flickr8k", "FILE, line 1 is not NAME.jpg#K<TAB>caption."),
        ("a.csv", "image,caption\na.jpg,x\n", "coco", "FILE is not valid JSON at line 1."),
        ("a.csv", "image,caption\na.jpg,x\n", "karpathy", "FILE is not valid JSON at line 1."),
        ("a.csv", "image,caption\na.jpg,x\n", "jsonl", "FILE, line 1 is not valid JSON."),
        ("a.csv", "image,caption\na.jpg,x\n", "sidecars", "The folder FILE cannot be read: not a directory."),
        ("a.csv", "image,caption\na.jpg,x\n", "imagefolder", "No caption in FILE belongs to an image in IMAGES."),
        ("a.json", karpathy(), "coco", "FILE: images[0] has no 'id'."),
        ("a.json", COCO, "karpathy", "FILE: images[0] has no 'filename'."),
        ("a.json", ["x"], "coco", "FILE: the file has no 'images'."),
        ("a.json", ["x"], "karpathy", "FILE: the file has no 'images'."),
        ("a.json", COCO, "jsonl", "FILE: line 1 has no 'image'."),
        (
            "a.txt",
            FLICKR8K,
            "csv",
            "FILE has no image column; its header is 1000_a.jpg#0, a child in a pink dress ..",
        ),
        # nothing to be used
        ("a.csv", "image,caption\n", None, "No caption in FILE belongs to an image in IMAGES."),
        ("a.csv", "image,caption\nb.jpg,x\n", None, "No caption in FILE belongs to an image in IMAGES."),
        ("a.csv", "image,caption\na.jpg,\na.jpg,...\n", None, "No caption in FILE belongs to an image in IMAGES."),
        ("a.jsonl", "", None, "No caption in FILE belongs to an image in IMAGES."),
        ("a.jsonl", [{"image": "a.jpg", "captions": []}], None, "No caption in FILE belongs to an image in IMAGES."),
        ("a.json", coco(annotations=[]), None, "No caption in FILE belongs to an image in IMAGES."),
    ],
)
def test_captions_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, name: str, content: object, format_name: str | None, sentence: str
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {name: content})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / name, format_name)
    assert str(caught.value) == sentence.replace("FILE", str(tmp_path / name)).replace("IMAGES", str(image_folder))


def test_a_broken_sidecar_and_a_broken_metadata_file_are_named(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "sub/b.jpg")
    write(image_folder, {"a.txt": "x", "sub/b.txt": b"\xff"})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, image_folder)
    assert str(caught.value) == f"{image_folder / 'sub' / 'b.txt'}, line 1 is not UTF-8 text."
    write(image_folder, {"sub/metadata.csv": "file_name\nb.jpg\n"})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, image_folder)
    assert (
        str(caught.value) == f"{image_folder / 'sub' / 'metadata.csv'} has no caption column; its header is file_name."
    )


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    image_folder, empty = (
        write_images(tmp_path / "images", "a.jpg"),
        write_images(tmp_path / "empty", "notes.txt", ".hidden.jpg"),
    )
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n"})
    captions, missing = tmp_path / "all.csv", tmp_path / "missing"
    for call, sentence in (
        ((missing, captions), f"The image folder {missing} does not exist."),
        ((captions, captions), f"The image folder {captions} does not exist."),
        ((image_folder, missing), f"The caption file {missing} does not exist."),
        ((empty, captions), f"The folder {empty} holds no images."),
        ((image_folder, empty), f"No caption in {empty} belongs to an image in {image_folder}."),
    ):
        with pytest.raises(ImgcapError) as caught:
            read_dataset(*call)
        assert str(caught.value) == sentence


def test_an_unknown_format_is_a_usage_error(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n"})
    with pytest.raises(UsageError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv", "excel")
    assert str(caught.value) == "Unknown caption format 'excel'."
    assert all(name in caught.value.hint for name in FORMATS)


def test_captions_without_a_image_are_named_in_the_hint(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption\n" + "".join(f"x{i}.jpg,x\n" for i in range(5))})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv")
    assert caught.value.hint == "It names x0.jpg, x1.jpg, x2.jpg and 2 more."


@pytest.mark.shared_data
def test_flickr8k_as_published() -> None:
    lists = {"train": "train", "val": "dev", "test": "test"}
    dataset = read_dataset(
        SHARED_DATA / "images",
        SHARED_DATA / "Flickr8k.token.txt",
        split_files={split: SHARED_DATA / f"Flickr_8k.{name}Images.txt" for split, name in lists.items()},
    )
    assert len(dataset.records) == 8086
    assert {len(record.captions) for record in dataset.records} == {5}
    missing = left_out(dataset)
    assert len(missing) == 6
    odd = missing.pop("2258277193_586949ec62.jpg.1")
    assert odd == "has captions, but its name does not end like an image's"
    assert set(missing.values()) == {"has captions, but no image"}
    assert all(name.endswith(".jpg") for name in missing)
    counts = Counter(record.split for record in dataset.records)
    assert counts["train"] == 6000 - 4
    assert counts["val"] == counts["test"] == 1000
    assert counts[None] == 8086 - 7996
