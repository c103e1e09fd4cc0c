"""Files: written whole or not at all, and read with an error that names them."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgcap.errors import ImgcapError
from imgcap.files import (
    make_folder,
    read_json,
    read_json_lines,
    read_text,
    reason,
    replacing,
    sha256,
    write_json,
    write_json_lines,
    write_text,
)


def broken_rows() -> Iterator[object]:
    yield {"row": 1}
    raise KeyboardInterrupt


def test_replacing_shows_the_file_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with replacing(target) as partial:
        assert partial.parent.parent == tmp_path  # on the same disk, so that a rename is all
        partial.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("written", [b"", b"half"])
def test_replacing_leaves_no_trace_of_a_writer_that_fails(
    tmp_path: Path, old: bytes | None, error: type[BaseException], written: bytes
) -> None:
    target = tmp_path / "file.bin"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(error), replacing(target) as partial:
        if written:
            partial.write_bytes(written)
        raise error
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if old is None else [old])


def test_replacing_keeps_the_old_file_if_the_disk_fails_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_replacing_a_file_twice_at_once_keeps_the_contents_apart(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with replacing(target) as first, replacing(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_json_lines_that_fail_halfway_keep_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    write_json_lines(target, [{"row": 0}])
    with pytest.raises(KeyboardInterrupt):
        write_json_lines(target, broken_rows())
    assert list(read_json_lines(target)) == [(1, {"row": 0})]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "value",
    [{}, [1, 2.5, None, True], {"caption": "Ein Café am Fluss 🌊"}, {"name": "broken \udcff name", "half": "\ud83d"}],
)
def test_written_json_is_read_back(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "value.json", value)
    write_json_lines(tmp_path / "values.jsonl", [value, value])
    assert read_json(tmp_path / "value.json") == value
    assert list(read_json_lines(tmp_path / "values.jsonl")) == [(1, value), (2, value)]


def test_json_is_written_as_utf_8_with_plain_line_ends(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"word": "café"})
    assert (tmp_path / "value.json").read_bytes() == '{\n  "word": "café"\n}\n'.encode()


@pytest.mark.parametrize("content", [b"caf\xc3\xa9\n", b"\xef\xbb\xbfcaf\xc3\xa9\n", b"caf\xc3\xa9\r\n"])
def test_text_is_read_with_or_without_a_byte_order_mark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    assert read_text(tmp_path / "text.txt") == "café\n"


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "value.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "value.json") == {"a": 1}
    assert list(read_json_lines(tmp_path / "value.json")) == [(1, {"a": 1})]


def test_blank_lines_count_but_are_not_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('\n{"a": 1}\n   \n"b\u2028c"\r\n')
    assert list(read_json_lines(tmp_path / "rows.jsonl")) == [(2, {"a": 1}), (4, "b\u2028c")]


def read_all_lines(path: Path) -> None:
    list(read_json_lines(path))


@pytest.mark.parametrize(
    ("read", "content", "sentence"),
    [
        (read_text, "caf\xe9".encode("latin-1"), "FILE, line 1 is not UTF-8 text."),
        (read_text, "a".encode("utf-16"), "FILE, line 1 is not UTF-8 text."),
        (read_json, b"", "FILE is not valid JSON at line 1."),
        (read_json, b'{"a": 1,\n "b": ', "FILE is not valid JSON at line 2."),
        (read_json, b"[" * 100_000, "FILE is not valid JSON."),
        (read_json, b"1" * 5000, "FILE is not valid JSON."),
        (read_text, b"\xef\xbb\xbfone\r\ntwo\r\ncaf\xe9\r\n", "FILE, line 3 is not UTF-8 text."),
        (read_text, "one\ntwo\n".encode("utf-16-le"), "FILE, line 1 holds a NUL character."),
        (read_text, b"one\ntwo\0\nthree\0\n", "FILE, line 2 holds a NUL character."),
        (read_json, b'[{"b": 1, "a": 1, "a": 1}]', "FILE has the key 'a' twice in one JSON object."),
        (
            read_all_lines,
            b'1\n{"b": 1, "a": {"c": 1, "c": 2}}',
            "FILE, line 2 has the key 'c' twice in one JSON object.",
        ),
        (read_json, b'{"a": "\xff"}', "FILE, line 1 is not UTF-8 text."),
        (read_all_lines, b'{"a": 1}\n{"a": \n', "FILE, line 2 is not valid JSON."),
        (read_all_lines, b"1\n2\n" + b"[" * 100_000, "FILE, line 3 is not valid JSON."),
        (read_all_lines, b"1" * 5000, "FILE, line 1 is not valid JSON."),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, read: Callable[[Path], object], content: bytes, sentence: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ImgcapError) as caught:
        read(file)
    assert str(caught.value) == sentence.replace("FILE", str(file))


@pytest.mark.parametrize("read", [read_text, read_json, read_all_lines])
def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(ImgcapError) as caught:
        read(tmp_path / "missing")
    assert str(caught.value) == f"{tmp_path / 'missing'} cannot be read: no such file or directory."
    with pytest.raises(ImgcapError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} cannot be read: ")


@pytest.mark.parametrize("newer_python", [True, False])
@pytest.mark.parametrize("size", [0, 10, (1 << 20) + 1])
def test_sha256_is_that_of_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, newer_python: bool
) -> None:
    if not newer_python:
        monkeypatch.delattr(hashlib, "file_digest", raising=False)
    content = b"x" * size
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_make_folder_creates_parents_and_accepts_existing_folders(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_make_folder_refuses_one_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # the tests may run as root
    with pytest.raises(ImgcapError) as caught:
        make_folder(tmp_path / "a")
    assert str(caught.value) == f"The folder {tmp_path / 'a'} cannot be written."


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_make_folder_in_place_of_a_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImgcapError) as caught:
        make_folder(tmp_path / name)
    assert str(caught.value).startswith(f"The folder {tmp_path / name} cannot be created: ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EACCES, "Permission denied", "x"), "permission denied"),
        (OSError("Image file is truncated"), "image file is truncated"),
        (OSError(), "oserror"),
        (PermissionError(), "permissionerror"),
    ],
)
def test_reason_always_has_words(error: OSError, words: str) -> None:
    assert reason(error) == words


def test_the_umask_of_the_user_determines_who_can_read_a_file(tmp_path: Path) -> None:
    def write_for_the_owner_alone(partial: Path) -> None:
        partial.unlink()
        partial.touch(0o600)

    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file") as partial:
        write_for_the_owner_alone(partial)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(sys.platform == "win32", reason="needs permission bits and symbolic links")
def test_a_file_that_is_replaced_keeps_its_permissions_and_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "target.txt").write_text("before")
    (tmp_path / "target.txt").chmod(0o440)
    (tmp_path / "link.txt").symlink_to("target.txt")
    write_text(tmp_path / "link.txt", "after")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "after"
    assert (tmp_path / "target.txt").stat().st_mode & 0o777 == 0o440
    (tmp_path / "new.txt").symlink_to("nowhere.txt")
    write_text(tmp_path / "new.txt", "new")
    assert (tmp_path / "nowhere.txt").read_text() == "new"
