"""Caption files of every format, and those that `imgcap caption` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.refusal import refusal
from helpers.unusable_files import COCO_ANNOTATIONS, TOKEN_FILE, one, write
from imgcap.captioning.row_files import FORMATS, open_rows
from imgcap.captioning.rows import Row
from imgcap.scoring.caption_files import read_captions
from imgcap.scoring.pairs import Pairs, read_hypotheses, read_pairs

COCO_RESULTS = [{"image_id": 42, "caption": "a dog runs"}, {"image_id": 7, "caption": "two cats"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.jsonl", [{"image_id": "b.jpg", "caption": "two cats"}, {"image_id": "a.jpg", "caption": "a dog"}]),
        ("captions.ndjson", '\n{"file_name": "b.jpg", "text": "two cats"}\r\n\n{"file_name":"a.jpg","text":"a dog"}'),
        ("captions.json", [one("b.jpg", "two cats"), one("a.jpg", ["a dog"])]),
        ("captions.JSON", [one(" b.jpg", "two cats"), one("a.jpg ", "a dog")]),
        ("captions.csv", "image,caption\nb.jpg,two cats\na.jpg,a dog\n"),
        ("captions.csv", ",Caption,Path\n0,two cats,b.jpg\n1,a dog,a.jpg\n"),
        ("captions.csv", "id,filename,text\n1,b.jpg,two cats\n2,a.jpg,a dog\n"),
        ("captions.csv", b"\xef\xbb\xbfimage;caption\r\nb.jpg;two cats\r\n;\r\na.jpg;a dog\r\n"),
        ("captions.tsv", "image_id\tcaption\nb.jpg\ttwo cats\na.jpg\ta dog\n"),
        ("captions.txt", "image,caption\nb.jpg,two cats\na.jpg,a dog\n"),
        ("captions.txt", '"Image", "Caption"\n"b.jpg", "two cats"\n"a.jpg", "a dog"\n'),
        ("captions.txt", "b.jpg\ttwo cats\n\na.jpg\ta dog\n"),
        ("captions.txt", b"\xef\xbb\xbfb.jpg\ttwo cats\r\na.jpg\ta dog\r\n"),
        ("captions", "b.jpg#0\ttwo cats\na.jpg#3\ta dog\n"),
    ],
)
def test_captions_of_every_format(tmp_path: Path, name: str, content: object) -> None:
    references = write(tmp_path, "Flickr8k.token.txt", TOKEN_FILE)
    assert read_pairs(write(tmp_path, name, content), [references]) == Pairs(
        ["b.jpg", "a.jpg"], ["two cats", "a dog"], [["Two cats .", "Two cats sit ."], ["A dog .", "A brown dog ."]]
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Flickr8k.token.txt", TOKEN_FILE),
        ("results_20130124.token", TOKEN_FILE.replace("\n", "\r\n")),
        (
            "references.jsonl",
            [one("a.jpg", ["A dog .", "A brown dog ."]), one("b.jpg", ["Two cats .", "Two cats sit ."])],
        ),
        ("references.jsonl", [one(line[:5], line[8:]) for line in TOKEN_FILE.splitlines()]),
        ("references.json", [{"id": line[:5], "references": [line[8:]]} for line in TOKEN_FILE.splitlines()]),
        ("references.json", {"annotations": [one(line[:5], line[8:]) for line in TOKEN_FILE.splitlines()]}),
        (
            "captions.txt",  # Kaggle's Flickr8k
            "image,caption\n" + "".join(f"{line[:5]},{line[8:]}\n" for line in TOKEN_FILE.splitlines()),
        ),
        (
            "results.csv",  # Kaggle's Flickr30k
            "image_name| comment_number| comment\n"
            + "".join(f"{line[:5]}| {line[6]}| {line[8:]}\n" for line in TOKEN_FILE.splitlines()),
        ),
        (
            "wide.csv",
            "image,caption_0,caption_1,caption_2\na.jpg,A dog .,A brown dog .,\nb.jpg,,Two cats .,Two cats sit .\n",
        ),
        (
            "flickr_annotations.csv",  # Hugging Face's Flickr30k
            "raw,sentids,filename,img_id\n"
            '"[""A dog ."", ""A brown dog .""]","[0, 1]",a.jpg,0\n'
            "\"['Two cats .', 'Two cats sit .']\",\"[2, 3]\",b.jpg,1\n",
        ),
        (
            "dataset.json",  # Karpathy's splits
            {
                "images": [
                    {"filename": "a.jpg", "sentences": [{"raw": "A dog ."}, {"raw": "A brown dog ."}]},
                    {"filename": "b.jpg", "sentences": [{"raw": "Two cats ."}, {"raw": "Two cats sit ."}]},
                ]
            },
        ),
        (
            "wide.jsonl",
            [
                {"path": "a.jpg", "caption": "A dog .", "caption_1": "A brown dog ."},
                {"path": "b.jpg", "caption": "Two cats .", "caption_1": "Two cats sit ."},
            ],
        ),
    ],
)
def test_references_of_every_format(tmp_path: Path, name: str, content: object) -> None:
    hypotheses = write(tmp_path, "hyp.jsonl", [one("b.jpg"), one("a.jpg")])
    pairs = read_pairs(hypotheses, [write(tmp_path, name, content)], 2)
    assert pairs.references == [["Two cats .", "Two cats sit ."], ["A dog .", "A brown dog ."]]


def test_coco_results_against_annotations(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "results.json", COCO_RESULTS)
    references = write(tmp_path, "annotations.json", COCO_ANNOTATIONS)
    expected = Pairs(["42", "7"], ["a dog runs", "two cats"], [["A dog."], ["Two cats sit.", "Cats."]])
    assert read_pairs(hypotheses, [references]) == expected


def test_parallel_text_files(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "hyp.txt", "a dog\n\na\u2028bird\x0b\x85")
    files = [write(tmp_path, f"ref.{i}", f"one {i}\r\ntwo {i}\r\nthree {i}\r\n") for i in range(3)]
    pairs = read_pairs(hypotheses, files)
    assert pairs.image_ids == ["1", "2", "3"]
    assert pairs.hypotheses == ["a dog", "", "a\u2028bird\x0b\x85"]
    assert pairs.references == [[f"{word} {i}" for i in range(3)] for word in ("one", "two", "three")]


def test_the_last_line_of_a_text_may_be_an_empty_caption(tmp_path: Path) -> None:
    references = write(tmp_path, "ref.txt", "one\ntwo")
    assert read_pairs(write(tmp_path, "hyp.txt", "a dog\n\n"), [references]).hypotheses == ["a dog", ""]


def test_a_caption_behind_a_name_may_hold_tabs(tmp_path: Path) -> None:
    assert read_captions(write(tmp_path, "a.txt", "a.jpg\ta dog\truns\n")) == {"a.jpg": ["a dog\truns"]}


def test_a_csv_cell_may_hold_line_breaks_commas_and_quotes(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "hyp.csv", 'image,caption\n"a, b.jpg","a ""big"" dog,\nrunning"\n')
    pairs = read_pairs(hypotheses, [write(tmp_path, "ref.jsonl", [one("a, b.jpg")])])
    assert pairs == Pairs(["a, b.jpg"], ['a "big" dog,\nrunning'], [["x"]])


def test_references_of_several_files_and_formats_add_up(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "hyp.jsonl", [one(1), one(2)])
    files = [
        write(tmp_path, "1.jsonl", [one(2, "b"), one(1, "a")]),
        write(tmp_path, "2.json", [one("2", "c")]),
        write(tmp_path, "3.csv", "id,caption\n1,a\n"),
    ]
    assert read_pairs(hypotheses, files).references == [["a", "a"], ["b", "c"]]


def test_numbers_and_text_are_the_same_id_but_zeros_in_front_count(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "hyp.jsonl", [one(7), one("007"), one(10**30), one("\udcff.jpg")])
    references = write(tmp_path, "ref.jsonl", [one("7"), one("007"), one(str(10**30)), one("\udcff.jpg")])
    assert read_pairs(hypotheses, [references]).image_ids == ["7", "007", str(10**30), "\udcff.jpg"]


def test_the_image_id_counts_where_a_row_has_a_path_and_a_number_too(tmp_path: Path) -> None:
    row = {"id": 1, "path": "b/a.jpg", "image": "a.jpg", "image_id": "a", "caption": "x"}
    assert list(read_captions(write(tmp_path, "a.jsonl", [row]))) == ["a"]


def test_an_empty_caption_is_kept_to_be_scored(tmp_path: Path) -> None:
    references = write(tmp_path, "ref.jsonl", [one("a"), one("b")])
    for name, content in (("hyp.jsonl", [one("a", ""), one("b")]), ("hyp.csv", "id,caption\na,\nb,x\n")):
        assert read_pairs(write(tmp_path, name, content), [references]).hypotheses == ["", "x"]


def test_many_rows_are_read(tmp_path: Path) -> None:
    rows = [one(number, f"caption {number}") for number in range(20_000)]
    pairs = read_pairs(write(tmp_path, "hyp.json", rows), [write(tmp_path, "ref.jsonl", reversed(rows))])
    assert pairs.hypotheses == [captions[0] for captions in pairs.references] == [row["caption"] for row in rows]


def test_all_captions_of_a_file_are_read_in_its_order(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", [one("b", ["x", "y"]), one("a", ""), one("b", "z")])
    assert list(read_captions(file).items()) == [("b", ["x", "y", "z"]), ("a", [""])]


# Folders


def test_an_imagefolder_holds_captions_of_its_sub_folders(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    write(tmp_path / "train", "metadata.csv", "file_name,caption_0,caption_1\n1.jpg,a,b\n")
    write(
        tmp_path / "test", "metadata.jsonl", [{"file_name": "1.jpg", "text": "c"}, {"file_name": "2.jpg", "text": "d"}]
    )
    assert read_captions(tmp_path) == {"test/1.jpg": ["c"], "test/2.jpg": ["d"], "train/1.jpg": ["a", "b"]}
    assert read_captions(tmp_path / "train") == {"1.jpg": ["a", "b"]}
    hypotheses = write(tmp_path, "hyp.jsonl", [one("data/test/1.jpg", "x"), one("data/test/2.jpg", "y")])
    assert read_pairs(hypotheses, [tmp_path], some=True).references == [["c"], ["d"]]


def test_a_folder_with_sidecars_holds_a_caption_for_each_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a.jpg", "b.jpg", "b.png", "x/a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    for name, text in (("a.txt", "one\n\ntwo\n"), ("b.jpg.txt", "jpg"), ("b.png.txt", "png"), ("x/a.caption", "three")):
        write(tmp_path, name, text)
    expected = {"a.jpg": ["one", "two"], "b.jpg": ["jpg"], "b.png": ["png"], "x/a.jpg": ["three"]}
    assert read_captions(tmp_path) == expected


# What `imgcap caption` writes

ORIGIN = {"model": "m", "model_hash": "0", "settings": "", "bytes": 3, "modified": 5}
FINE: list[Row] = [
    {"path": "-odd.jpg", "caption": "'- a dog, running", "confidence": 0.5, "log_probability": -1.0, **ORIGIN},
    {"path": "b.jpg", "caption": '= two "cats"', "confidence": None, "log_probability": -2.0, **ORIGIN},
]
FAILED: Row = {"path": "broken.jpg", "error": "broken.jpg is damaged.", "error_kind": "damaged", **ORIGIN}
WITHHELD: Row = {"path": "dark.jpg", "caption": "", "confidence": 0.1, "withheld": True, **ORIGIN}


def write_rows(file: Path, format_name: str, rows: list[Row], *, bare: bool = False) -> Path:
    with open_rows(file, format_name, bare=bare) as writer:
        for row in rows:
            writer.write(row)
    return file


@pytest.mark.parametrize("format_name", FORMATS)
def test_what_imgcap_writes_is_read(tmp_path: Path, format_name: str) -> None:
    hypotheses = write_rows(tmp_path / f"out.{format_name}", format_name, FINE)
    pairs = read_pairs(hypotheses, [write(tmp_path, "ref.jsonl", [one(row["path"]) for row in FINE])])
    assert pairs.image_ids == [row["path"] for row in FINE]
    assert pairs.hypotheses == [row["caption"] for row in FINE]


def test_captions_that_imgcap_writes_without_paths_are_plain_text(tmp_path: Path) -> None:
    hypotheses = write_rows(tmp_path / "out.txt", "text", FINE, bare=True)
    assert read_pairs(hypotheses, [write(tmp_path, "ref.txt", "x\ny\n")]).image_ids == ["1", "2"]


@pytest.mark.parametrize(
    ("format_name", "places"),
    [("jsonl", ("line 2", "line 4")), ("json", ("item 2", "item 4")), ("csv", ("line 3", "line 5"))],
)
def test_images_that_failed_or_were_withheld_are_named(
    tmp_path: Path, format_name: str, places: tuple[str, str]
) -> None:
    rows = [FINE[0], FAILED, FINE[1], WITHHELD]
    hypotheses = write_rows(tmp_path / f"out.{format_name}", format_name, rows)
    error = refusal(read_pairs, hypotheses, [write(tmp_path, "ref.jsonl", [one(row["path"]) for row in FINE])])
    named = f"broken.jpg ({places[0]}), dark.jpg ({places[1]})"
    assert str(error) == f"{hypotheses} has no caption for {named}, which failed or were withheld."


def test_a_caption_that_could_not_be_written_elsewhere_is_scored(tmp_path: Path) -> None:
    row = FINE[1] | {"error": "b.txt cannot be written.", "error_kind": "not written"}
    hypotheses = write_rows(tmp_path / "out.jsonl", "jsonl", [row])
    assert read_hypotheses(hypotheses, {"b.jpg": ()}) == [row["caption"]]


def test_images_that_failed_leave_no_line_in_text_and_are_missed(tmp_path: Path) -> None:
    hypotheses = write_rows(tmp_path / "out.txt", "text", [*FINE, FAILED, WITHHELD])
    references = write(tmp_path, "ref.jsonl", [one(row["path"]) for row in (*FINE, FAILED, WITHHELD)])
    assert (
        str(refusal(read_pairs, hypotheses, [references])) == f"{hypotheses} has no caption for broken.jpg, dark.jpg."
    )


def test_details_and_alternatives_in_text_are_refused(tmp_path: Path) -> None:
    references = write(tmp_path, "ref.jsonl", [one("b.jpg")])
    words = write_rows(tmp_path / "words.txt", "text", [FINE[1] | {"words": [["two", 0.5]]}])
    assert str(refusal(read_pairs, words, [references])) == f"{words}, line 2 is not NAME<TAB>caption."
    two = write_rows(tmp_path / "two.txt", "text", [FINE[1] | {"alternatives": [{"caption": "cats"}]}])
    assert str(refusal(read_pairs, two, [references])) == f"{two} has more than one caption for b.jpg (line 1, line 2)."
