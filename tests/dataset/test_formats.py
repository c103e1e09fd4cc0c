"""Caption formats: each is detected and read as people have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.data_sets import COCO, FLICKR8K, KARPATHY, Captions, Files, contents, csv_text, write, write_images
from imgcap.dataset.formats import FORMATS, detect_format
from imgcap.dataset.loading import read_dataset
from imgcap.errors import UsageError

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
    "json": (
        "json",
        "all.json",
        {"all.json": [{"image": "a.jpg", "caption": "A dog"}, {"image": "b.jpg", "sentences": [{"raw": "A cat"}]}]},
        ["a.jpg", "b.jpg"],
        {"a.jpg": (["A dog"], None), "b.jpg": (["A cat"], None)},
    ),
    "text that imgcap caption prints": (
        "flickr8k",
        "captions.txt",
        {"captions.txt": "a.jpg\tA dog\nb.jpg\tA cat\n"},
        ["a.jpg", "b.jpg"],
        {"a.jpg": (["A dog"], None), "b.jpg": (["A cat"], None)},
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
    assert {format_name for format_name, *_ in EXAMPLES.values()} == set(FORMATS) - {"parquet"}  # not text


def test_records_keep_the_name_that_the_caption_file_gives(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "val2014/a.jpg", "b.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\nb,y\n"})
    dataset = read_dataset(image_folder, tmp_path / "all.csv")
    assert [(record.image_id, record.path) for record in dataset.records] == [
        ("a.jpg", "val2014/a.jpg"),
        ("b", "b.jpg"),
    ]


def test_an_unknown_format_is_a_usage_error(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption\na.jpg,x\n"})
    with pytest.raises(UsageError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv", "excel")
    assert str(caught.value) == "Unknown caption format 'excel'."
    assert all(name in caught.value.hint for name in FORMATS)
