"""Resuming a file of rows: complete rows stay, incomplete and stale ones are removed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helpers.refusal import refusal
from imgcap.captioning.resume import ResumeOptions, resume
from imgcap.captioning.rows import FileState, Origin, Row, with_state
from imgcap.errors import ImgcapError, UsageError

ORIGIN = Origin("walls", "0123", "beam_size=3")
KEEP = ResumeOptions()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        file.write_bytes(b"x" * (i + 1))
    return files


def row(path: Path, by_content: bool = False, **more: object) -> Row:
    body: Row = {"path": str(path), **({} if "error" in more else {"caption": "a wall"}), **more, **asdict(ORIGIN)}
    return with_state(body, FileState.of(str(path), by_content))


def write(file: Path, rows: list[Row], torn: bytes = b"") -> bytes:
    data = b"".join(json.dumps(r).encode() + b"\n" for r in rows)
    file.write_bytes(data + torn)
    return data


@pytest.mark.parametrize("torn", [b"", b'{"path": "3.p', b"\0\0\0", b'{"path": "3.png"}'])
def test_an_incomplete_last_line_is_cut_off(tmp_path: Path, images: list[Path], torn: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    data = write(file, [row(p) for p in images[:3]], torn)
    done = resume(file, ORIGIN, KEEP)
    assert [str(p) in done for p in images] == [True, True, True, False]
    assert (done.kept, done.dropped) == (3, 0)
    assert file.read_bytes() == data


def test_an_empty_file_has_nothing_done(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.touch()
    assert resume(file, ORIGIN, KEEP).kept == 0


def test_an_image_that_has_changed_is_captioned_again(tmp_path: Path, images: list[Path]) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [row(p) for p in images]
    write(file, rows, b"torn")
    images[1].write_bytes(b"longer than before")
    os.utime(images[2], ns=(1, 1))
    done = resume(file, ORIGIN, KEEP)
    assert [str(p) in done for p in images] == [True, False, False, True]
    assert (done.kept, done.dropped) == (2, 2)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [rows[0], rows[3]]


def test_by_content_a_touched_image_is_done_and_another_of_equal_size_is_not(
    tmp_path: Path, images: list[Path]
) -> None:
    file = tmp_path / "rows.jsonl"
    write(file, [row(p, by_content=True) for p in images])
    os.utime(images[1], ns=(1, 1))
    stat = images[2].stat()
    images[2].write_bytes(b"yyy")
    os.utime(images[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = resume(file, ORIGIN, ResumeOptions(by_content=True))
    assert [str(p) in done for p in images] == [True, True, False, True]


def test_the_caption_of_a_removed_image_is_kept(tmp_path: Path, images: list[Path]) -> None:
    file = tmp_path / "rows.jsonl"
    data = write(file, [row(p) for p in images])
    images[0].unlink()
    assert str(images[0]) in resume(file, ORIGIN, KEEP)
    assert file.read_bytes() == data


def test_a_failure_is_kept_until_the_file_changes_or_it_is_tried_again(tmp_path: Path, images: list[Path]) -> None:
    file = tmp_path / "rows.jsonl"
    missing = tmp_path / "missing.png"
    rows = [row(images[0], error="damaged"), row(missing, error="missing"), row(images[1])]
    write(file, rows)
    assert resume(file, ORIGIN, KEEP).kept == 3
    done = resume(file, ORIGIN, ResumeOptions(retry_failed=True))
    assert [str(p) in done for p in (images[0], missing, images[1])] == [False, False, True]
    write(file, rows)
    missing.write_bytes(b"there now")
    assert str(missing) not in resume(file, ORIGIN, KEEP)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"model": "barns"}, "by the model 'walls', not by 'barns'"),
        ({"model_hash": "4567"}, "by another model named 'walls', with the hash '0123', not '4567'"),
        ({"settings": "beam_size=5"}, "with --beam-size 3, not with --beam-size 5"),
        ({"settings": 'beam_size=3 ban=["man", "dog"] sample=true'}, "without --ban man --ban dog --sample"),
        ({"settings": 'beam_size=3 prefix="it\'s a = b "'}, "without --prefix 'it'\"'\"'s a = b '"),
        ({"settings": ""}, "with --beam-size 3, which this command lacks"),
        ({"settings": "beam_size=3 "}, "with the settings 'beam_size=3', not 'beam_size=3 '"),
        ({"settings": "edited"}, "with the settings 'beam_size=3', not 'edited'"),
        ({"settings": "x=" + "[" * 100_000}, "with the settings 'beam_size=3', not 'x=[[["),
    ],
)
def test_rows_of_another_origin_are_not_mixed(
    tmp_path: Path, images: list[Path], changes: dict[str, str], difference: str
) -> None:
    file = tmp_path / "rows.jsonl"
    data = write(file, [row(images[0])], b"torn")
    error = refusal(resume, file, replace(ORIGIN, **changes), KEEP)
    assert isinstance(error, UsageError)
    assert str(error).startswith(f"{file}, line 1 was written {difference}")
    assert error.hint == "Use the model and the options of the earlier run, or another file."
    assert file.read_bytes() == data + b"torn"


@pytest.mark.parametrize("line", [b"not JSON", b"[]", b'{"caption": "x"}', b"[" * 100_000, b"\xff"])
def test_a_broken_line_is_named_and_nothing_is_changed(tmp_path: Path, images: list[Path], line: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    write(file, [row(images[0])])
    whole = file.read_bytes() + line + b"\n"
    file.write_bytes(whole)
    with pytest.raises(ImgcapError, match="line 2 is not a row"):
        resume(file, ORIGIN, KEEP)
    assert file.read_bytes() == whole


def test_a_name_that_is_not_utf8_is_recognised(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    odd.write_bytes(b"x")
    file = tmp_path / "rows.jsonl"
    write(file, [row(odd)])
    assert str(odd) in resume(file, ORIGIN, KEEP)
