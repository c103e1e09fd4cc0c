"""Hypotheses and references are paired by image, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from helpers.data import SHARED_DATA
from helpers.refusal import refusal
from helpers.unusable_files import COCO_ANNOTATIONS, TOKEN_FILE, UNUSABLE, one, write
from imgcap.errors import ImgcapError, UsageError
from imgcap.scoring.caption_files import read_captions
from imgcap.scoring.pairs import Pairs, check_references, read_hypotheses, read_pairs
from imgcap.text.columns import Columns


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
    ref = write(tmp_path, "ref.jsonl", [one("c.jpg"), one("d.jpg")])
    assert refusal(read_pairs, hyp, [ref]).hint == "For example 'photos/a.jpg' beside 'c.jpg'."


# Names that differ


def test_a_folder_is_no_obstacle_where_the_file_name_is_unique(tmp_path: Path) -> None:
    hyp = write(tmp_path, "own.jsonl", [{"path": f"photos/{name}", "caption": name} for name in ("b.jpg", "x/a.JPG")])
    ref = write(tmp_path, "ref.csv", "image,caption\na.jpg,an a\nb.jpg,a b\n")
    pairs = read_pairs(hyp, [ref])
    assert pairs == Pairs(["photos/b.jpg", "photos/x/a.JPG"], ["b.jpg", "x/a.JPG"], [["a b"], ["an a"]])
    assert pairs.names == {"photos/b.jpg": ["b.jpg"], "photos/x/a.JPG": ["a.jpg"]}
    other = write(tmp_path, "other.csv", "image,caption\na.jpg,x\nelsewhere/b.jpg,y\n")
    assert read_hypotheses(write(tmp_path, "b.csv", "image,caption\na.jpg,x\nb.jpg,y\n"), pairs.names) == ["y", "x"]
    assert str(refusal(read_hypotheses, other, {"photos/b.jpg": ()})).endswith("have no image id in common.")


def test_a_folder_that_contradicts_is_binding(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.jsonl", [one("cats/1.jpg"), one("dogs/2.jpg")])
    ref = write(tmp_path, "ref.jsonl", [one("dogs/1.jpg"), one("dogs/2.jpg")])
    error = refusal(read_pairs, hyp, [ref])
    assert str(error) == f"{hyp} has captions of images that are not in {ref}: cats/1.jpg."
    assert error.hint == "'cats/1.jpg' and 'dogs/1.jpg' are in different folders."


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        (["1.jpg"], ["cats/1.jpg", "dogs/1.jpg"], "Several images in REF have the name 1.jpg: cats/1.jpg, dogs/1.jpg."),
        (["cats/1.jpg", "dogs/1.jpg"], ["1.jpg"], "Several images in HYP have the name 1.jpg: cats/1.jpg, dogs/1.jpg."),
        (["1.jpg", "dogs/1.jpg"], ["1.jpg"], "HYP has captions of images that are not in REF: dogs/1.jpg."),
    ],
)
def test_a_name_of_several_images_is_one_sentence(
    tmp_path: Path, ours: list[str], theirs: list[str], sentence: str
) -> None:
    hyp, ref = write(tmp_path, "hyp.jsonl", map(one, ours)), write(tmp_path, "ref.jsonl", map(one, theirs))
    assert str(refusal(read_pairs, hyp, [ref])) == sentence.replace("HYP", str(hyp)).replace("REF", str(ref))


def test_a_file_in_the_main_folder_is_not_the_one_of_its_name_in_another(tmp_path: Path) -> None:
    hyp = write(tmp_path, "hyp.jsonl", [one("1.jpg"), one("cats/2.jpg")])
    ref = write(tmp_path, "ref.jsonl", [one("cats/1.jpg"), one("cats/2.jpg")])
    sentence = f"{hyp} has captions of images that are not in {ref}: 1.jpg."
    assert str(refusal(read_pairs, hyp, [ref])) == sentence


def test_images_of_coco_are_known_by_id_and_by_file_name(tmp_path: Path) -> None:
    ref = write(tmp_path, "captions.json", COCO_ANNOTATIONS)
    hyp = write(tmp_path, "own.jsonl", [{"path": "val/COCO_42.jpg", "caption": "x"}, {"image_id": 7, "caption": "y"}])
    assert read_pairs(hyp, [ref]) == Pairs(
        ["val/COCO_42.jpg", "7"], ["x", "y"], [["A dog."], ["Two cats sit.", "Cats."]]
    )
    assert "are in different" not in refusal(read_pairs, write(tmp_path, "a.jsonl", [one("42.jpg")]), [ref]).hint


def test_images_of_karpathy_are_known_by_file_name_and_by_coco_id(tmp_path: Path) -> None:
    images = [
        {"filename": "a.jpg", "filepath": "val", "cocoid": 7, "sentences": [{"raw": "An a.", "tokens": ["an"]}]},
        {"filename": "b.jpg", "imgid": 1, "sentences": [{"raw": "A b."}, {"raw": "Bees."}]},
    ]
    ref = write(tmp_path, "dataset.json", {"dataset": "mine", "images": images})
    hyp = write(tmp_path, "own.jsonl", [{"path": "photos/b.jpg", "caption": "x"}, one(7, "y")])
    assert read_pairs(hyp, [ref]).references == [["A b.", "Bees."], ["An a."]]
    assert read_pairs(write(tmp_path, "a.txt", "a.jpg\tx\nb.jpg\ty\n"), [ref]).references[0] == ["An a."]


# Some of the images


def test_some_images_are_scored_and_counted(tmp_path: Path) -> None:
    failed = {"path": "p/c.jpg", "error": "damaged"}
    hyp = write(tmp_path, "hyp.jsonl", [one("p/a.jpg", "x"), failed, one("p/z.jpg")])
    ref = write(tmp_path, "ref.jsonl", [one("a.jpg", "r"), one("b.jpg"), one("c.jpg")])
    pairs = read_pairs(hyp, [ref], some=True)
    assert pairs == Pairs(["p/a.jpg"], ["x"], [["r"]])
    assert pairs.coverage == ("Scored 1 of 3 images with references; left out 1 caption of images without references.")
    assert read_hypotheses(write(tmp_path, "c.jsonl", [one("a.jpg", "y"), one("b.jpg")]), pairs.names, some=True) == [
        "y"
    ]
    assert read_pairs(ref, [ref], some=True).coverage == "Scored 3 of 3 images with references."
    assert read_pairs(ref, [ref]).coverage == ""


def test_captions_without_any_references_are_one_sentence_even_of_some(tmp_path: Path) -> None:
    hyp, ref = write(tmp_path, "hyp.jsonl", [one("a")]), write(tmp_path, "ref.jsonl", [one("b")])
    with pytest.raises(ImgcapError) as caught:
        read_pairs(hyp, [ref], some=True)
    assert str(caught.value) == f"{hyp} and {ref} have no image id in common."


def test_named_columns_are_used_where_a_file_has_them(tmp_path: Path) -> None:
    columns = Columns("photo", "human")
    hyp = write(tmp_path, "hyp.jsonl", [one("a.jpg", "x")])
    ref = write(tmp_path, "ref.csv", "Photo,caption,human_1,human_2\na.jpg,machine,r,s\n")
    assert read_pairs(hyp, [ref], columns=columns).references == [["r", "s"]]
    text = write(tmp_path, "ref.txt", "photo;human\na.jpg;r\n")
    assert read_pairs(hyp, [text], columns=columns).references == [["r"]]
    with pytest.raises(UsageError) as caught:
        read_pairs(hyp, [write(tmp_path, "known.csv", "image,human_1\na.jpg,r\n")], columns=Columns("foto", "human"))
    assert str(caught.value) == "No file has a column 'foto'."
    assert caught.value.hint == "Columns are caption, human_1, image, image_id."


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


def test_an_image_without_references_has_too_few() -> None:
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


@pytest.mark.parametrize(("name", "content", "sentence"), UNUSABLE)
def test_files_that_cannot_be_used_are_one_sentence(tmp_path: Path, name: str, content: object, sentence: str) -> None:
    other, file = write(tmp_path, "other.jsonl", [one(1)]), write(tmp_path, name, content)
    calls = ((read_pairs, other, [file]), (read_pairs, file, [other]), (read_hypotheses, file, {"1": ()}))
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
        assert str(refusal(read_pairs, *pair)) == f"{folder} holds no captions."


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path, "a.jsonl", [one(1)])
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert str(refusal(read_pairs, file, [file])) == f"{file} cannot be read: permission denied."


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32", "shift_jis"])
def test_captions_in_another_encoding_are_one_sentence_that_says_how_to_save_them(
    tmp_path: Path, encoding: str
) -> None:
    text = "image,caption\na.jpg,a \u72ac in a caf\u00e9\n"
    error = refusal(read_captions, write(tmp_path, "a.csv", text.encode(encoding, "ignore")))
    assert str(error).startswith(f"{tmp_path / 'a.csv'}, line ")
    assert error.hint == "Save it as UTF-8 (in a spreadsheet: CSV UTF-8), or unpack it if it is compressed."
    assert read_captions(write(tmp_path, "b.csv", text.encode("utf-8-sig"))) == {"a.jpg": ["a \u72ac in a caf\u00e9"]}


def test_an_image_in_place_of_captions_is_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    sentence = f"{tmp_path / 'a.jpg'}, line 1 is not UTF-8 text."
    assert str(refusal(read_pairs, tmp_path / "a.jpg", [tmp_path / "a.jpg"])) == sentence


def test_captions_to_compare_with_come_in_the_order_of_the_ids(tmp_path: Path) -> None:
    rows = write(tmp_path, "other.jsonl", [one("a", "first"), one("b", "second"), one(3, "")])
    assert read_hypotheses(rows, dict.fromkeys(["3", "a", "b"], ())) == ["", "first", "second"]
    assert read_hypotheses(write(tmp_path, "other.txt", "one\ntwo\n"), dict.fromkeys(["1", "2"], ())) == ["one", "two"]
    assert read_hypotheses(write(tmp_path, "ids.csv", "id,caption\n2,two\n1,one\n"), dict.fromkeys(["1", "2"], ())) == [
        "one",
        "two",
    ]


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
    assert str(refusal(read_hypotheses, file, dict.fromkeys(["a", "b"], ()))) == sentence.replace("FILE", str(file))


def test_images_without_a_caption_to_compare_with_are_named_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, "f.jsonl", [one("a")])
    assert (
        str(refusal(read_hypotheses, file, dict.fromkeys(["c", "d", "a", "b"], ())))
        == f"{file} has no caption for c, d, b."
    )


def test_plain_text_of_another_length_is_not_compared(tmp_path: Path) -> None:
    file = write(tmp_path, "f.txt", "one\ntwo\nthree\n")
    sentence = f"{file} and the captions to compare with differ in their numbers of lines: 3 and 2."
    assert str(refusal(read_hypotheses, file, dict.fromkeys(["1", "2"], ()))) == sentence


@pytest.mark.shared_data
def test_flickr8k_as_published_holds_five_references_of_each_image(tmp_path: Path) -> None:
    tokens = SHARED_DATA / "Flickr8k.token.txt"
    captions = read_captions(tokens)
    assert len(captions) == 8092
    hypotheses = write(tmp_path, "hyp.jsonl", [one(image_id) for image_id in captions])
    assert read_pairs(hypotheses, [tokens], 5).references == list(captions.values())
    assert str(refusal(read_pairs, hypotheses, [tokens], 6)).endswith(" and 8,087 more.")
