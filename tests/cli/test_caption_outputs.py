"""Where `imgcap caption` and `imgcap apply` write: rows, sidecars, metadata and galleries."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.command import read_json_lines
from helpers.data import Run, draw
from imgcap.errors import ExitCode
from imgcap.images.metadata.description import read_description


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("jsonl", lambda text: [json.loads(line) for line in text.splitlines()]),
        ("json", json.loads),
        ("csv", lambda text: list(csv.DictReader(text.splitlines()))),
    ],
)
def test_rows_in_every_format_go_to_stdout_or_a_file(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str], kind: str, read: Any
) -> None:
    done = imgcap_here("caption", album, "--format", kind, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert {row["path"]: row["caption"] for row in read(done.stdout)} == expected
    file = tmp_path / "out" / f"rows.{kind}"
    to_file = imgcap_here("caption", album, "-o", file, "--model", telling_model)
    assert to_file.stdout == ""
    assert file.read_bytes().decode() == done.stdout
    again = imgcap_here("caption", album, "-o", file, "--model", telling_model)
    assert again.returncode == ExitCode.FAILED
    assert "already exists" in again.stderr


def test_sidecars_are_written_and_skipped(
    imgcap_here: Run, album: Path, telling_model: Path, expected: dict[str, str]
) -> None:
    (album / "00.txt").write_text("by hand\n")
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--skip-existing", "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "Captioned 19 of 19" in done.stderr
    for path, caption in expected.items():
        wanted = "by hand" if path.endswith("00.png") else caption
        assert Path(path).with_suffix(".txt").read_text() == wanted + "\n"
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--model", telling_model)
    assert done.returncode == ExitCode.SOME_FAILED
    assert "1 failed (1 not written)" in done.stderr
    assert (album / "00.txt").read_text() == "by hand\n"
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--overwrite", "--model", telling_model)
    assert done.returncode == ExitCode.DONE
    assert (album / "00.txt").read_text() == expected[str(album / "00.png")] + "\n"


def test_captions_are_corrected_and_applied(imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    imgcap_here("caption", album, "-o", table, "--model", telling_model)
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    rows[0]["caption"], rows[1]["caption"] = "checked, by hand", ""
    with table.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "sidecars"
    done = imgcap_here("apply", table, "--sidecar-dir", out, "--write-metadata")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "19 of 19" in done.stderr
    assert (out / "00.txt").read_text() == "checked, by hand\n"
    assert not (out / "01.txt").exists()
    assert (out / "more" / "12.txt").exists()
    assert read_description(album / "00.png") == "checked, by hand"
    assert read_description(album / "01.jpg") is None
    done = imgcap_here("caption", album, "--write-metadata", "--format", "jsonl", "--model", telling_model)
    kept = [json.loads(line)["description"] for line in done.stdout.splitlines()]
    assert kept == ["kept", "written"] + ["kept"] * 18
    assert "19 keep the description that a person wrote" in done.stderr
    assert read_description(album / "00.png") == "checked, by hand"
    (album / "02.jpg").unlink()
    done = imgcap_here("apply", table, "--write-metadata")
    assert done.returncode == ExitCode.SOME_FAILED
    assert "02.jpg does not exist" in done.stderr


def test_metadata_is_written_without_touching_a_pixel(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    def pixels() -> Iterator[bytes]:
        for path in sorted(album.rglob("*.*")):
            with Image.open(path) as image:
                yield image.tobytes()

    before = list(pixels())
    output = album.parent / "rows.jsonl"
    base = ["caption", album, "--write-metadata", "-o", output, "--model", telling_model]
    assert imgcap_here(*base).returncode == ExitCode.DONE
    assert list(pixels()) == before
    for row in read_json_lines(output):
        assert read_description(Path(row["path"])) == row["caption"]
        assert Path(row["path"]).stat().st_size == row["bytes"]
    resumed = imgcap_here(*base, "--resume")
    assert "20 images are done" in resumed.stderr
    assert "nothing left to do" in resumed.stderr


def test_a_gallery_has_the_earlier_rows_too(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    page, output = tmp_path / "page.html", tmp_path / "rows.jsonl"
    base = ["caption", album, "-o", output, "--model", telling_model]
    imgcap_here(*base)
    draw("red", 3, 100).save(album / "zz.png")
    done = imgcap_here(*base, "--resume", "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    text = page.read_text()
    assert all(Path(path).name in text for path in expected)
    assert "zz.png" in text
    again = imgcap_here("caption", album, "--html", page, "--model", telling_model)
    assert again.returncode == ExitCode.FAILED
    assert "already exists" in again.stderr


def test_a_model_that_cannot_do_what_is_asked_leaves_no_file(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    for option in (["--explain"], ["--min-confidence", "0.5"]):
        done = imgcap_here("caption", album, "-o", tmp_path / "rows.jsonl", *option, "--model", telling_model)
        assert done.returncode in (ExitCode.FAILED, ExitCode.USAGE)
        assert not (tmp_path / "rows.jsonl").exists()


def test_apply_asks_where_to_write(imgcap_here: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"path": "a.jpg", "error": "x"}\n')
    assert "Choose where to write" in imgcap_here("apply", tmp_path / "rows.jsonl").stderr
    done = imgcap_here("apply", tmp_path / "rows.jsonl", "--sidecar", ".txt")
    assert done.returncode == ExitCode.USAGE
    assert "has no captions" in done.stderr
