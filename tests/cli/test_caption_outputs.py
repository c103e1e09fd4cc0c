"""Where `imgcap caption` and `imgcap apply` write: rows, sidecars, metadata and galleries."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.command import read_json_lines
from helpers.data import SHARED_DATA, Run, draw
from imgcap.cli.console import RowStream
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
    assert imgcap_here("caption", album, "-f", kind, "-o", "-", "--model", telling_model).stdout == done.stdout
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


def test_captions_are_appended_to_sidecars(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    image, sidecar = album / "00.png", album / "00.txt"
    sidecar.write_text("by hand\n")
    for _ in range(2):
        done = imgcap_here("caption", image, "--sidecar", ".txt", "--append", "--model", telling_model)
        assert done.returncode == ExitCode.DONE, done.stderr
        assert sidecar.read_text() == f"by hand\n{done.stdout}"
    rows = album.parent / "rows.jsonl"
    rows.write_text(json.dumps({"path": str(image), "caption": "checked"}) + "\n")
    assert imgcap_here("apply", rows, "--sidecar", ".txt", "--append").returncode == ExitCode.DONE
    assert sidecar.read_text().splitlines()[-1] == "checked"


def test_sidecars_are_finished_when_the_reader_of_the_rows_has_left(
    imgcap_here: Run, album: Path, telling_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(stream: RowStream, text: str) -> int:
        stream.is_abandoned = True
        return len(text)

    monkeypatch.setattr(RowStream, "write", write)
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--model", telling_model)
    assert done.returncode == ExitCode.DONE
    assert len(list(album.rglob("*.txt"))) == 20
    done = imgcap_here("caption", album, "-f", "jsonl", "--batch-size", 2, "--model", telling_model)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == ""


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
    assert done.stderr.endswith(f"{page}: open it in a browser to look at the captions and to correct them.\n")
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


def test_captions_in_another_encoding_are_not_applied(imgcap_here: Run, tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "rows.csv").write_bytes(f"path,caption\n{tmp_path}/a.jpg,a café\n".encode("cp1252"))
    done = imgcap_here("apply", tmp_path / "rows.csv", "--sidecar", ".txt", "--write-metadata")
    assert done.returncode == ExitCode.FAILED
    assert "rows.csv, line 2 has a caption that is not UTF-8 text." in " ".join(done.stderr.split())
    assert "Save it as UTF-8" in done.stderr
    assert (tmp_path / "a.jpg").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "rows.csv"]


def test_apply_replaces_the_sidecars_that_caption_wrote(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    rows, sidecars = tmp_path / "rows.jsonl", tmp_path / "sidecars"
    for path in album.glob("*.*"):
        path.unlink()
    base = ["caption", album, "--sidecar-dir", sidecars, "-o", rows, "--model", telling_model]
    assert imgcap_here(*base).returncode == ExitCode.DONE
    before = sorted(path.relative_to(sidecars) for path in sidecars.rglob("*.txt"))
    corrected = [row | {"caption": "checked"} for row in read_json_lines(rows)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in corrected))
    assert imgcap_here("apply", rows, "--sidecar-dir", sidecars, "--overwrite").returncode == ExitCode.DONE
    assert sorted(path.relative_to(sidecars) for path in sidecars.rglob("*.txt")) == before
    assert {path.read_text() for path in sidecars.rglob("*.txt")} == {"checked\n"}


@pytest.mark.shared_data
def test_the_report_of_a_spreadsheet_in_cp1252(
    imgcap_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report"
    shutil.copytree(SHARED_DATA.parent / "reports" / "apply-cp1252", report)
    monkeypatch.chdir(report)
    done = imgcap_here("apply", "corrected.csv", "--sidecar", ".txt", "--write-metadata")
    assert done.returncode == ExitCode.FAILED
    assert "corrected.csv, line 2 has a caption that is not UTF-8 text." in done.stderr
    assert not list(report.glob("?.txt"))


def test_apply_asks_where_to_write(imgcap_here: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"path": "a.jpg", "error": "x"}\n')
    assert "Choose where to write" in imgcap_here("apply", tmp_path / "rows.jsonl").stderr
    done = imgcap_here("apply", tmp_path / "rows.jsonl", "--sidecar", ".txt")
    assert done.returncode == ExitCode.USAGE
    assert "has no captions" in done.stderr
