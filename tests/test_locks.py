"""Locks of outputs and of scratch folders, which end with their process."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import BaseFileLock

from imgcap import files
from imgcap.errors import ImgcapError
from imgcap.files import only_writer, replacing


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


HOLD = """
import sys, time
from pathlib import Path
from imgcap.files import only_writer, replacing
with {what}(Path(sys.argv[1])) as partial:
    {then}
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(what: str, path: Path, then: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of `what`."""
    code = HOLD.format(what=what, then=then)
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_files_of_killed_processes_are_removed_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    half = "partial.write_text('half'); (partial.parent / '.tmp0123').touch()"
    with held("replacing", tmp_path / "live.txt", half), held("replacing", tmp_path / "dead.txt", half) as dead:
        assert len(hidden(tmp_path)) == 2 * 3  # folder, lock and what safetensors leaves
        dead.kill()
        dead.wait()
        files.remove_abandoned.cache_clear()
        with replacing(tmp_path / "other.txt") as partial:
            partial.write_text("whole")
        [left] = [path for path in hidden(tmp_path) if path.is_dir()]
        assert (left / "partial").read_text() == "half"
    assert (tmp_path / "other.txt").read_text() == "whole"


def test_a_scratch_folder_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = files._lock
    removed: list[Path] = []

    def late(lock_file: Path) -> BaseFileLock | None:
        if not removed:
            removed.append(lock_file.parent)
            shutil.rmtree(lock_file.parent)
        return lock(lock_file)

    monkeypatch.setattr(files, "_lock", late)
    with replacing(tmp_path / "file.txt") as partial:
        assert removed
        partial.write_text("whole")
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_only_one_process_writes_an_output_and_the_lock_ends_with_it(tmp_path: Path) -> None:
    for output in (tmp_path / "rows.jsonl", tmp_path):
        with held("only_writer", output) as other:
            with pytest.raises(ImgcapError, match="is being written by another imgcap") as caught, only_writer(output):
                raise AssertionError
            assert "Wait" in caught.value.hint
            other.kill()
            other.wait()
            assert len(hidden(tmp_path)) == 1
            with only_writer(output):
                pass
        assert hidden(tmp_path) == []


def test_a_lock_that_its_owner_has_just_removed_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        (tmp_path / ".lock").unlink()  # by the process that had it
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ImgcapError, match="another imgcap"), only_writer(tmp_path):
        raise AssertionError


def test_any_number_of_processes_may_write_to_a_device() -> None:
    with only_writer(Path(os.devnull)), only_writer(Path(os.devnull)):
        pass
