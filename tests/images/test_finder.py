"""Names in captions and lists find the right image, or none with a reason."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from helpers.data import SHARED_DATA
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.records import Dataset
from imgcap.images.finder import ImageFinder

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
PATHS = [
    "root.jpg",
    "dogs/001.jpg",
    "dogs/002.JPG",
    "cats/002.jpg",
    "more/cats/003.jpg",
    "a.png.jpg",
    "both.jpg",
    "both.png",
    "x/same.jpg",
    "same.JPG",
    f"{DECOMPOSED}/{DECOMPOSED}.jpg",
]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        # folders are binding
        ("dogs/001.jpg", "dogs/001.jpg"),
        ("cats/001.jpg", None),
        ("cats/001", None),
        ("more/dogs/001.jpg", None),
        ("cats/root.jpg", None),
        ("dogs/cats/002.jpg", None),
        ("more/root.jpg", None),
        # outer folders may be missing, or be those of another machine
        ("001.jpg", "dogs/001.jpg"),
        ("cats/003.jpg", "more/cats/003.jpg"),
        ("/data/photos/dogs/001.jpg", "dogs/001.jpg"),
        ("C:\\photos\\dogs\\001.jpg", "dogs/001.jpg"),
        ("elsewhere/root.jpg", "root.jpg"),
        ("./dogs/../dogs/001.jpg", "dogs/001.jpg"),
        # several images of one name
        ("002.jpg", None),
        ("both", None),
        ("same", "same.JPG"),
        # endings without case, and stems
        ("dogs/002.jpg", "dogs/002.JPG"),
        ("ROOT.jpg", None),
        ("root.JPG", "root.jpg"),
        ("root", "root.jpg"),
        ("root.jpeg", None),
        ("both.PNG", "both.png"),
        ("a.png", None),
        ("a.png.jpg", "a.png.jpg"),
        # Unicode
        (f"{COMPOSED}/{COMPOSED}.jpg", f"{DECOMPOSED}/{DECOMPOSED}.jpg"),
        (f"{DECOMPOSED}/{COMPOSED}", f"{DECOMPOSED}/{DECOMPOSED}.jpg"),
        ("", None),
        ("/", None),
    ],
)
def test_names_find_their_image_and_no_other(name: str, path: str | None) -> None:
    assert ImageFinder(PATHS, "/home/me/photos").find(name) == path


def test_the_reason_names_images_with_the_same_file_name() -> None:
    finder = ImageFinder(PATHS)
    assert finder.why_not("002.jpg") == "several images have this name: cats/002.jpg, dogs/002.JPG"
    assert finder.why_not("cats/001.jpg") == "no image in its folder has this name, only dogs/001.jpg"
    assert finder.why_not("nothing.jpg") is None
    assert finder.why_not("dogs/001.CR2") == "is an image in a format that imgcap cannot read (.cr2)"


def test_a_folder_without_images_is_binding_too(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "001.jpg").touch()
    finder = ImageFinder.in_folder(tmp_path)
    assert finder.find("cats/001.jpg") is None
    assert finder.find(f"{tmp_path.name}/001.jpg") == "001.jpg"


def left_out(dataset: Dataset) -> dict[str, str]:
    return {left.name: left.reason for left in dataset.left_out}


def test_captions_and_splits_of_a_missing_image_go_to_no_other(tmp_path: Path) -> None:
    (tmp_path / "photos" / "dogs").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "photos" / "dogs" / f"{number}.jpg").touch()
    rows = [f"{folder}/{number}.jpg,a {folder} .\n" for folder in ("dogs", "cats") for number in range(4)]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(rows))
    lists = {"train": "dogs/2.jpg\ndogs/3.jpg\n", "val": "dogs/1.jpg\n", "test": "cats/0.jpg\ndogs/0.jpg\n"}
    for split, text in lists.items():
        (tmp_path / split).write_text(text)
    files = {split: tmp_path / split for split in lists}
    dataset = read_dataset(tmp_path / "photos", tmp_path / "captions.csv", split_files=files)
    assert {record.path: record.captions for record in dataset.records} == {
        f"dogs/{number}.jpg": ("a dogs .",) for number in range(4)
    }
    reason = "no image in its folder has this name, only dogs/{}.jpg"
    assert left_out(dataset) == {f"cats/{number}.jpg": reason.format(number) for number in range(4)}


def test_one_image_that_captions_name_by_two_folders_gets_none(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "photos" / name).touch()
    captions = "image,caption\ncats/1.jpg,a cat .\ndogs/1.jpg,a dog .\ncats/2.jpg,a cat .\n"
    (tmp_path / "captions.csv").write_text(captions)
    dataset = read_dataset(tmp_path / "photos", tmp_path / "captions.csv")
    assert [(record.path, record.captions) for record in dataset.records] == [("2.jpg", ("a cat .",))]
    reason = "could be 1.jpg, which is named by other folders too"
    assert left_out(dataset) == {"cats/1.jpg": reason, "dogs/1.jpg": reason, "1.jpg": "no caption names it"}


def test_captions_of_two_folders_stay_with_the_folder_that_they_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "in").mkdir(parents=True)
        for name in ("1.jpg", "2.jpg", "in/3.jpg"):
            (tmp_path / folder / name).touch()
    names = [f"{folder}/{name}" for folder in ("a", "b") for name in ("1.jpg", "2.jpg", "in/3.jpg")]
    lines = [f"{name},the image {name}\n" for name in names if name != "a/2.jpg"]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(lines))
    dataset = read_dataset(tmp_path / "a", tmp_path / "captions.csv")
    assert {record.path: record.captions for record in dataset.records} == {
        "1.jpg": ("the image a/1.jpg",),
        "in/3.jpg": ("the image a/in/3.jpg",),
    }
    other = dict.fromkeys(("b/1.jpg", "b/2.jpg", "b/in/3.jpg"), "is in another folder")
    assert left_out(dataset) == {**other, "2.jpg": "no caption names it"}
    dataset = read_dataset(tmp_path, tmp_path / "captions.csv")
    assert {record.path: record.captions for record in dataset.records} == {
        name: (f"the image {name}",) for name in names if name != "a/2.jpg"
    }


@pytest.mark.shared_data
def test_the_reported_folders() -> None:
    report = SHARED_DATA.parent / "reports" / "wrong-folder"
    dataset = read_dataset(report / "photos", report / "c.csv")
    assert {record.captions for record in dataset.records} == {("a dog runs",)}
    dataset = read_dataset(str(report / "t" / "000.tar"), report / "tar.csv")
    assert [record.captions for record in dataset.records] == [("a dog runs",)]
    dataset = read_dataset(report / "hf", report / "hf")
    for record in dataset.records:
        folder, number = record.path.removesuffix(".jpg").split("/")
        assert record.captions == (f"{folder.upper()} caption {int(number)}",)
    assert left_out(dataset)["train/001.jpg"] == "no image in its folder has this name, only test/001.jpg"
    dataset = read_dataset(report / "p2", report / "c2.csv")
    assert {record.path: record.captions for record in dataset.records} == {"b.jpg": ("a dog",)}
