"""Rewriting an image keeps all that it has besides its content, and a failure leaves it whole."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
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

    def vanish(path: Path, parts: list[memoryview], keep_mtime: bool) -> None:
        path.unlink()
        rewrite(path, parts, keep_mtime)

    monkeypatch.setattr(description, "_rewrite", vanish)
    with pytest.raises(ImgcapError, match=r"plain\.png does not exist\."):
        write_description(file, TEXT)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may give files away")
def test_owner_and_group_are_kept(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    os.chown(file, 1000, 1001)
    file.chmod(0o2640)
    assert write_description(file, TEXT)
    state = file.stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (1000, 1001, 0o2640)


def extended_attributes(file: Path) -> dict[str, bytes]:
    return {name: os.getxattr(file, name) for name in os.listxattr(file)}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's extended attributes")
def test_extended_attributes_and_access_control_lists_are_kept(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.png")
    try:
        os.setxattr(file, "user.xdg.tags", "Zoë, garden".encode())
    except OSError:
        pytest.skip("this file system has no extended attributes")
    if shutil.which("setfacl"):
        subprocess.run(["setfacl", "-m", "u:1234:rw,g:1235:r", file], check=True)
        subprocess.run(["setfacl", "-d", "-m", "u:99:rwx", tmp_path], check=True)  # handed down to each new file
    before, mode = extended_attributes(file), file.stat().st_mode
    assert write_description(file, TEXT)
    assert (extended_attributes(file), file.stat().st_mode) == (before, mode)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's extended attributes")
def test_a_list_that_the_folder_hands_down_is_not_added(tmp_path: Path) -> None:
    if not shutil.which("setfacl"):
        pytest.skip("needs setfacl")
    file = save(tmp_path, "plain.png")
    if subprocess.run(["setfacl", "-d", "-m", "u:99:rwx", tmp_path], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no access control lists")
    assert write_description(file, TEXT)
    assert "system.posix_acl_access" not in extended_attributes(file)


def test_a_file_with_several_hard_links_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    os.link(file, tmp_path / "other.jpg")
    message = f"{file} has 2 names (hard links), and rewriting it would separate them."
    assert str(refuses(file)) == message
    assert file.samefile(tmp_path / "other.jpg")


def test_the_modification_time_is_kept_if_asked(tmp_path: Path) -> None:
    file = save(tmp_path, "plain.jpg")
    os.utime(file, ns=(1_000_000_007, 1_234_567_890_123_456_789))
    assert write_description(file, TEXT, keep_mtime=True)
    assert file.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert write_description(file, "A cat.")
    assert file.stat().st_mtime_ns > 1_234_567_890_123_456_789
