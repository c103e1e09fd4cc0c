"""Columns: which of them hold the image and the captions, and how many captions a value holds."""

from __future__ import annotations

import pytest

from imgcap.text.columns import DETECTED, Columns, caption_texts, cell_captions


@pytest.mark.parametrize(
    ("names", "image", "captions"),
    [
        (["image", "caption"], "image", ["caption"]),
        (["file_name", "split", "caption_0", "caption_1"], "file_name", ["caption_0", "caption_1"]),
        (["raw", "sentids", "split", "filename", "img_id"], "filename", ["raw"]),
        (["image_name", " comment_number", " comment"], "image_name", [" comment"]),
        (["Path", "Caption 1", "caption-2", "CAPTION3"], "Path", ["Caption 1", "caption-2", "CAPTION3"]),
        (["filepath", "title"], "filepath", ["title"]),
        (["id", "path", "caption", "description", "text"], "path", ["caption"]),
        (["image_id", "image", "text"], "image", ["text"]),
        (["image_id", "references"], "image_id", ["references"]),
        (["filename", "sentences", "imgid"], "filename", ["sentences"]),
        (["captioned", "caption_x", "picture"], None, []),
        ([], None, []),
    ],
)
def test_columns_are_known_by_their_names(names: list[str], image: str | None, captions: list[str]) -> None:
    assert DETECTED.find_image(names) == image
    assert DETECTED.find_captions(names) == captions


def test_an_image_id_can_be_preferred_to_a_file_name() -> None:
    names = ["id", "path", "image_id"]
    assert DETECTED.find_image(names) == "path"
    assert DETECTED.find_image(names, id_first=True) == "image_id"
    assert DETECTED.find_image(["id", "path"], id_first=True) == "path"


def test_named_columns_come_first_where_there_are_any() -> None:
    columns = Columns(image="Photo", caption="human.text")
    assert columns.find_image(["image", "photo"], id_first=True) == "photo"
    assert columns.find_captions(["caption", "human.text_0", "Human.Text_1", "humanxtext"]) == [
        "human.text_0",
        "Human.Text_1",
    ]
    assert columns.find_image(["image"]) == "image"
    assert columns.find_captions(["caption"]) == ["caption"]
    assert columns.missing_from(["image", "human.text_0"]) == ["Photo"]
    assert columns.missing_from(["PHOTO", "text"]) == ["human.text"]
    assert DETECTED.missing_from([]) == []


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a dog", ["a dog"]),
        ("[a]", ["[a]"]),
        ("", [""]),
        (None, [None]),
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", None], ["a", None]),
        ({"raw": "a", "tokens": ["a"]}, ["a"]),
        ([{"raw": "a", "sentid": 1}, {"Text": "b"}, {"caption": "c", "text": "d"}], ["a", "b", "c"]),
    ],
)
def test_a_value_holds_one_caption_or_several(value: object, texts: list[str | None]) -> None:
    assert caption_texts(value) == texts


@pytest.mark.parametrize("value", [5, True, [["a"]], [1], {}, {"raw": 5}, ["a", {"tokens": ["a"]}]])
def test_a_value_that_holds_no_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"A caption must be text\."):
        caption_texts(value)


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("a dog", ["a dog"]),
        (" a dog ", [" a dog "]),
        ("", [""]),
        ('["a dog", "it\'s"]', ["a dog", "it's"]),
        ('[{"raw": "a dog"}]', ["a dog"]),
        ("[]", []),
        ("['a dog', \"it's\"]", ["a dog", "it's"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[blurry] a [dog]", ["[blurry] a [dog]"]),
        ("[blurry]", ["[blurry]"]),
        ("['a' ... 'b']", ["['a' ... 'b']"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[b'a']", ["[b'a']"]),
        ("['a", ["['a"]),
        ("['a]", ["['a]"]),
        ("[" * 5000 + "]", ["[" * 5000 + "]"]),
    ],
)
def test_a_cell_holds_one_caption_or_a_list(cell: str, texts: list[str]) -> None:
    assert cell_captions(cell) == texts
