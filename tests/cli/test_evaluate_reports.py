"""The inputs of public reports on scoring, as their users would call them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.data import SHARED_DATA
from imgcap.errors import ExitCode

REPORTS = SHARED_DATA.parent / "reports"

pytestmark = pytest.mark.shared_data


def run(folder: Path, *arguments: str, sink: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m imgcap eval {' '.join(arguments)} {sink}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def copy(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(REPORTS / name, folder / name))


@pytest.mark.parametrize("references", ["data/test/metadata.csv", "data/test", "flickr_annotations.csv --some"])
def test_captions_in_numbered_columns_and_lists_are_references(tmp_path: Path, references: str) -> None:
    done = run(copy("hf-caption-n", tmp_path), "--hypotheses h.csv --json --references", references)
    assert done.returncode == ExitCode.DONE, done.stderr
    scores = json.loads(done.stdout)
    assert (scores["images"], scores["references"], scores["bleu"][3]) == (1, [2, 2], 1.0)
    assert "CIDEr-D of a single image is always 0" in done.stderr


@pytest.mark.parametrize("sink", ["> scores.txt", "| true", ">&-"])
def test_a_page_is_written_whatever_happens_to_the_terminal(tmp_path: Path, sink: str) -> None:
    folder = copy("stdout-cp1252", tmp_path)
    done = run(folder, "--hypotheses h.csv --references refs.csv --html p.html", sink=sink, PYTHONIOENCODING="cp1252")
    assert (folder / "p.html").is_file(), done.stderr
    assert "Traceback" not in done.stderr
    if sink == "> scores.txt":
        assert r"\u2192 runs in \u65e5\u672c" in (folder / "scores.txt").read_text(encoding="cp1252")


def test_chinese_captions_are_scored_with_a_remark(tmp_path: Path) -> None:
    done = run(copy("chinese", tmp_path), "--hypotheses h.csv --references r.csv")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "4 of 4 captions have no spaces between words (Chinese): the tokeniser takes each run" in done.stdout


def test_a_caption_of_another_folder_is_refused(tmp_path: Path) -> None:
    folder = copy("wrong-folder", tmp_path)
    (folder / "refs.csv").write_text("image,caption\ndogs/001.jpg,a dog runs\n")
    done = run(folder, "--hypotheses h.csv --references refs.csv")
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == (
        "imgcap: h.csv and refs.csv have no image id in common.\n"
        "  'cats/001.jpg' and 'dogs/001.jpg' are in different folders.\n"
    )
