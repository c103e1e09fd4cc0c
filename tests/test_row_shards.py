"""Captions in shards: the same rows as in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run, write_data_set

from imgcap.errors import ExitCode


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """23 pictures, one of them damaged."""
    write_data_set(tmp_path, 23)
    (tmp_path / "images" / "007.png").write_bytes(b"damaged")
    return tmp_path / "images"


@pytest.fixture
def caption(imgcap_here: Run, pictures: Path, model_folder: Path, tmp_path: Path) -> Run:
    def run(*arguments: object):  # type: ignore[no-untyped-def]
        return imgcap_here("caption", pictures, "--model", model_folder, "--batch-size", 4, "-q", *arguments)

    return run


def test_shards_put_together_are_the_rows_of_one_run(imgcap_here: Run, caption: Run, tmp_path: Path) -> None:
    whole, rows = tmp_path / "whole.jsonl", tmp_path / "out" / "rows.jsonl"
    assert caption("-o", whole).returncode == ExitCode.SOME_FAILED
    codes = [caption("-o", rows, "--shard", f"{number}/3").returncode for number in (3, 1, 2)]
    assert codes == [ExitCode.DONE, ExitCode.DONE, ExitCode.SOME_FAILED]
    assert not rows.exists()
    done = imgcap_here("merge", rows)
    assert done.returncode == ExitCode.DONE
    assert "23 rows" in done.stderr
    assert rows.read_bytes() == whole.read_bytes()
    assert [path.name for path in rows.parent.iterdir()] == ["rows.jsonl"]


def test_a_killed_shard_goes_on_and_merge_names_what_is_missing(imgcap_here: Run, caption: Run, tmp_path: Path) -> None:
    whole, rows = tmp_path / "whole.jsonl", tmp_path / "rows.jsonl"
    caption("-o", whole)
    for number in (1, 2):
        caption("-o", rows, "--shard", f"{number}/3")
    done = imgcap_here("merge", rows)
    assert done.returncode == ExitCode.FAILED
    assert "3/3 is not complete" in done.stderr
    assert "--shard 3/3" in done.stderr

    (tmp_path / "rows.2-of-3.done").unlink()  # as if it had been killed in the middle of its third row
    shard = tmp_path / "rows.2-of-3.jsonl"
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    for number in (2, 3):
        caption("-o", rows, "--shard", f"{number}/3")
    assert imgcap_here("merge", rows).returncode == ExitCode.DONE
    assert rows.read_bytes() == whole.read_bytes()


def test_merge_refuses_shards_that_do_not_fit(imgcap_here: Run, caption: Run, pictures: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert "no shards" in imgcap_here("merge", rows).stderr
    caption("-o", rows, "--shard", "1/2")
    (pictures / "000.png").unlink()
    caption("-o", rows, "--shard", "2/2")
    done = imgcap_here("merge", rows)
    assert done.returncode == ExitCode.FAILED
    assert "different runs" in done.stderr
    caption("-o", rows, "--shard", "1/2", "--overwrite")
    (tmp_path / "rows.1-of-2.jsonl").write_text("")
    done = imgcap_here("merge", rows)
    assert "0 rows instead of" in done.stderr
    caption("-o", rows, "--shard", "1/2")
    assert imgcap_here("merge", rows).returncode == ExitCode.DONE
    assert len(rows.read_text().splitlines()) == 22
    assert "there already" in imgcap_here("merge", rows).stderr
    assert "there already" in caption("-o", rows, "--shard", "1/2").stderr

    (tmp_path / "rows.1-of-4.done").write_text("{}")
    (tmp_path / "rows.1-of-5.jsonl").write_text("")
    assert "out of 4, 5" in imgcap_here("merge", rows, "--overwrite").stderr
    (tmp_path / "rows.1-of-5.jsonl").unlink()
    (tmp_path / "rows.1-of-4.done").rename(tmp_path / "rows.1-of-1.done")
    assert "damaged" in imgcap_here("merge", rows, "--overwrite").stderr


def test_a_shard_without_a_file_of_rows_leaves_its_share_on_stdout(caption: Run) -> None:
    shares = [caption("--shard", f"{number}/2", "--format", "jsonl").stdout.splitlines() for number in (1, 2)]
    assert list(map(len, shares)) == [12, 11]
    names = [Path(json.loads(row)["path"]).stem for row in shares[1]]
    assert names == ["004", "005", "006", "007", "012", "013", "014", "015", "020", "021", "022"]


@pytest.mark.parametrize(
    "arguments",
    [["--shard", "1/2", "-o", "rows.csv"], ["--shard", "0/2"], ["--shard", "1/2", "-o", "r.jsonl", "--html", "x.html"]],
)
def test_what_does_not_go_with_shards_is_told_at_once(
    caption: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = caption(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert "shard" in done.stderr.lower()
