"""Commands give the same results from tar archives as from a folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from helpers.data import Run, write_data_set
from helpers.tars import write_shards
from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.records import Record
from imgcap.errors import ExitCode
from imgcap.images import archives


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images, one of them damaged, and the same images in shards."""
    folder = tmp_path_factory.mktemp("walls")
    captions = write_data_set(folder)
    (folder / "images" / "013.png").write_bytes(b"damaged")
    write_shards(folder / "shards", folder / "images", captions)
    return folder


@pytest.fixture(scope="module")
def shards(walls: Path) -> str:
    return str(walls / "shards" / "{00..02}.tar")


def rows(file: Path) -> list[tuple[str, object, object]]:
    """The image's name, the caption and the kind of error in each row."""
    parsed = map(json.loads, file.read_text().splitlines())
    return [(Path(row["path"]).name, row.get("caption"), row.get("error_kind")) for row in parsed]


@pytest.fixture(scope="module")
def expected(walls: Path, telling_model: Path) -> list[tuple[str, object, object]]:
    """The rows for the folder."""
    from imgcap.captioning.captioner import load_model

    found: list[tuple[str, object, object]] = []
    for caption in load_model(telling_model).stream(sorted((walls / "images").iterdir())):
        name, error = Path(caption.path or "").name, caption.error
        found.append((name, None if error else caption.text, error.kind if error else None))
    assert len({text for _, text, _ in found}) > 5
    return found


def test_caption_resume_and_shards(
    imgcap_here: Run, walls: Path, shards: str, telling_model: Path, tmp_path: Path, expected: list[object]
) -> None:
    caption = ["caption", shards, "--model", telling_model, "--batch-size", 4]
    done = imgcap_here(*caption, "-o", tmp_path / "rows.jsonl", "--html", tmp_path / "page.html")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert rows(tmp_path / "rows.jsonl") == expected
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    archive = walls / "shards" / "00.tar"
    size = (walls / "images" / "000.png").stat().st_size
    assert (first["path"], first["bytes"], first["modified"]) == (f"{archive}/000.png", size, None)
    page = (tmp_path / "page.html").read_text()
    assert page.count("UklGR") == 23  # the beginning of a WebP

    whole = (tmp_path / "rows.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines[:17]) + lines[17][:20])  # as a kill leaves it
    done = imgcap_here(*caption, "-o", tmp_path / "rows.jsonl", "--resume", "--html", tmp_path / "page.html")
    assert "17 images are done" in done.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == whole
    assert (tmp_path / "page.html").read_text().count("UklGR") == 23
    done = imgcap_here(*caption, "-o", tmp_path / "rows.jsonl", "--resume", "--retry-failed")
    assert "23 images are done, 1 to be done again" in done.stderr

    for shard in ("2/3", "1/3", "3/3"):
        imgcap_here(*caption, "-o", tmp_path / "parts.jsonl", "--shard", shard)
    assert imgcap_here("merge", tmp_path / "parts.jsonl").returncode == ExitCode.DONE
    assert (tmp_path / "parts.jsonl").read_bytes() == whole


def test_caption_from_a_list_with_a_selection_and_by_content(
    imgcap_here: Run, walls: Path, telling_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"{walls}/shards/{{00..01}}.tar\n{walls}/images/023.png\n")
    options = ["--model", telling_model, "--include", "00*", "--exclude", "*8.png", "--by-content"]
    done = imgcap_here("caption", "--from-file", tmp_path / "list.txt", *options, "-o", tmp_path / "rows.jsonl")
    assert done.returncode == ExitCode.SOME_FAILED  # the second archive has none that begins with 00
    names = [name for name, _, _ in rows(tmp_path / "rows.jsonl")]
    assert names == [*(f"{i:03}.png" for i in range(10) if i != 8), "01.tar", "023.png"]
    parsed = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len({row["sha256"] for row in parsed if "caption" in row}) == 10


def test_what_archives_cannot_do_is_a_sentence(imgcap_here: Run, walls: Path, model_folder: Path) -> None:
    tar = walls / "shards" / "00.tar"
    for option in (["--sidecar", ".txt"], ["--sidecar-dir", walls / "out"], ["--write-metadata"]):
        done = imgcap_here("caption", tar, "--model", model_folder, *option)
        assert done.returncode == ExitCode.USAGE
        assert "neither sidecars nor metadata" in done.stderr
    done = imgcap_here("caption", walls / "gone.tar.gz", "--model", model_folder)
    assert done.returncode == ExitCode.FAILED
    assert "does not exist" in done.stderr
    done = imgcap_here("prepare", "--images", walls / "images", "-o", walls / "out")
    assert done.returncode == ExitCode.USAGE
    assert "--captions" in done.stderr


def features(prepared: PreparedFolder) -> bytes:
    return prepared.features[list(range(len(prepared.records)))].tobytes()


def test_prepare_and_fine_tuning_are_the_same_from_archives(
    imgcap_here: Run, walls: Path, shards: str, encoder_file: Path, telling_model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "walls"
    shutil.copytree(walls, moved)
    shards = shards.replace(str(walls), str(moved))
    prepare = ["prepare", "--encoder", encoder_file, "--images"]
    done = imgcap_here(*prepare, moved / "images", "--captions", moved / "captions.csv", "-o", tmp_path / "folder")
    assert done.returncode == ExitCode.SOME_FAILED
    done = imgcap_here(*prepare, shards, "-o", tmp_path / "whole")
    assert done.returncode == ExitCode.SOME_FAILED
    folder, whole = PreparedFolder(tmp_path / "folder"), PreparedFolder(tmp_path / "whole")
    assert features(whole) == features(folder)

    def told(record: Record) -> object:
        return Path(record.path).name, record.captions, record.split

    assert list(map(told, whole.records)) == list(map(told, folder.records))
    assert [left.name for left in whole.left_out()] == ["01.tar/013.png"]
    for number in ("2/2", "1/2"):
        imgcap_here(*prepare, shards, "--captions", shards, "-o", tmp_path / "parts", "--shard", number)
    imgcap_here(*prepare, shards, "-o", tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")

    train = ["--fine-tune-encoder", "--epochs", 1, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1]
    train += ["--batch-size", 8, "--beam-size", 2, "--device", "cpu"]
    for name in ("folder", "whole"):
        done = imgcap_here("train", tmp_path / name, "-o", tmp_path / f"{name}-model" / "model", *train)
        assert done.returncode == ExitCode.DONE, done.stderr
    for file in ("decoder.safetensors", "encoder.safetensors"):
        one, other = (tmp_path / f"{name}-model" / "model" / file for name in ("folder", "whole"))
        assert one.read_bytes() == other.read_bytes()

    page = tmp_path / "page.html"
    done = imgcap_here("eval", tmp_path / "whole", "--model", telling_model, "--split", "val", "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert page.read_text().count("UklGR") == whole.metadata.splits["val"]

    shard = moved / "shards" / "01.tar"
    os.utime(shard, ns=(1, 1))
    done = imgcap_here(*prepare, shards, "-o", tmp_path / "whole")
    assert done.returncode == ExitCode.FAILED
    assert "prepared from other inputs" in done.stderr
    shard.unlink()
    archives._table.cache_clear()
    done = imgcap_here("train", tmp_path / "whole", "-o", tmp_path / "gone", *train)
    assert done.returncode == ExitCode.FAILED
    assert "01.tar does not exist" in done.stderr


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
