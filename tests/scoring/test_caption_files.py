"""Captions and references from anybody's files: matched by id, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.data import SHARED_DATA
from helpers.unusable_files import COCO_ANNOTATIONS, UNUSABLE, one, write
from imgcap.captioning.row_files import FORMATS, open_rows
from imgcap.captioning.rows import Row
from imgcap.errors import ImgcapError, UsageError
from imgcap.scoring.caption_files import Pairs, check_references, read_captions, read_hypotheses, read_pairs

COCO_RESULTS = [{"image_id": 42, "caption": "a dog runs"}, {"image_id": 7, "caption": "two cats"}]
TOKEN_FILE = "a.jpg#0\tA dog .\na.jpg#1\tA brown dog .\nb.jpg#0\tTwo cats .\nb.jpg#1\tTwo cats sit .\n"


def refusal(call: Callable[..., object], *arguments: Any) -> ImgcapError:
    with pytest.raises(ImgcapError) as caught:
        call(*arguments)
    return caught.value


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
    rows = [one(number, f"caption {number}") for number in range(50_000)]
    pairs = read_pairs(write(tmp_path, "hyp.json", rows), [write(tmp_path, "ref.jsonl", reversed(rows))])
    assert pairs.hypotheses == [captions[0] for captions in pairs.references] == [row["caption"] for row in rows]


def test_all_captions_of_a_file_are_read_in_its_order(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", [one("b", ["x", "y"]), one("a", ""), one("b", "z")])
    assert list(read_captions(file).items()) == [("b", ["x", "y", "z"]), ("a", [""])]


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
    assert read_hypotheses(hypotheses, ["b.jpg"]) == [row["caption"]]


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


# Files that do not fit each other


@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        ([one(1), one(2)], [one(1)], "HYP has captions of images that are not in REF: 2."),
        (
            [one(i) for i in range(9)],
            [one(8)],
            "HYP has captions of images that are not in REF: 0, 1, 2, 3, 4 and 3 more.",
        ),
        ([one(1)], [one(1), one(2), one(3), one(2)], "HYP has no caption for 2, 3."),
        ([one(1), one(2)], [one(1), one("a")], "HYP has captions of images that are not in REF: 2."),
        ([one(1)], [one("a")], "HYP and REF have no image id in common."),
        ([one("A.jpg")], [one("a.jpg")], "HYP and REF have no image id in common."),
        ([one(7)], [one("007")], "HYP and REF have no image id in common."),
        (
            [one(1), one(2), one(1, "y"), one("2")],
            [one(1), one(2)],
            "HYP has more than one caption for 1 (line 1, line 3), 2 (line 2, line 4).",
        ),
        ([one(1, ["x", "y"])], [one(1)], "HYP has more than one caption for 1 (line 1)."),
        (
            [one(1)] * 7,
            [one(1)],
            "HYP has more than one caption for 1 (line 1, line 2, line 3, line 4, line 5 and 2 more).",
        ),
        ([], [one(1)], "HYP holds no captions."),
        ([one(1)], [], "REF holds no captions."),
        ([one(1)], [one(1, "")], "REF, line 1 has an empty reference for 1."),
        ([one(1)], [one(1), one(1, " \t")], "REF, line 2 has an empty reference for 1."),
        (
            [one(1)],
            [one(1), {"image_id": 1, "error": "damaged"}],
            "REF has no caption for 1 (line 2), which failed or were withheld.",
        ),
    ],
)
def test_json_lines_that_do_not_match_are_one_sentence(
    tmp_path: Path, hypotheses: list[object], references: list[object], sentence: str
) -> None:
    hyp, ref = write(tmp_path, "hyp.jsonl", hypotheses), write(tmp_path, "ref.jsonl", references)
    assert str(refusal(read_pairs, hyp, [ref])) == sentence.replace("HYP", str(hyp)).replace("REF", str(ref))


def test_where_no_id_matches_one_of_each_side_is_shown(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.jsonl", [one("photos/a.jpg"), one("photos/b.jpg")])
    ref = write(tmp_path, "ref.jsonl", [one("a.jpg"), one("b.jpg")])
    hint = refusal(read_pairs, hyp, [ref]).hint
    assert hint == "Ids are compared as they are written: 'photos/a.jpg' beside 'a.jpg'."


def test_all_reference_files_are_named_where_none_has_the_image(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.jsonl", [one(1), one(2), one(3)])
    first, second = write(tmp_path, "1.jsonl", [one(1)]), write(tmp_path, "2.jsonl", [one(2)])
    sentence = f"{hyp} has captions of images that are not in {first}, {second}: 3."
    assert str(refusal(read_pairs, hyp, [first, second])) == sentence


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["a\nb\nc\n", "a\nb\n"], "HYP and REF differ in their numbers of lines: 3 and 2."),
        (["a\nb\n", "a\nb\nc\nd\n"], "HYP and REF differ in their numbers of lines: 2 and 4."),
        (["a\nb", "a\nb\n\n"], "HYP and REF differ in their numbers of lines: 2 and 3."),
        (["a\nb\n", ""], "REF holds no captions."),
        (["", "a\n"], "HYP holds no captions."),
        (["a\nb\n", "a\n\n"], "REF, line 2 has an empty reference for 2."),
        (["a\nb\n", "1\ta\n2\tb\n"], "HYP is plain text without image ids, unlike REF."),
        (["1\ta\n2\tb\n", "a\nb\n"], "REF is plain text without image ids, unlike HYP."),
        (["a.jpg\ta\nb.jpg b\n", "a\nb\n"], "HYP, line 2 is not NAME<TAB>caption."),
        (["a dog\na\tcat\n", "a\nb\n"], "HYP, line 1 is not NAME<TAB>caption."),
        (["\ta dog\n", "a\n"], "HYP, line 1 has an empty image id."),
        (["a.jpg#0\tx\nb.jpg\ty\n", "a\n"], "HYP, line 2 is not NAME#K<TAB>caption."),
        (["a.jpg#0\tx\nb.jpg#k\ty\n", "a\n"], "HYP, line 2 is not NAME#K<TAB>caption."),
        (["a.jpg#0\tx\nb.jpg#1 y\n", "a\n"], "HYP, line 2 is not NAME#K<TAB>caption."),
        ([TOKEN_FILE, TOKEN_FILE], "HYP has more than one caption for a.jpg (line 1, line 2), b.jpg (line 3, line 4)."),
    ],
)
def test_text_files_that_do_not_fit_are_one_sentence(tmp_path: Path, texts: list[str], sentence: str) -> None:
    hyp, ref = write(tmp_path, "hyp.txt", texts[0]), write(tmp_path, "ref.txt", texts[1])
    assert str(refusal(read_pairs, hyp, [ref])) == sentence.replace("HYP", str(hyp)).replace("REF", str(ref))


def test_each_of_several_text_files_must_be_as_long_as_the_captions(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.txt", "a\nb\nc\n")
    whole, torn = write(tmp_path, "whole.txt", "a\nb\nc\n"), write(tmp_path, "torn.txt", "a\nb")
    for files in ([whole, torn], [torn, whole]):
        sentence = f"{hyp} and {torn} differ in their numbers of lines: 3 and 2."
        assert str(refusal(read_pairs, hyp, files)) == sentence


def test_too_few_references_are_named_with_their_numbers(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.jsonl", [one("a"), one("b"), one("c")])
    ref = write(tmp_path, "ref.jsonl", [one("a", ["x", "x"]), one("b", ["x"]), one("c", ["x", "y", "z"])])
    assert read_pairs(hyp, [ref]) == read_pairs(hyp, [ref], 1)
    assert str(refusal(read_pairs, hyp, [ref], 2)) == f"Fewer than 2 references in {ref} for b (1)."
    assert str(refusal(read_pairs, hyp, [ref], 3)) == f"Fewer than 3 references in {ref} for a (2), b (1)."


def test_a_image_without_references_has_too_few() -> None:
    check_references({"a": ["x"]}, 1, "here")
    assert (
        str(refusal(check_references, {"a": ["x"], "b": []}, 1, "here")) == "Fewer than 1 references in here for b (0)."
    )


@pytest.mark.parametrize("number", [0, -1])
def test_less_than_one_reference_is_a_usage_error(tmp_path: Path, number: int) -> None:
    file = write(tmp_path, "a.jsonl", [one("a")])
    error = refusal(read_pairs, file, [file], number)
    assert isinstance(error, UsageError)
    assert str(error) == f"The lowest number of references must be at least 1, not {number}."


# Files that cannot be used, on either side


@pytest.mark.parametrize(("name", "content", "sentence"), UNUSABLE)
def test_files_that_cannot_be_used_are_one_sentence(tmp_path: Path, name: str, content: object, sentence: str) -> None:
    other, file = write(tmp_path, "other.jsonl", [one(1)]), write(tmp_path, name, content)
    calls = ((read_pairs, other, [file]), (read_pairs, file, [other]), (read_hypotheses, file, ["1"]))
    for call, *arguments in calls:
        assert str(refusal(call, *arguments)) == sentence.replace("FILE", str(file))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.token", "a"])
def test_missing_files_and_folders_are_one_sentence(tmp_path: Path, name: str) -> None:
    other = write(tmp_path, "other.jsonl", [one(1)])
    missing, folder = tmp_path / name, tmp_path / f"folder.{name}"
    folder.mkdir()
    for pair in ((other, [missing]), (missing, [other])):
        assert str(refusal(read_pairs, *pair)) == f"{missing} cannot be read: no such file or directory."
    for pair in ((other, [folder]), (folder, [other])):
        assert str(refusal(read_pairs, *pair)) == f"{folder} cannot be read: is a directory."


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path, "a.jsonl", [one(1)])
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert str(refusal(read_pairs, file, [file])) == f"{file} cannot be read: permission denied."


def test_a_image_in_place_of_captions_is_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    sentence = f"{tmp_path / 'a.jpg'}, line 1 is not UTF-8 text."
    assert str(refusal(read_pairs, tmp_path / "a.jpg", [tmp_path / "a.jpg"])) == sentence


# Captions to compare with


def test_captions_to_compare_with_come_in_the_order_of_the_ids(tmp_path: Path) -> None:
    rows = write(tmp_path, "other.jsonl", [one("a", "first"), one("b", "second"), one(3, "")])
    assert read_hypotheses(rows, ["3", "a", "b"]) == ["", "first", "second"]
    assert read_hypotheses(write(tmp_path, "other.txt", "one\ntwo\n"), ["1", "2"]) == ["one", "two"]
    assert read_hypotheses(write(tmp_path, "ids.csv", "id,caption\n2,two\n1,one\n"), ["1", "2"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("f.jsonl", [one("a")], "FILE has no caption for b."),
        (
            "f.jsonl",
            [one("a"), one("b"), one("c")],
            "FILE has captions of images that are not in the captions to compare with: c.",
        ),
        ("f.jsonl", [one("c")], "FILE and the captions to compare with have no image id in common."),
        ("f.jsonl", [one("a"), one("b"), one("a")], "FILE has more than one caption for a (line 1, line 3)."),
        ("f.txt", "one\ntwo\n", "FILE is plain text without image ids, unlike the captions to compare with."),
    ],
)
def test_captions_of_other_images_are_not_compared(tmp_path: Path, name: str, content: object, sentence: str) -> None:
    file = write(tmp_path, name, content)
    assert str(refusal(read_hypotheses, file, ["a", "b"])) == sentence.replace("FILE", str(file))


def test_images_without_a_caption_to_compare_with_are_named_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, "f.jsonl", [one("a")])
    assert str(refusal(read_hypotheses, file, ["c", "d", "a", "b"])) == f"{file} has no caption for c, d, b."


def test_plain_text_of_another_length_is_not_compared(tmp_path: Path) -> None:
    file = write(tmp_path, "f.txt", "one\ntwo\nthree\n")
    sentence = f"{file} and the captions to compare with differ in their numbers of lines: 3 and 2."
    assert str(refusal(read_hypotheses, file, ["1", "2"])) == sentence


@pytest.mark.shared_data
def test_flickr8k_as_published_holds_five_references_of_each_image(tmp_path: Path) -> None:
    tokens = SHARED_DATA / "Flickr8k.token.txt"
    captions = read_captions(tokens)
    assert len(captions) == 8092
    hypotheses = write(tmp_path, "hyp.jsonl", [one(image_id) for image_id in captions])
    assert read_pairs(hypotheses, [tokens], 5).references == list(captions.values())
    assert str(refusal(read_pairs, hypotheses, [tokens], 6)).endswith(" and 8,087 more.")
