"""Captions in shards: the same rows as in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.data import Run, write_data_set
from imgcap.captioning.rows import Origin
from imgcap.captioning.run import ImageListing
from imgcap.captioning.shards import FinishedShard, RowShard
from imgcap.errors import ExitCode
from imgcap.sharding import Shard


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """23 images, one of them damaged."""
    write_data_set(tmp_path, 23)
    (tmp_path / "images" / "007.png").write_bytes(b"damaged")
    return tmp_path / "images"


@pytest.fixture
def caption(imgcap_here: Run, images: Path, model_folder: Path, tmp_path: Path) -> Run:
    def run(*arguments: object):  # type: ignore[no-untyped-def]
        return imgcap_here("caption", images, "--model", model_folder, "--batch-size", 4, "-q", *arguments)

    return run


def test_merged_shards_are_the_rows_of_one_run(imgcap_here: Run, caption: Run, tmp_path: Path) -> None:
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


def test_a_killed_shard_is_continued_and_merge_names_a_missing(imgcap_here: Run, caption: Run, tmp_path: Path) -> None:
    whole, rows = tmp_path / "whole.jsonl", tmp_path / "rows.jsonl"
    caption("-o", whole)
    for number in (1, 2):
        caption("-o", rows, "--shard", f"{number}/3")
    done = imgcap_here("merge", rows)
    assert done.returncode == ExitCode.FAILED
    assert "Shard 3/3 of" in done.stderr
    assert "--shard 3/3" in done.stderr

    tear(tmp_path / "rows.2-of-3.jsonl")
    for number in (2, 3):
        caption("-o", rows, "--shard", f"{number}/3")
    assert imgcap_here("merge", rows).returncode == ExitCode.DONE
    assert rows.read_bytes() == whole.read_bytes()


def test_merge_refuses_shards_that_do_not_fit(imgcap_here: Run, caption: Run, images: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert "has no shards" in imgcap_here("merge", rows).stderr
    caption("-o", rows, "--shard", "1/2")
    (images / "000.png").unlink()
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
    assert "already exists" in imgcap_here("merge", rows).stderr
    assert "already exists" in caption("-o", rows, "--shard", "1/2").stderr


@pytest.mark.parametrize(
    "state", ["[]", "{}", '{"batch_size": 0, "finished": null}', '{"batch_size": 4, "finished": {"images": 9}}']
)
def test_a_damaged_state_is_one_sentence(imgcap_here: Run, caption: Run, tmp_path: Path, state: str) -> None:
    (tmp_path / "rows.2-of-4.shard").write_text(state)
    for done in (imgcap_here("merge", tmp_path / "rows.jsonl"), caption("-o", tmp_path / "rows.jsonl")):
        assert done.returncode == ExitCode.FAILED
        assert "rows.2-of-4.shard is damaged" in done.stderr


def tear(shard: Path) -> None:
    """Leave of a complete shard what a kill in the middle of its third row would have left."""
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    state = json.loads(shard.with_suffix(".shard").read_text())
    shard.with_suffix(".shard").write_text(json.dumps(state | {"finished": None}))


@pytest.fixture
def whole(caption: Run, tmp_path: Path) -> bytes:
    """The rows of one run."""
    caption("-o", tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


def write_shard(rows: Path, whole: bytes, number: int, images: Path) -> RowShard:
    """Shard `number` of 3 of the run that has made `whole`, complete, without running it."""
    lines, shard = whole.splitlines(keepends=True), RowShard(rows, Shard(number - 1, 3))
    own, listing = list(shard.shard.items(lines, 4)), ImageListing(sorted(images.iterdir()))
    origin = Origin(**{name: json.loads(lines[0])[name] for name in ("model", "model_hash", "settings")})
    shard.start(4)
    shard.file.write_bytes(b"".join(own))
    shard.finish(4, FinishedShard(len(list(listing)), listing.names, len(own), origin))
    return shard


@pytest.fixture
def unfinished(whole: bytes, images: Path, tmp_path: Path) -> Path:
    """The file of a run in three shards, of which one is complete, one incomplete, and one not started."""
    rows = tmp_path / "out" / "rows.jsonl"
    for number in (3, 2):
        write_shard(rows, whole, number, images)
    tear(rows.with_name("rows.2-of-3.jsonl"))
    return rows


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("more", [["--batch-size", 3], ["--resume", "--retry-failed"]])
def test_a_run_without_shards_finishes_and_merges_those_that_are_there(
    caption: Run, whole: bytes, unfinished: Path, more: list[object]
) -> None:
    done = caption("-o", unfinished, *more)
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert unfinished.read_bytes() == whole
    assert names(unfinished.parent) == {"rows.jsonl"}


def test_shards_that_are_complete_are_only_merged(
    imgcap_here: Run, images: Path, model_folder: Path, whole: bytes, unfinished: Path
) -> None:
    for number in (1, 2):
        write_shard(unfinished, whole, number, images)
    done = imgcap_here("caption", images, "--model", model_folder, "-o", unfinished)
    assert done.returncode == ExitCode.DONE
    assert "Continuing the 3 shards" in done.stderr
    assert "images are done" not in done.stderr
    assert unfinished.read_bytes() == whole


def test_shards_of_other_images_are_not_taken_for_these(
    imgcap_here: Run, images: Path, model_folder: Path, whole: bytes, unfinished: Path
) -> None:
    for number in (1, 2):
        write_shard(unfinished, whole, number, images)
    images.rename(images.with_name("others"))
    done = imgcap_here("caption", images.with_name("others"), "--model", model_folder, "-o", unfinished)
    assert done.returncode == ExitCode.FAILED
    assert "rows instead of" in done.stderr
    assert not unfinished.exists()


def test_other_settings_than_those_of_the_shards_are_reported_at_once(caption: Run, unfinished: Path) -> None:
    done = caption("-o", unfinished, "--beam-size", 1)
    assert done.returncode == ExitCode.USAGE
    assert "rows.2-of-3.jsonl, line 1 was written with --beam-size 2, not with --beam-size 1." in done.stderr
    assert not unfinished.with_name("rows.1-of-3.jsonl").exists()


def test_a_shard_without_a_file_of_rows_is_printed(caption: Run) -> None:
    shards = [caption("--shard", f"{number}/2", "--format", "jsonl").stdout.splitlines() for number in (1, 2)]
    assert list(map(len, shards)) == [12, 11]
    stems = [Path(json.loads(row)["path"]).stem for row in shards[1]]
    assert stems == ["004", "005", "006", "007", "012", "013", "014", "015", "020", "021", "022"]


def test_half_of_a_run_in_four_shards_is_two_shards(
    imgcap_here: Run, caption: Run, images: Path, model_folder: Path, whole: bytes, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    caption("-o", rows, "--shard", "1/4")  # in batches of 4, to which the others keep
    command = ["caption", images, "--model", model_folder, "-o", rows, "--shard"]
    assert "rows.1-of-4.jsonl, " in imgcap_here(*command, "1/2").stderr
    assert imgcap_here(*command, "2/2", "--quiet").stderr.count("\n") == 1  # the damaged image
    assert imgcap_here("merge", rows).returncode == ExitCode.DONE
    assert rows.read_bytes() == whole


def test_shards_that_cannot_be_continued_are_reported_at_the_beginning(
    imgcap_here: Run, caption: Run, unfinished: Path, tmp_path: Path
) -> None:
    before = names(unfinished.parent)
    for more, sentence in (
        (["--shard", "1/2"], "is divided into 3 shards, not 2."),
        (["--shard", "1/2", "--overwrite"], "is divided into 3 shards, not 2."),
        (["--html", tmp_path / "page.html"], "--html cannot be combined with shards."),
        (["--sidecar", ".txt", "--skip-existing"], "--skip-existing cannot be combined with shards."),
        (["--format", "csv"], "Shards need -o FILE.jsonl."),
    ):
        done = caption("-o", unfinished, *more)
        assert done.returncode != ExitCode.DONE
        assert sentence in done.stderr
    unfinished.write_text("")
    for more in ([], ["--resume"]):
        assert "already exists, and so do shards of it." in caption("-o", unfinished, *more).stderr
    unfinished.unlink()
    unfinished.with_name("rows.1-of-5.jsonl").write_text("")
    for arguments in (["caption", tmp_path, "-o", unfinished], ["merge", unfinished]):
        assert "has shards of several runs: of 3, 5." in imgcap_here(*arguments).stderr
    assert names(unfinished.parent) == before | {"rows.1-of-5.jsonl"}


def test_overwrite_starts_again_and_removes_only_shards(caption: Run, whole: bytes, unfinished: Path) -> None:
    others = {"rows.4-of-3.jsonl", "rows.0-of-3.jsonl", "rows.01-of-3.jsonl", "rows.1-of-1.jsonl", "rows.1-of-3.csv"}
    others |= {"rows.x.1-of-3.jsonl", "other.1-of-3.shard"}
    for name in {*others, "rows.5-of-7.jsonl", "rows.5-of-7.shard"}:
        unfinished.with_name(name).write_text("")
    assert caption("-o", unfinished, "--overwrite").returncode == ExitCode.SOME_FAILED
    assert unfinished.read_bytes() == whole
    assert names(unfinished.parent) == others | {"rows.jsonl"}
