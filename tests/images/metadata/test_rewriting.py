"""Rewriting an image keeps its permissions and links, and a failure leaves it whole."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from helpers.described_images import TEXT, refuses, save
from imgcap.errors import ImgcapError
from imgcap.images.metadata import description
from imgcap.images.metadata.description import read_description, write_description


@pytest.mark.skipif(sys.platform == "win32", reason="needs permission bits")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o755])
def test_the_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    file = save(tmp_path, "plain.png")
    file.chmod(mode)
    write_description(file, TEXT)
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_link_stays_a_link_and_its_target_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file = save(tmp_path / "elsewhere", "plain.png")
    link = tmp_path / "link.png"
    link.symlink_to(Path("elsewhere", "plain.png"))
    assert write_description(link, TEXT)
    assert link.is_symlink()
    assert read_description(file) == TEXT


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_link_to_itself_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    assert "cannot be read: " in str(refuses(tmp_path / "a.png"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write to read-only files")
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_read_only_file_or_folder_is_one_sentence(tmp_path: Path, read_only: str) -> None:
    file = save(tmp_path, "plain.png")
    locked, mode = (file, 0o444) if read_only == "file" else (tmp_path, 0o555)
    locked.chmod(mode)
    try:
        assert str(refuses(file)) == f"{file} cannot be rewritten: permission denied."
    finally:
        locked.chmod(0o755)


def test_a_disk_that_fails_leaves_the_image_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path, "plain.png")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert str(refuses(file)) == f"{file} cannot be rewritten: no space left on device; free some space and run again."


def test_a_file_that_vanishes_is_one_sentence_and_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(tmp_path, "plain.png")
    rewrite = description._rewrite

    def vanish(path: Path, parts: list[memoryview]) -> None:
        path.unlink()
        rewrite(path, parts)

    monkeypatch.setattr(description, "_rewrite", vanish)
    with pytest.raises(ImgcapError, match=r"plain\.png does not exist\."):
        write_description(file, TEXT)
    assert not list(tmp_path.iterdir())
