"""Caption files with faults: a bad row is left out, a file that is wrong as a whole is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.data_sets import COCO, FLICKR8K, contents, left_out, write, write_images
from imgcap.dataset.loading import read_dataset
from imgcap.errors import ImgcapError, UsageError
from imgcap.text.columns import Columns

LONG_HEADER = f"{'x' * 40}, b, c, d, e and 2 more"
SPLITS = "train, val, test"


def coco(**fields: object) -> dict[str, object]:
    """Two images and their annotations, with some fields replaced."""
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    annotations = [{"image_id": 1, "caption": "x"}, {"image_id": 2, "caption": "y"}]
    return {"images": images, "annotations": annotations, **fields}


def karpathy(**fields: object) -> dict[str, object]:
    """An image with one caption, some fields replaced or, by `...`, removed; and a good image after it."""
    image = {"filename": "b.jpg", "split": "train", "sentences": [{"raw": "y"}], **fields}
    good = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "x"}]}
    return {"images": [{key: value for key, value in image.items() if value is not ...}, good]}


def annotated(**fields: object) -> dict[str, object]:
    return coco(annotations=[{"image_id": 1, "caption": "x"}, {"image_id": 2, **fields}])


GOOD = {"image": "a.jpg", "caption": "x"}


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        # tables
        ("t.csv", "image,caption\na.jpg,x\nb.jpg", "t.csv, line 3", "has 1 of 2 columns"),
        ("t.csv", "image,caption\nb.jpg,A dog, runs\na.jpg,x\n", "t.csv, line 2", "has 3 columns, but the header 2"),
        ("t.csv", "image,caption,split\nb.jpg,y\na.jpg,x,\n", "t.csv, line 2", "has 2 of 3 columns"),
        ("t.csv", "image| number| comment\nb.jpg| 4   A\na.jpg| 0| x\n", "t.csv, line 2", "has 2 of 3 columns"),
        (
            "t.csv",
            'image,caption\nb.jpg,"A" dog\na.jpg,x\n',
            "t.csv, line 2",
            "is not valid CSV: ',' expected after '\"'",
        ),
        (
            "t.csv",
            'image,caption\nb.jpg,"A dog\na.jpg,x\n',
            "t.csv, line 2",
            "is not valid CSV: unexpected end of data",
        ),
        ("t.csv", "image,caption\nb.jpg,\na.jpg,x\n", "t.csv, line 2", "has an empty caption for b.jpg"),
        ("t.csv", "image,caption\nb.jpg,...\na.jpg,x\n", "t.csv, line 2", "has an empty caption for b.jpg"),
        ("t.csv", "image,caption\n,y\na.jpg,x\n", "t.csv, line 2", "has no image name"),
        (
            "t.csv",
            "image,caption,split\nb.jpg,y,eval\na.jpg,x,\n",
            "t.csv, line 2",
            f"has the unknown split 'eval'; known are {SPLITS}",
        ),
        (
            "t.csv",
            'image,raw\nb.jpg,"[null, """"]"\na.jpg,"[""x""]"\n',
            "t.csv, line 2",
            "has an empty caption for b.jpg",
        ),
        # Flickr8k
        ("t.txt", "a.jpg#0\tx\nb.jpg\ty\n", "t.txt, line 2", "is not NAME.jpg#K<TAB>caption"),
        ("t.txt", "a.jpg#0\tx\nb.jpg#1 y\n", "t.txt, line 2", "is not NAME.jpg#K<TAB>caption"),
        ("t.txt", "a.jpg#0\tx\nb.jpg#1\t\n", "t.txt, line 2", "has an empty caption for b.jpg"),
        ("t.txt", "b.jpg y\na.jpg#0\tx\n", "t.txt, line 1", "is not NAME.jpg#K<TAB>caption"),
        ("t.txt", "b.jpg\ty\na.jpg#0\tx\n", "t.txt, line 1", "is not NAME.jpg#K<TAB>caption"),
        ("t.txt", "b.jpg y\na.jpg\tx\n", "t.txt, line 1", "is not NAME.jpg<TAB>caption"),
        ("t", 'b.jpg\n{"image": "a.jpg", "caption": "x"}\n', "t, line 1", "is not valid JSON"),
        ("t.txt", "a.jpg\tx\nb.jpg y\n", "t.txt, line 2", "is not NAME.jpg<TAB>caption"),
        # COCO
        (
            "c.json",
            coco(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2}]),
            "c.json, images[1]",
            "has no 'file_name'",
        ),
        ("c.json", coco(images=[{"id": 1, "file_name": "a.jpg"}, "b"]), "c.json, images[1]", "has no 'id'"),
        (
            "c.json",
            coco(images=[{"id": 1, "file_name": "a.jpg"}, {"id": {}, "file_name": "b.jpg"}]),
            "c.json, images[1]",
            "has an invalid 'id': neither text nor a whole number",
        ),
        (
            "c.json",
            coco(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": None}]),
            "c.json, images[1]",
            "has an invalid 'file_name': neither text nor a whole number",
        ),
        (
            "c.json",
            coco(annotations=[{"image_id": 1, "caption": "x"}, 5]),
            "c.json, annotations[1]",
            "has no 'image_id'",
        ),
        ("c.json", annotated(), "c.json, annotations[1]", "has no 'caption'"),
        ("c.json", annotated(caption=None), "c.json, annotations[1]", "has no caption for b.jpg"),
        ("c.json", annotated(caption=""), "c.json, annotations[1]", "has an empty caption for b.jpg"),
        ("c.json", annotated(caption=3), "c.json, annotations[1]", "has a caption that is not text"),
        (
            "c.json",
            annotated(caption="y", image_id=[2]),
            "c.json, annotations[1]",
            "has an invalid 'image_id': neither text nor a whole number",
        ),
        (
            "c.json",
            coco(images=[{"id": 1, "file_name": "a.jpg"}]),
            "c.json, annotations[1]",
            "is of the image 2, which is not in images",
        ),
        # Karpathy
        ("k.json", karpathy(filename=...), "k.json, images[0]", "has no 'filename'"),
        ("k.json", karpathy(sentences=...), "k.json, images[0]", "has no 'sentences'"),
        ("k.json", karpathy(sentences={}), "k.json, images[0]", "has 'sentences' that are not a list"),
        ("k.json", karpathy(sentences=[None]), "k.json, images[0].sentences[0]", "has no 'raw' text"),
        ("k.json", karpathy(sentences=[{"raw": None}]), "k.json, images[0].sentences[0]", "has no 'raw' text"),
        ("k.json", karpathy(sentences=[{"tokens": ["y"]}]), "k.json, images[0].sentences[0]", "has no 'raw' text"),
        (
            "k.json",
            karpathy(split="eval"),
            "k.json, images[0]",
            f"has the unknown split 'eval'; known are {SPLITS}",
        ),
        ("k.json", karpathy(split=1), "k.json, images[0]", "has a split that is not text"),
        # JSON Lines
        ("l.jsonl", '{"image": "a.jpg", "caption": "x"}\n{"image": "a.j', "l.jsonl, line 2", "is not valid JSON"),
        (
            "l.jsonl",
            '{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg", "image": "c.jpg"}',
            "l.jsonl, line 2",
            "has the key 'image' twice in one JSON object",
        ),
        ("l.jsonl", [GOOD, ["b.jpg", "y"]], "l.jsonl, line 2", "is not a JSON object"),
        ("l.jsonl", [GOOD, {"caption": "y"}], "l.jsonl, line 2", "has no image name"),
        ("l.jsonl", [GOOD, {"image": "b.jpg"}], "l.jsonl, line 2", "has no caption"),
        (
            "l.jsonl",
            [GOOD, {"image": None, "caption": "y"}],
            "l.jsonl, line 2",
            "has an invalid 'image': neither text nor a whole number",
        ),
        ("l.jsonl", [GOOD, {"image": "b.jpg", "caption": 5}], "l.jsonl, line 2", "has a caption that is not text"),
        ("l.jsonl", [GOOD, {"image": "b.jpg", "caption": None}], "l.jsonl, line 2", "has no caption for b.jpg"),
        ("l.jsonl", [GOOD, {"image": "b.jpg", "captions": []}], "l.jsonl, line 2", "has no caption for b.jpg"),
        (
            "l.jsonl",
            [GOOD, {"image": "b.jpg", "captions": ["", 5]}],
            "l.jsonl, line 2",
            "has a caption that is not text",
        ),
        (
            "l.jsonl",
            [GOOD, {"image": "b.jpg", "caption": "caf\udce9"}],
            "l.jsonl, line 2",
            "has a caption with U+DCE9 in it, which no text can hold",
        ),
        (
            "l.jsonl",
            [GOOD, {"image": "b.jpg", "captions": ["a\0dog"]}],
            "l.jsonl, line 2",
            "has a caption with U+0000 in it, which no text can hold",
        ),
        ("l.jsonl", [{**GOOD, "captions": [None]}, GOOD], "l.jsonl, line 1", None),
        (
            "l.jsonl",
            [GOOD, {"image": "b.jpg", "caption": "y", "split": 1}],
            "l.jsonl, line 2",
            "has a split that is not text",
        ),
        # an array
        ("l.json", [GOOD, {"image": "b.jpg", "caption": None}], "l.json, item 2", "has no caption for b.jpg"),
        ("l.json", [GOOD, 5], "l.json, item 2", "is not a JSON object"),
    ],
)
def test_a_bad_row_is_left_out_with_its_place_and_the_reason(
    tmp_path: Path, name: str, content: object, place: str, reason: str | None
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path, {name: content})
    dataset = read_dataset(image_folder, tmp_path / name)
    captions = {path: captions for path, (captions, _) in contents(dataset).items()}
    assert captions["a.jpg"][0] == "x"
    if reason is None:
        assert place not in left_out(dataset)
    else:
        assert "b.jpg" not in captions
        assert left_out(dataset).pop(place) == reason
        assert left_out(dataset)["b.jpg"] == "no caption names it"


def test_a_null_caption_does_not_hide_the_others_of_its_image(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"l.jsonl": [{"image": "a.jpg", "captions": ["x", None, "z"]}]})
    dataset = read_dataset(image_folder, tmp_path / "l.jsonl")
    assert dataset.records[0].captions == ("x", "z")
    assert left_out(dataset) == {"l.jsonl, line 1": "has no caption for a.jpg"}


@pytest.mark.parametrize(
    ("images", "annotations"),
    [(["1", "2"], [1, 2]), ([1, 2], ["1", "2"]), ([1, 2], [1.0, 2.0])],
)
def test_ids_of_text_and_of_numbers_are_the_same(
    tmp_path: Path, images: list[object], annotations: list[object]
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "b.jpg")
    named = [{"id": each, "file_name": name} for each, name in zip(images, ("a.jpg", "b.jpg"), strict=True)]
    texts = [{"image_id": each, "caption": text} for each, text in zip(annotations, ("x", "y"), strict=True)]
    write(tmp_path, {"c.json": {"images": named, "annotations": texts}})
    dataset = read_dataset(image_folder, tmp_path / "c.json")
    assert {record.path: record.captions for record in dataset.records} == {"a.jpg": ("x",), "b.jpg": ("y",)}
    assert not dataset.left_out


def test_an_image_id_in_json_lines_may_be_a_number(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "12.jpg", "13.jpg")
    write(tmp_path, {"l.jsonl": [{"image_id": 12, "caption": "x"}, {"image_id": "13", "caption": "y"}]})
    assert [record.path for record in read_dataset(image_folder, tmp_path / "l.jsonl").records] == ["12.jpg", "13.jpg"]


NO_FORMAT = "The format of FILE cannot be detected from its content."
NO_IMAGE = "No caption in FILE belongs to an image in IMAGES."
NO_CAPTION = "No caption in FILE can be used."


@pytest.mark.parametrize(
    ("name", "content", "format_name", "sentence"),
    [
        # tables
        ("all.csv", "image,words\na.jpg,x\n", None, "FILE has no caption column; its header is image, words."),
        ("all.csv", "picture,caption\na.jpg,x\n", None, "FILE has no image column; its header is picture, caption."),
        ("all.csv", "a.jpg,A dog\n", None, "FILE has no image column; its header is a.jpg, a dog."),
        ("all.csv", "", None, "FILE has no image column; its header is empty."),
        ("all.csv", "image,caption\na.jpg,caf\xe9\n".encode("latin-1"), None, "FILE, line 2 is not UTF-8 text."),
        ("all.csv", "image,caption\na.jpg,x\n".encode("utf-16"), None, "FILE, line 1 is not UTF-8 text."),
        ("a.csv", "x" * 99 + ",b,c,d,e,f,g\n", None, f"FILE has no image column; its header is {LONG_HEADER}."),
        ("t.txt", b"a.jpg#0\tcaf\xe9\n", None, "FILE, line 1 is not UTF-8 text."),
        # JSON
        ("a.json", '{"images": [],\n"annotations": [', None, "FILE is not valid JSON at line 2."),
        ("a.json", coco(images={}), None, "FILE: 'images' is not a list."),
        ("a.json", coco(annotations="x"), None, "FILE: 'annotations' is not a list."),
        ("k.json", {"images": {}}, None, "FILE: 'images' is not a list."),
        ("a.json", ["x"], "coco", "FILE has no 'images'."),
        ("a.json", ["x"], "karpathy", "FILE has no 'images'."),
        ("a.json", COCO, "json", "FILE is not a JSON array."),
        # no format at all
        ("a.json", ["a.jpg"], None, NO_FORMAT),
        ("a.json", {"a.jpg": "x"}, None, NO_FORMAT),
        ("a.json", "", None, "FILE is not valid JSON at line 1."),
        ("a.json", '"text"', None, NO_FORMAT),
        ("a.txt", "A dog\nA cat\n", None, NO_FORMAT),
        ("a.txt", "", None, NO_FORMAT),
        ("a.bin", bytes(range(256)), None, "FILE, line 2 is not UTF-8 text."),
        # another format than the one named
        ("a.csv", "image,caption\na.jpg,x\n", "flickr8k", NO_CAPTION),
        ("a.csv", "image,caption\na.jpg,x\n", "coco", "FILE is not valid JSON at line 1."),
        ("a.csv", "image,caption\na.jpg,x\n", "karpathy", "FILE is not valid JSON at line 1."),
        ("a.csv", "image,caption\na.jpg,x\n", "jsonl", NO_CAPTION),
        ("a.csv", "image,caption\na.jpg,x\n", "sidecars", "The folder FILE cannot be read: not a directory."),
        ("a.csv", "image,caption\na.jpg,x\n", "imagefolder", NO_IMAGE),
        ("a.json", karpathy(), "coco", "FILE has no 'annotations'."),
        ("a.json", coco(), "karpathy", NO_CAPTION),
        ("a.json", coco(), "jsonl", NO_CAPTION),
        (
            "a.txt",
            FLICKR8K,
            "csv",
            "FILE has no image column; its header is 1000_a.jpg#0, a child in a pink dress ..",
        ),
        # nothing to be used
        ("a.csv", "image,caption\n", None, NO_IMAGE),
        ("a.csv", "image,caption\nb.jpg,x\n", None, NO_IMAGE),
        ("a.csv", "image,caption\na.jpg,\na.jpg,...\n", None, NO_CAPTION),
        ("a.jsonl", "", None, NO_IMAGE),
        ("a.jsonl", [{"image": "a.jpg", "captions": []}], None, NO_CAPTION),
        ("a.json", coco(annotations=[]), None, NO_IMAGE),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_one_sentence(
    tmp_path: Path, name: str, content: object, format_name: str | None, sentence: str
) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {name: content})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / name, format_name)
    assert str(caught.value) == sentence.replace("FILE", str(tmp_path / name)).replace("IMAGES", str(image_folder))


def test_the_first_bad_row_is_in_the_hint_if_none_can_be_used(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "image,caption,split\na.jpg,x,eval\na.jpg\n"})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv")
    assert caught.value.hint == (
        "The first that was left out: all.csv, line 2 has the unknown split 'eval'; known are train, val, test."
    )


def test_rows_of_an_imagefolder_are_placed_by_its_metadata_file(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "train/a.jpg", "val/b.jpg")
    write(image_folder, {"train/metadata.csv": "file_name,text\na.jpg\na.jpg,x\n"})
    write(
        image_folder,
        {"val/metadata.jsonl": [{"file_name": "b.jpg", "text": None}, {"file_name": "b.jpg", "text": "y"}]},
    )
    dataset = read_dataset(image_folder, image_folder)
    assert contents(dataset) == {"train/a.jpg": (["x"], "train"), "val/b.jpg": (["y"], "val")}
    assert left_out(dataset) == {
        "train/metadata.csv, line 2": "has 1 of 2 columns",
        "val/metadata.jsonl, line 1": "has no caption for b.jpg",
    }


def test_columns_can_be_named(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": "caption,Foto,Alt Text\n17,a.jpg,A dog\n"})
    write(tmp_path, {"all.jsonl": [{"foto": "a.jpg", "alt": {"raw": "A dog"}}]})
    for name, columns in (("all.csv", Columns("foto", "alt text")), ("all.jsonl", Columns("foto", "alt"))):
        assert contents(read_dataset(image_folder, tmp_path / name, columns=columns))["a.jpg"][0] == ["A dog"]
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, tmp_path / "all.csv", columns=Columns(caption="bild"))
    assert str(caught.value) == f"{tmp_path / 'all.csv'} has no column 'bild'; its header is caption, foto, alt text."
    write(tmp_path, {"c.json": coco()})
    with pytest.raises(UsageError, match="The format coco has no columns to name"):
        read_dataset(image_folder, tmp_path / "c.json", columns=Columns(caption="bild"))


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ("file_name,caption_0,caption_1\na.jpg,x,\n", ["x"]),
        ('filename,raw,split\na.jpg,"[""x"", ""y""]",train\n', ["x", "y"]),
        ("filename,raw\na.jpg,\"['x', 'y']\"\n", ["x", "y"]),
        ("IMG_NAME,Description\na.jpg,x\n", ["x"]),
    ],
)
def test_columns_have_the_names_that_people_use(tmp_path: Path, content: str, captions: list[str]) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg")
    write(tmp_path, {"all.csv": content})
    assert contents(read_dataset(image_folder, tmp_path / "all.csv"))["a.jpg"][0] == captions


def test_a_broken_metadata_file_is_named(tmp_path: Path) -> None:
    image_folder = write_images(tmp_path / "images", "a.jpg", "sub/b.jpg")
    write(image_folder, {"sub/metadata.csv": "file_name\nb.jpg\n"})
    with pytest.raises(ImgcapError) as caught:
        read_dataset(image_folder, image_folder)
    assert (
        str(caught.value) == f"{image_folder / 'sub' / 'metadata.csv'} has no caption column; its header is file_name."
    )
