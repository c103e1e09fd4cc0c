"""Images are found by id or by a path that agrees, and never another image."""

from __future__ import annotations

import pytest

from imgcap.errors import ImgcapError
from imgcap.scoring.matching import ImageIndex


@pytest.mark.parametrize(
    ("known", "name", "found"),
    [
        (["a.jpg"], "a.jpg", "a.jpg"),
        (["a.jpg"], "photos/a.jpg", "a.jpg"),
        (["a.jpg"], "/home/me/photos/a.jpg", "a.jpg"),
        (["a.jpg"], "./a.jpg", "a.jpg"),
        (["a.jpg"], "..\\photos\\a.JPG", "a.jpg"),
        (["photos/a.jpg"], "a.jpg", "photos/a.jpg"),
        (["photos/cats/a.jpg"], "cats/a.jpg", "photos/cats/a.jpg"),
        (["cats/a.jpg", "dogs/a.jpg"], "photos/dogs/a.jpg", "dogs/a.jpg"),
        (["a.jpg", "cats/a.jpg"], "photos/cats/a.jpg", "cats/a.jpg"),
        (["a.jpg", "cats/a.jpg"], "a.jpg", "a.jpg"),
        (["a.jpg", "cats/a.jpg"], "photos/a.jpg", "a.jpg"),
        (["a.jpg", "a.png"], "photos/a.png", "a.png"),
        (["a", "b"], "photos/a.jpg", "a"),
        (["a.jpg"], "a", "a.jpg"),
        (["caf\u00e9.jpg"], "photos/cafe\u0301.jpg", "caf\u00e9.jpg"),
        (["7"], "7", "7"),
        # A folder that contradicts, another ending, another name.
        (["cats/a.jpg"], "dogs/a.jpg", None),
        (["a.jpg", "cats/b.jpg"], "photos/cats/a.jpg", None),
        (["cats/a.jpg"], "photos/dogs/a.jpg", None),
        (["photos/cats/a.jpg"], "photos/a.jpg", None),
        (["a.png"], "photos/a.jpg", None),
        (["a.jpg.png"], "a.jpg", None),
        (["a.jpg"], "A.jpg", None),
        (["a.jpg"], "ba.jpg", None),
        (["7"], "007", None),
        (["a.jpg"], "", None),
        ([], "a.jpg", None),
    ],
)
def test_a_name_finds_the_image_whose_path_agrees(known: list[str], name: str, found: str | None) -> None:
    assert ImageIndex(dict.fromkeys(known, ()), "refs.csv").find(name) == found


def test_a_name_without_folder_is_no_image_in_a_folder_that_other_names_have() -> None:
    known, sought = {"cats/a.jpg": (), "cats/b.jpg": ()}, ["a.jpg", "cats/b.jpg"]
    assert ImageIndex(known, "refs.csv", sought).find("a.jpg") is None
    assert ImageIndex(known, "refs.csv", ["a.jpg", "b.jpg"]).find("a.jpg") == "cats/a.jpg"


@pytest.mark.parametrize(
    ("known", "name"),
    [
        (["cats/a.jpg", "dogs/a.jpg"], "a.jpg"),
        (["cats/a.jpg", "cats/a.png"], "a"),
        (["x/cats/a.jpg", "y/cats/a.jpg", "a.jpg"], "cats/a.jpg"),
    ],
)
def test_a_name_of_several_images_is_one_sentence(known: list[str], name: str) -> None:
    with pytest.raises(ImgcapError) as caught:
        ImageIndex(dict.fromkeys(known, ()), "refs.csv").find(name)
    first, second = known[:2]
    assert str(caught.value) == f"Several images in refs.csv have the name {name}: {first}, {second}."


def test_an_image_is_found_by_its_other_names_too() -> None:
    index = ImageIndex({"7": ["COCO_7.jpg", "391895"], "42": ["val/COCO_42.jpg"]}, "refs.csv")
    assert index.find("photos/COCO_7.jpg") == "7"
    assert index.find("391895") == "7"
    assert index.find("val/COCO_42.jpg") == "42"
    assert index.find("train/COCO_42.jpg") is None
    assert index.find("photos/7.jpg") is None  # whose file is COCO_7.jpg
    assert index.find("unknown", ["COCO_42.jpg"]) == "42"
    assert index.find("COCO_7.jpg", ["42"]) == "42"  # an id is exact


def test_an_image_of_the_same_file_name_is_found_for_the_hint() -> None:
    index = ImageIndex(dict.fromkeys(["cats/a.jpg", "b.jpg"], ()), "refs.csv")
    assert index.same_file_name("dogs/a.jpg") == "cats/a.jpg"
    assert index.same_file_name("dogs/c.jpg") is None


def test_many_images_of_one_file_name_are_found_quickly() -> None:
    index = ImageIndex({f"{i}/image.jpg": () for i in range(20_000)}, "refs.csv")
    assert all(index.find(f"photos/{i}/image.jpg") == f"{i}/image.jpg" for i in range(20_000))
