"""`imgcap train` as its users call it: what it prints and leaves at its end."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from helpers.data import Run
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode
from imgcap.model.store import verify

TINY = ["--epochs", 1, "--min-count", 1, "--batch-size", 8, "--device", "cpu"]


def test_it_ends_with_the_verdict_and_a_page(
    imgcap: Run, prepared: PreparedFolder, telling_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    done = imgcap("train", prepared.root, "-o", out, "--start-from", telling_model, *TINY)
    assert done.returncode == ExitCode.DONE, done.stderr
    page = (out / "report.html").read_text(encoding="utf-8")
    verdict, last = done.stderr.splitlines()[-2:]
    images = len(prepared.rows("val"))
    assert last == f"{out}/report.html: {images} val images with their captions before and after the training."
    assert re.match(r"(No verdict: |Too few images: |No difference: )?\S+ (is|and) ", verdict)
    assert verdict in page
    assert "mine before and after its training" in page
    compared = imgcap("eval", prepared.root, "--model", out, "--compare-model", telling_model, "--split", "val")
    assert verdict in compared.stdout


def test_a_finished_training_is_resumed_by_saying_so_and_its_page_is_made_up_for(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    command = ["train", prepared.root, "-o", out, *TINY]
    assert imgcap_here(*command, "--no-report").returncode == ExitCode.DONE
    sentence = (
        f"{out}: this training is finished, so there is nothing to do. To start over, remove the folder or give "
        "another one."
    )
    done = imgcap_here(*command, "--resume")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stderr.splitlines()[0] == f"{out}: this training is finished, except for its report."
    page = (out / "report.html").read_bytes()
    done = imgcap_here(*command, "--resume")
    assert (done.returncode, done.stderr) == (ExitCode.DONE, f"{sentence}\n")
    assert (out / "report.html").read_bytes() == page
    assert imgcap_here(*command).returncode == ExitCode.FAILED


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--start-from", "nowhere"], "There is no model 'nowhere'.\n  Give a model folder, or one of: default."),
        (["--min-count", 1000], "No word occurs 1000 times in the training captions.\n  Lower --min-count."),
    ],
)
def test_a_training_that_is_refused_says_only_why(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path, options: list[object], sentence: str
) -> None:
    done = imgcap_here("train", prepared.root, "-o", tmp_path / "mine", *TINY, *options)
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, f"imgcap: {sentence}\n")
    assert not (tmp_path / "mine").exists()


def test_without_a_folder_for_temporary_files_it_says_what_to_set(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nothing")])
    done = imgcap_here("train", prepared.root, "-o", tmp_path / "mine", *TINY)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == (
        "imgcap: There is no folder for temporary files.\n  Set TMPDIR to a folder that can be written.\n"
    )
    assert not (tmp_path / "mine").exists()


def test_it_can_end_without_a_page(imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path) -> None:
    done = imgcap_here("train", prepared.root, "-o", tmp_path / "mine", "--no-report", *TINY)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert not (tmp_path / "mine" / "report.html").exists()
    assert "report" not in done.stderr


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, "The page {page} cannot be written: is a directory."),
        (MemoryError("too large"), "MemoryError: too large"),
    ],
)
def test_a_page_that_cannot_be_written_does_not_fail_the_training(
    imgcap_here: Run,
    prepared: PreparedFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    sentence: str,
) -> None:
    out = tmp_path / "mine"
    page = out / "report.html"
    if error:

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("imgcap.training.report.evaluate", fail)
    else:
        page.mkdir(parents=True)
    done = imgcap_here("train", prepared.root, "-o", out, *TINY)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"The model is complete, but {page} could not be written: {sentence.format(page=page)}"
    )
    verify(out)


def test_ctrl_c_while_the_page_is_written_leaves_a_complete_model(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imgcap.training.report.evaluate", interrupt)
    done = imgcap_here("train", prepared.root, "-o", tmp_path / "mine", *TINY)
    assert done.returncode == ExitCode.INTERRUPTED
    assert done.stderr.splitlines()[-1] == "Interrupted. The model is finished; --resume writes the missing report."
    verify(tmp_path / "mine")
    assert not (tmp_path / "mine" / "report.html").exists()


def test_ctrl_c_at_the_end_of_the_training_can_be_resumed(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    command = ["train", prepared.root, "-o", tmp_path / "mine", *TINY]
    with monkeypatch.context() as patched:
        patched.setattr("imgcap.training.trainer.finish", interrupt)
        done = imgcap_here(*command)
    assert done.returncode == ExitCode.INTERRUPTED
    assert done.stderr.splitlines()[-1] == "Interrupted. Run the same command with --resume."
    assert not (tmp_path / "mine" / "report.html").exists()
    done = imgcap_here(*command, "--resume")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert re.match(r".*mine: the training continues after epoch \d+\.\n", done.stderr)
    assert (tmp_path / "mine" / "report.html").exists()
