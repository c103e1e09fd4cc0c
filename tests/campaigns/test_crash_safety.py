"""Every command that writes survives power cuts, kills, full disks, other processes, and wrong clocks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.data import Run
from helpers.forked import ForkedProcess, imgcap
from imgcap import files
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode
from imgcap.files import only_writer, reason
from imgcap.model.store import MANIFEST_FILE, verify

SIZES = ["--epochs", 2, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1, "--batch-size", 8]


class Desk:
    """A data set with a model, and the commands that write, into the folder `out`."""

    def __init__(self, folder: Path, prepared: PreparedFolder, encoder_file: Path, model: Path) -> None:
        source = prepared.image_root.parent
        self.images, self.out = folder / "images", folder / "out"
        self.images.mkdir()
        for name in ("000.png", "001.png", "002.png"):
            shutil.copy(source / "images" / name, self.images)
        self.out.mkdir()
        out, caption = self.out, ["caption", self.images, "--model", model]
        data = ["--images", source / "images", "--captions", source / "captions.csv", "--encoder", encoder_file]
        evaluate = ["eval", prepared.root, "--model", model, "--split", "val"]
        self.commands: dict[str, list[object]] = {
            "prepare": ["prepare", *data, "-o", out / "prepared"],
            "train": ["train", prepared.root, "-o", out / "trained", *SIZES],
            "rows": [*caption, "-o", out / "rows.jsonl"],
            "csv": [*caption, "-o", out / "rows.csv"],
            "json": [*caption, "-o", out / "rows.json"],
            "page": [*caption, "--html", out / "page.html"],
            "sidecars": [*caption, "--sidecar", ".txt", "--sidecar-dir", out],
            "metadata": [*caption, "--write-metadata"],
            "import": ["model", "import", model, "--name", "mine"],
            "first use": ["caption", self.images / "000.png"],
            "scores": [*evaluate, "--html", out / "page.html", "--per-image", out / "scores.jsonl"],
            "split": [*evaluate, "--save-captions", out / "captions.jsonl"],
        }


@pytest.fixture
def desk(
    tmp_path: Path,
    prepared: PreparedFolder,
    encoder_file: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: model_folder)
    files.remove_abandoned.cache_clear()
    return Desk(tmp_path, prepared, encoder_file, model_folder)


COMMANDS = [
    *("prepare", "train", "rows", "csv", "json", "page", "sidecars", "metadata", "import", "first use"),
    *("scores", "split"),
]
every_command = pytest.mark.parametrize("name", COMMANDS)


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


# --- power cuts

Witness = Callable[[str, tuple[Any, ...]], None]
_witnesses: list[Witness] = []


@contextmanager
def watching(witness: Witness) -> Iterator[None]:
    """Call `witness` for the files that Python opens and renames."""
    if not hasattr(watching, "hooked"):  # a hook is for ever
        sys.addaudithook(lambda event, arguments: [each(event, arguments) for each in _witnesses] and None)
        watching.hooked = True  # type: ignore[attr-defined]
    _witnesses.append(witness)
    try:
        yield
    finally:
        _witnesses.clear()


@every_command
def test_files_are_flushed_before_they_are_renamed_and_folders_afterwards(
    imgcap_here: Run, desk: Desk, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flushed: set[int] = set()
    unflushed_folders: set[Path] = set()
    written_in_place: set[Path] = set()
    surprises: list[Path] = []
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        flushed.add(number)
        unflushed_folders.difference_update(
            {f for f in unflushed_folders if not f.exists() or f.stat().st_ino == number}
        )
        fsync(descriptor)

    def witness(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal written_in_place
        if event not in ("open", "os.rename") or isinstance(arguments[0], int):
            return
        path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 (`resolve` would be an event, too)
        if not any(path.is_relative_to(place) for place in (desk.out, desk.images, cache)):
            return
        if event == "os.rename":
            unflushed_folders.add(Path(os.fsdecode(arguments[1])).parent)
            if path.is_file() and path.stat().st_ino not in flushed:
                surprises.append(path)
        elif arguments[2] & (os.O_WRONLY | os.O_RDWR) and not any(part.startswith(".") for part in path.parts):
            written_in_place |= {path} - {desk.out}  # an unnamed file tests whether the folder can be written

    monkeypatch.setattr(os, "fsync", flush)
    with watching(witness):
        done = imgcap_here(*desk.commands[name])
    assert done.returncode == ExitCode.DONE, done.stderr
    assert surprises == []
    assert not unflushed_folders
    grown = {"rows": {desk.out / "rows.jsonl"}, "csv": {desk.out / "rows.csv"}}
    tried = set(desk.images.iterdir()) if name == "metadata" else set()  # whether they may be written
    assert written_in_place == grown.get(name, tried)
    assert hidden(desk.out) == hidden(desk.images) == hidden(cache) == []


# --- several processes


@pytest.mark.parametrize("name", ["prepare", "train", "rows", "csv", "json", "page"])
def test_a_command_does_not_touch_an_output_that_another_one_writes(imgcap_here: Run, desk: Desk, name: str) -> None:
    command = desk.commands[name]
    output = Path(str(command[command.index("--html" if name == "page" else "-o") + 1]))
    if not output.suffix:
        output.mkdir()
    with only_writer(output):
        done = imgcap_here(*command)
        assert done.returncode == ExitCode.FAILED
        assert "is being written by another imgcap" in done.stderr
        assert len(list(desk.out.rglob("*"))) == 1 + output.is_dir()
    assert imgcap_here(*command).returncode == ExitCode.DONE
    assert hidden(desk.out) == []


def test_two_processes_do_not_mix_their_rows(desk: Desk) -> None:
    command = [*desk.commands["rows"], "--resume", "--batch-size", 1]
    both = [ForkedProcess(imgcap, command) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    for process, error in zip(both, errors, strict=True):
        assert process.returncode == 0 or "is being written by another imgcap" in error, error
    assert 0 in [process.returncode for process in both]
    names = [Path(json.loads(line)["path"]).name for line in (desk.out / "rows.jsonl").read_text().splitlines()]
    assert names == ["000.png", "001.png", "002.png"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("prepare", errno.EPERM), ("rows", errno.ENOTSUP), ("metadata", errno.ENOLCK)),
        *(("import", errno.EPERM), ("first use", errno.ENOTSUP)),
    ],
)
def test_commands_work_without_locks_and_hard_links(
    imgcap_here: Run, desk: Desk, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    for module, function in ((fcntl, "flock"), (os, "link")):
        monkeypatch.setattr(module, function, refuse)
    done = imgcap_here(*desk.commands[name])
    assert done.returncode == ExitCode.DONE, done.stderr
    assert hidden(desk.out) == hidden(desk.images) == hidden(cache) == []


# --- full disks


@contextmanager
def disk_for(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, which the system refuses like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("prepare", 200, "out/prepared cannot be written"),  # at the features
        ("prepare", 1_000_000, "out/prepared cannot be written"),  # at the encoder
        ("train", 300_000, "out/trained cannot be written"),  # at the state
        ("train", 2_000_000, "out/trained cannot be written"),  # at the encoder
        ("rows", 0, "rows.jsonl cannot be written"),
        ("rows", 200, "rows.jsonl cannot be written"),  # in the middle of a line
        ("csv", 200, "rows.csv cannot be written"),
        ("json", 200, "rows.json cannot be written"),
        ("page", 200, "page.html cannot be written"),
        ("sidecars", 1, "000.txt cannot be written"),
        ("metadata", 200, "000.png cannot be rewritten"),
        ("import", 1_000_000, "The model 'mine' could not be copied"),
        ("scores", 200, "scores.jsonl cannot be written"),
        ("split", 200, "captions.jsonl cannot be written"),
    ],
)
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    imgcap_here: Run, desk: Desk, cache: Path, name: str, size: int, sentence: str
) -> None:
    images = {file: file.read_bytes() for file in desk.images.iterdir()}
    with disk_for(size):
        full = imgcap_here(*desk.commands[name])
    assert full.returncode == ExitCode.FAILED, full.stderr
    assert sentence in full.stderr
    assert "file too large" in full.stderr
    assert "Traceback" not in full.stderr
    assert {file: file.read_bytes() for file in desk.images.iterdir()} == images
    assert not [path for path in hidden(desk.out) if path.name != ".partial"]
    assert hidden(desk.images) == hidden(cache) == []
    go_on = {"train": ["--resume"], "rows": ["--resume"], "csv": ["--overwrite"]}
    done = imgcap_here(*desk.commands[name], *go_on.get(name, []))
    assert done.returncode == ExitCode.DONE, done.stderr
    for model in [*desk.out.glob("trained"), *cache.glob("*/*")]:
        verify(model)


def test_the_first_use_works_without_space_for_the_model(imgcap_here: Run, desk: Desk, cache: Path) -> None:
    with disk_for(1_000_000):
        full = imgcap_here(*desk.commands["first use"])
    assert full.returncode == ExitCode.DONE
    assert hidden(cache) == []
    [unpacked] = cache.glob("shipped/*")
    assert not (unpacked / MANIFEST_FILE).exists()
    assert imgcap_here(*desk.commands["first use"]).stdout == full.stdout
    verify(unpacked)


def test_the_sentence_says_what_helps_against_a_full_disk() -> None:
    assert reason(OSError(errno.ENOSPC, "No space left on device")).endswith("; free some space and run again")
    assert reason(OSError(errno.EACCES, "Permission denied")) == "permission denied"


@pytest.mark.parametrize("name", ["rows", "split"])
def test_stdout_on_a_full_disk_is_one_sentence(desk: Desk, name: str) -> None:
    command = desk.commands[name][: -2 if name == "rows" else None]
    process = ForkedProcess(imgcap, command, stdout=Path("/dev/full"))
    _, errors = process.communicate()
    assert process.returncode == ExitCode.FAILED
    assert "The output cannot be used: no space left on device; free some space and run again." in errors
    assert "Traceback" not in errors and "Exception" not in errors


def test_a_closed_pipe_is_not_reported(desk: Desk) -> None:
    command = [sys.executable, "-m", "imgcap", *map(str, desk.commands["rows"][:-2]), "--quiet", "--batch-size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (ExitCode.DONE, ExitCode.FAILED)


# --- clocks


@pytest.mark.slow
@pytest.mark.parametrize("now", [1, 2**32])
def test_wrong_clocks_do_not_matter(imgcap_here: Run, desk: Desk, now: int) -> None:
    """Times are only ever compared for equality."""
    for name in ("rows", "prepare"):
        assert imgcap_here(*desk.commands[name]).returncode == ExitCode.DONE
    for path in desk.out.rglob("*"):
        os.utime(path, (now, now))
    before = {path: path.read_bytes() for path in desk.out.rglob("*") if path.is_file()}
    again = imgcap_here(*desk.commands["rows"], "--resume")
    assert "nothing left to do" in again.stderr
    assert imgcap_here(*desk.commands["prepare"]).returncode == ExitCode.DONE
    assert {path: path.read_bytes() for path in desk.out.rglob("*") if path.is_file()} == before
    os.utime(desk.images / "001.png", (now, now))
    again = imgcap_here(*desk.commands["rows"], "--resume")
    assert "2 images are done, 1 to be done again" in again.stderr
