"""Preparations that are interrupted: killed anywhere, they resume and end with the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.preparation import Crash, FakeEncoder, Prepare, content, crash_after, crash_at_line, rows_in_a_file
from imgcap.dataset import preparation, unfinished
from imgcap.dataset.prepared import FEATURES_FOLDER, PARTIAL_FOLDER, PreparedFolder
from imgcap.dataset.records import Dataset
from imgcap.dataset.unfinished import PROGRESS_FILE, UnfinishedFeatures
from imgcap.errors import ImgcapError


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("done", [0, 2, 4, 6, 8, 10, 12, 13])
def test_killed_after_any_batch_and_resumed_gives_the_same_bytes(
    run: Prepare, whole: Path, tmp_path: Path, done: int, torn: bool
) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Crash):
        run(out, on_progress=crash_after(done))
    assert list(out.iterdir()) == [out / PARTIAL_FOLDER]
    if torn:
        with (out / PARTIAL_FOLDER / PROGRESS_FILE).open("ab") as file:
            file.write(b'{"done": 999, "rows": 99')
        files = sorted((out / PARTIAL_FOLDER / FEATURES_FOLDER).iterdir())
        if len(files) < 3:  # the next batch may have begun the next file
            files.append(out / PARTIAL_FOLDER / FEATURES_FOLDER / f"{len(files):05}.npy")
        for path in files[-2:]:
            with path.open("ab") as file:
                file.write(b"torn" * 3000)
    seen: list[int] = []
    run(out, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == done
    assert content(out) == content(whole)


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_killed_while_a_batch_is_encoded_and_resumed_gives_the_same_bytes(
    run: Prepare, whole: Path, tmp_path: Path, call: int
) -> None:
    first, second = FakeEncoder(crash_at=call), FakeEncoder()
    with pytest.raises(Crash):
        run(tmp_path / "killed", encoder=first)
    run(tmp_path / "killed", encoder=second)
    assert content(tmp_path / "killed") == content(whole)
    assert first.calls + second.calls == 7  # the batch of two broken images is none; one batch was encoded twice


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a crash as a file is opened
def test_killed_at_any_line_and_resumed_gives_the_same_bytes(
    run: Prepare, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrored: bool
) -> None:
    """Every line of what writes, from the first batch's features to the removal of `.partial`."""
    rows_in_a_file(monkeypatch, 2)
    few = replace(dataset, records=dataset.records[2:7])  # good, good; broken, broken; good
    expected = content(run(tmp_path / "whole", few, mirrored=mirrored).root)
    work = UnfinishedFeatures
    functions = (
        *(work.__init__, work.add, work._add_rows, work.move_to, work._append),
        *(preparation._finish, unfinished._flush),
    )
    codes = {function.__code__ for function in functions}
    number, crashed = 0, True
    while crashed:
        number, crashed = number + 1, False
        out = tmp_path / "killed"
        try:
            with crash_at_line(number, codes):
                run(out, few, mirrored=mirrored)
        except Crash:
            crashed = True
        if crashed:
            run(out, few, mirrored=mirrored)
        assert content(out) == expected, f"killed before line {number}"
        shutil.rmtree(out)
    assert number > 100


def test_killed_twice_and_resumed_loses_no_batch(run: Prepare, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    seen: list[int] = []
    for done in (4, 10):
        with pytest.raises(Crash):
            run(out, on_progress=crash_after(done))
        with (out / PARTIAL_FOLDER / PROGRESS_FILE).open("ab") as file:
            file.write(b'{"done": 999, "rows": 99')
    run(out, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == 10
    assert content(out) == content(whole)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_killed_from_outside_can_be_resumed(
    run: Prepare, whole: Path, tmp_path: Path, dataset: Dataset, tiny_encoder_file: Path
) -> None:
    out = tmp_path / "killed"
    arguments = [str(path) for path in (dataset.root, tiny_encoder_file, out)]
    code = "import sys; from helpers.preparation import prepare_and_die; prepare_and_die(*sys.argv[1:])"
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=Path(__file__).parents[1], timeout=900, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    seen: list[int] = []
    run(out, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == 8
    assert content(out) == content(whole)


@pytest.mark.parametrize("damage", ["first line torn", "features gone", "features too short"])
def test_progress_that_does_not_fit_the_features_starts_again(
    run: Prepare, whole: Path, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Crash):
        run(out, on_progress=crash_after(8))
    partial = out / PARTIAL_FOLDER
    if damage == "first line torn":
        (partial / PROGRESS_FILE).write_bytes(b'{"dig')
    elif damage == "features gone":
        (partial / FEATURES_FOLDER / "00000.npy").unlink()
    else:
        os.truncate(partial / FEATURES_FOLDER / "00001.npy", 1000)
    run(out)
    assert content(out) == content(whole)


def test_a_full_disk_is_one_sentence_and_finished_batches_are_kept(
    run: Prepare, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_now: int, _total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ImgcapError, match="cannot be written: no space left on device"):
        run(tmp_path / "full", on_progress=full)
    assert content(run(tmp_path / "full").root) == content(whole)


def test_opening_an_interrupted_folder_says_how_to_resume(run: Prepare, tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match="is not a prepared folder") as caught:
        PreparedFolder(tmp_path / "out")
    assert "first" in caught.value.hint
    with pytest.raises(Crash):
        run(tmp_path / "out", on_progress=crash_after(4))
    with pytest.raises(ImgcapError, match="preparation was interrupted") as caught:
        PreparedFolder(tmp_path / "out")
    assert "again to resume" in caught.value.hint
