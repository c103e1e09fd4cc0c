"""Commands give the same results from Parquet files as from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.data import Run, write_data_set
from helpers.parquet import image, write_parquet
from imgcap.dataset.formats import read_csv
from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.records import Entry
from imgcap.errors import ExitCode


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images, one of them damaged, and the same images and captions in two Parquet files."""
    folder = tmp_path_factory.mktemp("walls")
    captions = write_data_set(folder)
    (folder / "images" / "013.png").write_bytes(b"damaged")
    texts: dict[str, list[str]] = {}
    for entry in read_csv(captions):
        assert isinstance(entry, Entry)
        texts.setdefault(entry.name, []).append(entry.caption)
    names = sorted(texts)
    for number, part in enumerate((names[:10], names[10:])):
        columns: dict[str, list[object]] = {
            "image": [image((folder / "images" / name).read_bytes(), name) for name in part],
            "captions": [texts[name] for name in part],
        }
        write_parquet(folder / "data" / f"part-{number:05}-of-00002.parquet", columns, group=4)
    return folder


def rows(file: Path) -> list[tuple[str, object, object]]:
    """The image's name, the caption and the kind of error in each row."""
    parsed = map(json.loads, file.read_text().splitlines())
    return [(Path(row["path"]).name, row.get("caption"), row.get("error_kind")) for row in parsed]


def features(prepared: PreparedFolder) -> bytes:
    return prepared.features[list(range(len(prepared.records)))].tobytes()


def test_caption_and_resume(imgcap_here: Run, walls: Path, telling_model: Path, tmp_path: Path) -> None:
    options = ["--model", telling_model, "--batch-size", 4]
    imgcap_here("caption", walls / "images", *options, "-o", tmp_path / "folder.jsonl")
    caption = ["caption", walls / "data", *options, "-o", tmp_path / "rows.jsonl", "--html", tmp_path / "page.html"]
    done = imgcap_here(*caption)
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert rows(tmp_path / "rows.jsonl") == rows(tmp_path / "folder.jsonl")
    whole = (tmp_path / "rows.jsonl").read_bytes()
    first = json.loads(whole.splitlines()[0])
    assert first["path"] == f"{walls}/data/part-00000-of-00002.parquet/000.png"
    assert (first["bytes"], first["modified"]) == (None, None)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:17]))
    done = imgcap_here(*caption, "--resume")
    assert "17 images are done" in done.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == whole
    assert (tmp_path / "page.html").read_text().count("UklGR") == 23  # the beginning of a WebP
    for shard in ("2/2", "1/2"):
        imgcap_here("caption", walls / "data", *options, "-o", tmp_path / "parts.jsonl", "--shard", shard)
    imgcap_here("merge", tmp_path / "parts.jsonl")
    assert (tmp_path / "parts.jsonl").read_bytes() == whole


def test_prepare_train_and_eval(
    imgcap_here: Run, walls: Path, encoder_file: Path, telling_model: Path, tmp_path: Path
) -> None:
    prepare = ["prepare", "--encoder", encoder_file, "--images"]
    imgcap_here(*prepare, walls / "images", "--captions", walls / "captions.csv", "-o", tmp_path / "folder")
    done = imgcap_here(*prepare, walls / "data", "-o", tmp_path / "rows")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    folder, prepared = PreparedFolder(tmp_path / "folder"), PreparedFolder(tmp_path / "rows")
    assert features(prepared) == features(folder)
    assert [record.captions for record in prepared.records] == [record.captions for record in folder.records]
    assert [record.split for record in prepared.records] == [record.split for record in folder.records]
    assert [left.name for left in prepared.left_out()] == ["part-00001-of-00002.parquet/013.png"]
    done = imgcap_here(*prepare, walls / "data", "-o", tmp_path / "rows")
    assert "Encoding" not in done.stderr
    train = ["--fine-tune-encoder", "--epochs", 1, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1]
    train += ["--batch-size", 8, "--beam-size", 2, "--device", "cpu"]
    done = imgcap_here("train", tmp_path / "rows", "-o", tmp_path / "models" / "walls", *train)
    assert done.returncode == ExitCode.DONE, done.stderr
    page = tmp_path / "page.html"
    done = imgcap_here("eval", tmp_path / "rows", "--model", telling_model, "--split", "val", "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert page.read_text().count("UklGR") == prepared.metadata.splits["val"]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"image": ["a.jpg"], "caption": ["a"]}, "has no images: its column 'image' has only their names."),
        ({"label": [1], "caption": ["a"]}, "has no column of images; its columns: label, caption."),
        ({"image": [image(b"x")], "caption": [7]}, "has no captions: its column 'caption' holds int64, not text."),
    ],
)
def test_a_file_that_is_no_data_set_is_one_sentence(
    imgcap_here: Run, tmp_path: Path, columns: dict[str, list[object]], sentence: str
) -> None:
    types = {"image": None} if isinstance(columns.get("image", [{}])[0], str) else None
    file = write_parquet(tmp_path / "a.parquet", columns, types)
    done = imgcap_here("prepare", "--images", file, "-o", tmp_path / "out")
    assert done.returncode == ExitCode.FAILED
    assert f"{file} {sentence}" in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
