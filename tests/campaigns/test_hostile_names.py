"""Names of images from strangers: none leads out of the image folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from helpers.hostile import COCO, json_lines
from imgcap.dataset.formats import FORMATS
from imgcap.dataset.loading import read_dataset
from imgcap.errors import ImgcapError
from imgcap.files import write_json_lines

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")


def write_named(folder: Path, format_name: str, name: str) -> Path:
    """Write a file that gives a caption to the image `name`, and one to 0.jpg."""
    if format_name == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"image": [name, "0.jpg"], "caption": ["a dog", "a dog"]})
        pytest.importorskip("pyarrow.parquet").write_table(table, folder / "a.parquet")
        return folder / "a.parquet"
    file, content = named(format_name, name)
    (folder / file).write_text(content)
    return folder / file


def named(format_name: str, name: str) -> tuple[str, str]:
    """File name and content of such a file of text."""
    both = (name, "0.jpg")
    match format_name:
        case "flickr8k":
            return "a.txt", "".join(f"{each}#0\ta dog\n" for each in both)
        case "csv":
            return "a.csv", "image,caption\n" + "".join(f"{each},a dog\n" for each in both)
        case "coco":
            images = [{"id": i, "file_name": each} for i, each in enumerate(both)]
            return "a.json", json.dumps({**COCO, "images": [*images, {"id": 2, "file_name": "x.jpg"}]})
        case "karpathy":
            images = [{"filepath": str(Path(each).parent), "filename": Path(each).name} for each in both]
            return "a.json", json.dumps({"images": [{**image, "sentences": [{"raw": "a dog"}]} for image in images]})
        case "json":
            return "a.json", json.dumps([{"image": each, "caption": "a dog"} for each in both])
        case "jsonl":
            return "a.jsonl", json_lines([{"image": each, "caption": "a dog"} for each in both]).decode()
    return "metadata.jsonl", json_lines([{"file_name": each, "text": "a dog"} for each in both]).decode()


@pytest.mark.parametrize("format_name", sorted({*FORMATS} - {"sidecars"}))
@pytest.mark.parametrize("name", ["../outside.jpg", "../../outside.jpg", "ABSOLUTE", "images/../../outside.jpg"])
def test_no_name_leads_out_of_the_image_folder(tmp_path: Path, format_name: str, name: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "0.jpg").touch()
    (tmp_path / "outside.jpg").touch()
    is_folder = format_name == "imagefolder"
    file = write_named(
        images if is_folder else tmp_path, format_name, name.replace("ABSOLUTE", str(tmp_path / "outside.jpg"))
    )
    dataset = read_dataset(images, images if is_folder else file, format_name)
    assert {record.path for record in dataset.records} == {"0.jpg"}
    assert any("outside.jpg" in left.name and "no image" in left.reason for left in dataset.left_out)


@pytest.mark.parametrize("format_name", sorted({*FORMATS} - {"sidecars"}))
@pytest.mark.parametrize(
    "name", ["x\0.jpg", "x" * 5000 + ".jpg", "\x1b[31m.jpg", "=cmd.jpg"], ids=lambda n: ascii(n[:6])
)
def test_a_name_that_no_file_can_have_matches_no_image(tmp_path: Path, format_name: str, name: str) -> None:
    (tmp_path / "0.jpg").touch()
    file = write_named(tmp_path, format_name, name)
    try:
        dataset = read_dataset(tmp_path, tmp_path if format_name == "imagefolder" else file, format_name)
    except ImgcapError as error:
        assert "holds a NUL character" in str(error)
    else:
        assert {record.path for record in dataset.records} == {"0.jpg"}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names that are not UTF-8")
def test_an_image_whose_name_is_not_utf8_gets_a_split(tmp_path: Path) -> None:
    for name in (b"\xff.jpg", b"a.jpg", b"b.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    write_json_lines(tmp_path / "a.jsonl", [{"image": name, "caption": "x"} for name in ("\udcff", "a", "b")])
    records = read_dataset(tmp_path, tmp_path / "a.jsonl").records
    assert [record.path for record in records] == ["\udcff.jpg", "a.jpg", "b.jpg"]
    assert {record.split for record in records} == {"train", "val", "test"}


@needs_links
def test_a_data_set_does_not_follow_links_to_folders(tmp_path: Path) -> None:
    images, outside = tmp_path / "images", tmp_path / "outside"
    for folder, name in ((images, "0.jpg"), (outside, "1.jpg")):
        folder.mkdir()
        (folder / name).touch()
    (images / "link").symlink_to(outside)
    (tmp_path / "a.csv").write_text("image,caption\n0.jpg,x\nlink/1.jpg,x\n1.jpg,x\n")
    dataset = read_dataset(images, tmp_path / "a.csv")
    assert [record.path for record in dataset.records] == ["0.jpg"]
    assert {left.name for left in dataset.left_out} == {"link/1.jpg", "1.jpg"}
