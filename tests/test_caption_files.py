"""Captions and references from anybody's files: matched by id, or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgcap.caption_files import read_captions, read_pairs
from imgcap.errors import ImgcapError

COCO_RESULTS = [{"image_id": 42, "caption": "a dog runs"}, {"image_id": 7, "caption": "two cats"}]
COCO_ANNOTATIONS = {
    "info": {"year": 2014},
    "images": [{"id": 7, "file_name": "COCO_7.jpg", "height": 480}, {"id": 42, "file_name": "COCO_42.jpg"}],
    "licenses": [],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "Two cats sit."},
        {"id": 2, "image_id": 42, "caption": "A dog."},
        {"id": 3, "image_id": 7, "caption": "Cats."},
    ],
}
TOKEN_FILE = "a.jpg#0\tA dog .\na.jpg#1\tA brown dog .\nb.jpg#0\tTwo cats .\n"


def write(folder: Path, name: str, content: object) -> Path:
    """A file with `content`: text as it is, all else as JSON; in .jsonl, one item a line."""
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
        return folder / name
    if not isinstance(content, str):
        lines = "".join(json.dumps(item) + "\n" for item in content) if name.endswith("jsonl") else json.dumps(content)  # type: ignore[attr-defined]
        content = lines
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return folder / name


@pytest.mark.parametrize(
    ("name", "content", "captions"),
    [
        ("a.jsonl", [{"image_id": "a.jpg", "caption": "a dog"}], {"a.jpg": ["a dog"]}),
        ("a.ndjson", '{"image_id": "a.jpg", "caption": "a dog"}\n', {"a.jpg": ["a dog"]}),
        (
            "a.jsonl",
            [{"image": "a", "captions": ["x", "y"]}, {"image": "b", "caption": ""}],
            {"a": ["x", "y"], "b": [""]},
        ),
        ("a.jsonl", [{"id": 7, "references": ["x", "y"]}], {"7": ["x", "y"]}),
        ("a.jsonl", [{"id": 7, "caption": "x"}, {"id": "7", "caption": "y"}], {"7": ["x", "y"]}),
        ("a.jsonl", [{"file_name": "a.jpg", "text": "x", "score": 0.5}], {"a.jpg": ["x"]}),
        ("a.jsonl", '\n{"path": "a.jpg", "text": "x\u2028y"}\r\n\n', {"a.jpg": ["x\u2028y"]}),
        ("a.json", COCO_RESULTS, {"42": ["a dog runs"], "7": ["two cats"]}),
        ("a.json", COCO_ANNOTATIONS, {"7": ["Two cats sit.", "Cats."], "42": ["A dog."]}),
        ("a.JSON", COCO_RESULTS, {"42": ["a dog runs"], "7": ["two cats"]}),
        ("a.token.txt", TOKEN_FILE, {"a.jpg": ["A dog .", "A brown dog ."], "b.jpg": ["Two cats ."]}),
        ("a.token", TOKEN_FILE, {"a.jpg": ["A dog .", "A brown dog ."], "b.jpg": ["Two cats ."]}),
        ("a.txt", "a dog\ntwo cats\n", {"1": ["a dog"], "2": ["two cats"]}),
        ("a.txt", "a dog\r\ntwo cats", {"1": ["a dog"], "2": ["two cats"]}),
        ("a.txt", b"\xef\xbb\xbfa dog\n", {"1": ["a dog"]}),
        ("a.txt", "a dog\n\ntwo cats\n", {"1": ["a dog"], "2": [""], "3": ["two cats"]}),
        ("a.txt", "a\u2028dog\x0b\x85\ntwo cats\n", {"1": ["a\u2028dog\x0b\x85"], "2": ["two cats"]}),
        ("a.txt", '{"a": 1}\n', {"1": ['{"a": 1}']}),
        ("a.txt", "", {}),
        ("a.jsonl", "", {}),
        ("a.json", [], {}),
    ],
)
def test_captions_of_every_format(tmp_path: Path, name: str, content: object, captions: dict[str, list[str]]) -> None:
    found = read_captions(write(tmp_path, name, content))
    assert found == captions
    assert list(found) == list(captions)


def test_json_lines_against_json_lines(tmp_path: Path) -> None:
    hypotheses = write(
        tmp_path, "hyp.jsonl", [{"image_id": "b", "caption": "two cats"}, {"image_id": "a", "caption": "a dog"}]
    )
    references = write(
        tmp_path, "ref.jsonl", [{"image_id": "a", "captions": ["A dog .", "dog"]}, {"image_id": "b", "caption": "cats"}]
    )
    assert read_pairs(hypotheses, [references]) == (["b", "a"], ["two cats", "a dog"], [["cats"], ["A dog .", "dog"]])


def test_coco_results_against_annotations(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "results.json", COCO_RESULTS)
    references = write(tmp_path, "annotations.json", COCO_ANNOTATIONS)
    expected = (["42", "7"], ["a dog runs", "two cats"], [["A dog."], ["Two cats sit.", "Cats."]])
    assert read_pairs(hypotheses, [references]) == expected


def test_json_lines_against_a_flickr8k_token_file(tmp_path: Path) -> None:
    hypotheses = write(
        tmp_path, "hyp.jsonl", [{"image_id": "a.jpg", "caption": "dog"}, {"image_id": "b.jpg", "caption": "cat"}]
    )
    references = write(tmp_path, "Flickr8k.token.txt", TOKEN_FILE)
    assert read_pairs(hypotheses, [references])[2] == [["A dog .", "A brown dog ."], ["Two cats ."]]


def test_parallel_text_files(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "hyp.txt", "a dog\n\na bird\n")
    files = [write(tmp_path, f"ref{i}.txt", f"one {i}\ntwo {i}\nthree {i}\n") for i in range(3)]
    ids, captions, references = read_pairs(hypotheses, files)
    assert (ids, captions) == (["1", "2", "3"], ["a dog", "", "a bird"])
    assert references == [[f"{word} {i}" for i in range(3)] for word in ("one", "two", "three")]


def test_references_of_several_files_add_up(tmp_path: Path) -> None:
    hypotheses = write(tmp_path, "hyp.jsonl", [{"id": 1, "caption": "x"}, {"id": 2, "caption": "y"}])
    first = write(tmp_path, "1.jsonl", [{"id": 1, "caption": "a"}, {"id": 2, "caption": "b"}])
    second = write(tmp_path, "2.json", [{"image_id": 2, "caption": "c"}])
    assert read_pairs(hypotheses, [first, second])[2] == [["a"], ["b", "c"]]


def one(image_id: object, caption: object = "x") -> dict[str, object]:
    return {"image_id": image_id, "caption": caption}


@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        ([one(1), one(2)], [one(1)], "1 captions of HYP have no reference in REF: 2."),
        ([one(1)], [one(1), one(2), one(3)], "2 pictures of REF have no caption in HYP: 2, 3."),
        ([one(1)], [one("a")], "1 captions of HYP have no reference in REF: 1."),
        ([one(i) for i in range(7)], [], "7 captions of HYP have no reference in REF: 0, 1, 2, 3, 4 and 2 more."),
        ([one(1), one(1, "y")], [one(1)], "HYP has more than one caption for 1."),
        ([one(1, ["x", "y"])], [one(1)], "HYP has more than one caption for 1."),
        ([], [one(1)], "HYP holds no captions."),
        ([one(1, [])], [one(1)], "HYP: line 1 has no caption."),
        ([one(1)], [one(1, [])], "REF: line 1 has no caption."),
        ([one(1, None)], [one(1)], "HYP: line 1 has no caption."),
        ([one(1), one(2, 5)], [one(1)], "HYP: line 2 has no caption."),
        ([one(1, ["a", 5])], [one(1)], "HYP: line 1 has no caption."),
        ([one(1, {"raw": "x"})], [one(1)], "HYP: line 1 has no caption."),
        ([{"image_id": 1}], [one(1)], "HYP: line 1 has no caption."),
        ([{"caption": "x"}], [one(1)], "HYP: line 1 has no image_id."),
        ([one(None)], [one(1)], "HYP: line 1 has no image_id."),
        ([one(True)], [one(1)], "HYP: line 1 has no image_id."),
        ([one(["a"])], [one(1)], "HYP: line 1 has no image_id."),
        ([one(1), "x"], [one(1)], "HYP: line 2 is not a JSON object."),
        ([[1, "x"]], [one(1)], "HYP: line 1 is not a JSON object."),
        ([one(1)], [None], "REF: line 1 is not a JSON object."),
    ],
)
def test_json_lines_that_do_not_fit_are_one_sentence(
    tmp_path: Path, hypotheses: list[object], references: list[object], sentence: str
) -> None:
    hyp, ref = write(tmp_path, "hyp.jsonl", hypotheses), write(tmp_path, "ref.jsonl", references)
    with pytest.raises(ImgcapError) as caught:
        read_pairs(hyp, [ref])
    assert str(caught.value) == sentence.replace("HYP", str(hyp)).replace("REF", str(ref))


def changed(**fields: object) -> dict[str, object]:
    return {**COCO_ANNOTATIONS, **fields}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("ref.jsonl", '{"image_id": 1, "caption": "x"}\n{"image_id": 2, "cap', "REF, line 2 is not valid JSON."),
        ("ref.json", '[{"image_id": 1,\n', "REF is not valid JSON at line 2."),
        ("ref.json", "", "REF is not valid JSON at line 1."),
        ("ref.json", "3", "REF: the file has no 'images'."),
        ("ref.json", "null", "REF: the file has no 'images'."),
        ("ref.json", {"1": "a dog"}, "REF: the file has no 'images'."),
        ("ref.json", {"images": []}, "REF: the file has no 'annotations'."),
        ("ref.json", changed(annotations={}), "REF: 'annotations' of the file is not a list."),
        ("ref.json", changed(annotations=[{"image_id": 7}]), "REF: annotations[0] has no 'caption'."),
        ("ref.json", changed(annotations=[one(7, 5)]), "REF: 'caption' of annotations[0] is not text."),
        ("ref.json", changed(annotations=[one(8)]), "REF: annotations[0] names image_id 8, which is not in images."),
        (
            "ref.json",
            changed(annotations=[one([7])]),
            "REF: 'image_id' of annotations[0] is neither a number nor text.",
        ),
        ("ref.json", changed(images=["x"]), "REF: images[0] has no 'id'."),
        ("ref.json", ["x"], "REF: item 0 is not a JSON object."),
        ("ref.json", [one(1), {"image_id": 2}], "REF: item 1 has no caption."),
        ("ref.txt", b"caf\xe9\n", "REF is not UTF-8 text (byte 3)."),
        ("ref.csv", "image,caption\na.jpg,x\n", "REF is in no format that captions are scored from."),
        ("ref.pdf", "what is this", "The format of REF cannot be told from its content."),
        ("a.jpg.token", "a.jpg#0\tx\nsecond\n", "REF, line 2 is not NAME.jpg#K<TAB>caption."),
    ],
)
def test_files_that_cannot_be_used_are_one_sentence(tmp_path: Path, name: str, content: object, sentence: str) -> None:
    hypotheses = write(tmp_path, "hyp.jsonl", [one(1)])
    file = write(tmp_path, name, content)
    for pair in ((hypotheses, [file]), (file, [hypotheses])):
        with pytest.raises(ImgcapError) as caught:
            read_pairs(*pair)
        assert str(caught.value) == sentence.replace("REF", str(file))


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.json", "missing.txt", "missing.token", "missing"])
def test_a_missing_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    hypotheses = write(tmp_path, "hyp.jsonl", [one(1)])
    with pytest.raises(ImgcapError) as caught:
        read_pairs(hypotheses, [tmp_path / name])
    assert str(caught.value) == f"{tmp_path / name} cannot be read: no such file or directory."


@pytest.mark.parametrize("name", ["folder", "folder.txt", "folder.json", "folder.jsonl"])
def test_a_folder_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ImgcapError, match=f"{tmp_path / name} "):
        read_captions(tmp_path / name)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["a\nb\nc\n", "a\nb\n"], "1 captions of HYP have no reference in REF: 3."),
        (["a\nb\n", "a\nb\nc\nd\n"], "2 pictures of REF have no caption in HYP: 3, 4."),
        (["a\nb\n", ""], "2 captions of HYP have no reference in REF: 1, 2."),
        (["", "a\n"], "HYP holds no captions."),
    ],
)
def test_text_files_of_unequal_length_are_one_sentence(tmp_path: Path, texts: list[str], sentence: str) -> None:
    hyp, ref = write(tmp_path, "hyp.txt", texts[0]), write(tmp_path, "ref.txt", texts[1])
    with pytest.raises(ImgcapError) as caught:
        read_pairs(hyp, [ref])
    assert str(caught.value) == sentence.replace("HYP", str(hyp)).replace("REF", str(ref))


def test_each_of_several_text_files_must_be_as_long_as_the_captions(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.txt", "a\nb\nc\n")
    whole, torn = write(tmp_path, "whole.txt", "a\nb\nc\n"), write(tmp_path, "torn.txt", "a\nb")
    for files in ([whole, torn], [torn, whole]):
        with pytest.raises(ImgcapError) as caught:
            read_pairs(hyp, files)
        assert str(caught.value) == f"1 captions of {hyp} have no reference in {torn}: 3."
