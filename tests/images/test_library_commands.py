"""Commands on photo libraries: RAW files, thumbnails, owners, links and times."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from helpers.data import SHARED_DATA, Run
from helpers.described_images import save
from imgcap.errors import ExitCode
from imgcap.images.metadata.description import read_description

REPORTS = SHARED_DATA.parent / "reports"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    for name in ("a.jpg", "b.jpg", "@eaDir/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder, "plain.jpg").rename(folder / name)
    for name in ("a.CR2", "c.cr2", "d.jxl", "notes.txt"):
        (folder / name).write_bytes(b"raw")
    return folder


def test_the_summary_counts_what_imgcap_cannot_read(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    done = imgcap_here("caption", album, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "Captioned 2 of 2 images" in done.stderr
    assert "3 skipped, in formats that imgcap cannot read (2 .cr2, 1 .jxl)." in done.stderr


def test_metadata_keeps_times_and_leaves_hard_links_alone(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    os.link(album / "b.jpg", album / "hard.txt")
    for name in ("a.jpg", "b.jpg"):
        os.utime(album / name, (1, 1))
    before = (album / "b.jpg").read_bytes()
    caption = ["caption", album, "--model", telling_model, "-o", album.with_name("rows.jsonl"), "--write-metadata"]
    done = imgcap_here(*caption, "--keep-mtime")
    assert done.returncode == ExitCode.SOME_FAILED
    assert f"{album / 'b.jpg'} has 2 names (hard links), and rewriting it would separate them." in done.stderr
    assert (album / "b.jpg").read_bytes() == before
    assert (album / "a.jpg").stat().st_mtime == 1
    assert read_description(album / "a.jpg")
    done = imgcap_here(*caption, "--keep-mtime", "--resume")
    assert "2 images" in done.stderr  # the row holds the state of the rewritten image
    (album / "hard.txt").unlink()
    apply = ["apply", album.with_name("rows.jsonl"), "--write-metadata"]
    done = imgcap_here(*apply, "--keep-mtime")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert (album / "b.jpg").stat().st_mtime == 1
    assert imgcap_here(*apply, "--overwrite").returncode == ExitCode.DONE
    assert (album / "b.jpg").stat().st_mtime > 1


@pytest.mark.parametrize("command", ["caption", "apply"])
def test_keeping_times_needs_metadata(imgcap_here: Run, tmp_path: Path, command: str) -> None:
    done = imgcap_here(command, tmp_path, "--keep-mtime", "--sidecar", ".txt")
    assert done.returncode == ExitCode.USAGE
    assert "--keep-mtime needs --write-metadata." in done.stderr


@pytest.mark.shared_data
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may give files away")
def test_the_reported_image_keeps_owner_and_tags(imgcap_here: Run, tmp_path: Path, telling_model: Path) -> None:
    image = tmp_path / "a.jpg"
    shutil.copyfile(REPORTS / "owner" / "a.jpg", image)
    os.chown(image, 1000, 1000)
    os.setxattr(image, "user.xdg.tags", b"x")
    done = imgcap_here("caption", image, "--model", telling_model, "--write-metadata")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert (image.stat().st_uid, image.stat().st_gid) == (1000, 1000)
    assert os.getxattr(image, "user.xdg.tags") == b"x"
    os.link(image, tmp_path / "hard.jpg")
    done = imgcap_here("caption", image, "--model", telling_model, "--write-metadata")
    assert done.returncode == ExitCode.FAILED
    assert "hard links" in done.stderr
    assert image.samefile(tmp_path / "hard.jpg")


@pytest.mark.shared_data
def test_the_reported_archives(imgcap_here: Run, tmp_path: Path, telling_model: Path, encoder_file: Path) -> None:
    shutil.copytree(REPORTS / "tars", tmp_path / "report")
    tars = tmp_path / "report" / "tars"
    prepare = ["prepare", "--encoder", encoder_file, "--images"]
    done = imgcap_here(*prepare, f"{tars}/*.tar", "-o", tmp_path / "pattern")
    assert (tmp_path / "pattern" / "records.jsonl").read_text(), done.stderr
    imgcap_here(*prepare, tars, "-o", tmp_path / "folder")
    records = (tmp_path / "folder" / "records.jsonl").read_bytes()
    assert records == (tmp_path / "pattern" / "records.jsonl").read_bytes()
    done = imgcap_here("caption", tars, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert len(done.stdout.splitlines()) == records.count(b"\n")
