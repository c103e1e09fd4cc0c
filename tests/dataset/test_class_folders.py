"""Captions from the names of folders, and a template."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.data import Run
from imgcap.dataset.class_folders import CaptionTemplate, class_captions, label_of
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.records import Entry, LeftOut
from imgcap.errors import ExitCode, ImgcapError, UsageError

TEMPLATE = CaptionTemplate("a photo of a {label}")


def write_images(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


@pytest.mark.parametrize(
    ("template", "label", "caption"),
    [
        ("a photo of a {label}", "cat", "a photo of a cat"),
        ("a photo of a {label}", "apple", "a photo of an apple"),
        ("a photo of an {label}", "cat", "a photo of a cat"),
        ("A {label} on a {label}", "Owl", "An Owl on an Owl"),
        ("a {label}", "unicorn", "a unicorn"),
        ("a {label}", "umbrella", "an umbrella"),
        ("a {label}", "hourglass", "an hourglass"),
        ("a {label}", "house", "a house"),
        ("a big {label}", "owl", "a big owl"),
        ("data {label}", "owl", "data owl"),
        ("{label}: {0} {other}", "owl", "owl: {0} {other}"),
        ("the {label}", "{label}", "the {label}"),
    ],
)
def test_the_label_replaces_its_place_and_the_article_fits(template: str, label: str, caption: str) -> None:
    assert CaptionTemplate(template).fill(label) == caption


@pytest.mark.parametrize("text", ["a photo", "", "a {Label}", "{ label }"])
def test_a_template_without_a_label_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        CaptionTemplate(text)
    assert str(caught.value).split("\n")[0] == f"The caption template {text!r} has no {{label}}."


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("golden_retriever", "golden retriever"),
        ("T-shirt__x ", "T shirt x"),
        ("001.Crow", "001.Crow"),
        ("caf\u00e9", "caf\u00e9"),
    ],
)
def test_a_label_is_the_name_of_its_folder_with_spaces(folder: str, label: str) -> None:
    assert label_of(folder) == label


@pytest.mark.parametrize(
    ("paths", "captions"),
    [
        (["cat/1.jpg", "dog/a/2.jpg"], [("a photo of a cat", None), ("a photo of an a", None)]),
        (["train/cat/1.jpg", "test/dog/2.jpg"], [("a photo of a dog", "test"), ("a photo of a cat", "train")]),
        (["train/1.jpg", "plane/2.jpg"], [("a photo of a plane", None), ("a photo of a train", None)]),
        (["train/train/1.jpg"], [("a photo of a train", "train")]),
    ],
)
def test_the_innermost_folder_is_the_label_and_outer_folders_may_be_splits(
    paths: list[str], captions: list[tuple[str, str | None]]
) -> None:
    found = [entry for entry in class_captions(Path("photos"), paths, [TEMPLATE]) if isinstance(entry, Entry)]
    assert [(entry.caption, entry.split) for entry in found] == captions


@pytest.mark.parametrize("paths", [["1.jpg", "cat/2.jpg"], ["train/1.jpg", "train/cat/2.jpg"]])
def test_an_image_in_no_class_folder_is_left_out(paths: list[str]) -> None:
    first = next(iter(class_captions(Path("photos"), paths, [TEMPLATE])))
    assert first == LeftOut(paths[0], "is in no class folder")


def test_each_template_gives_a_caption(tmp_path: Path) -> None:
    folder = write_images(tmp_path, "hot_dog/1.jpg", "owl/2.jpg")
    dataset = read_dataset(folder, templates=[TEMPLATE, CaptionTemplate("{label} up close")])
    assert {record.path: record.captions for record in dataset.records} == {
        "hot_dog/1.jpg": ("a photo of a hot dog", "hot dog up close"),
        "owl/2.jpg": ("a photo of an owl", "owl up close"),
    }


@pytest.mark.parametrize("paths", [["1.jpg", "2.jpg"], ["train/1.jpg", "val/2.jpg"]])
def test_a_folder_without_class_folders_is_one_sentence(tmp_path: Path, paths: list[str]) -> None:
    with pytest.raises(ImgcapError) as caught:
        read_dataset(write_images(tmp_path, *paths), templates=[TEMPLATE])
    sentence = f"{tmp_path} has no class folders, such as {tmp_path / 'cat' / '1.jpg'}."
    assert str(caught.value).split("\n")[0] == sentence


def test_templates_exclude_captions_and_archives(imgcap_here: Run, tmp_path: Path) -> None:
    write_images(tmp_path, "cat/1.jpg", "captions.csv")
    prepare: list[object] = ["prepare", "--images", tmp_path, "-o", tmp_path / "out", "--caption-template"]
    cases: list[tuple[list[object], str]] = [
        (["a photo"], "The caption template 'a photo' has no {label}."),
        (
            ["{label}", "--captions", tmp_path / "captions.csv", "--format", "csv"],
            "--caption-template makes captions from folders, so it excludes --captions and --format.",
        ),
        (
            ["{label}", "--images", "x.tar"],
            "--caption-template needs --images FOLDER, with a folder for each class.",
        ),
    ]
    for options, sentence in cases:
        done = imgcap_here(*prepare, *options)
        assert done.returncode == ExitCode.USAGE
        assert sentence in " ".join(done.stderr.split())
