from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from helpers.command import COMMAND
from helpers.data import Run
from imgcap.cli.console import RowStream, counting, err, interruptible, print_error, print_message
from imgcap.errors import ExitCode


class InterruptsItsEnd:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class FailsAtItsEnd:
    def __del__(self) -> None:
        raise OSError("the disk is gone")


def test_an_interrupt_that_python_drops_is_repeated_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: printed.append(dropped.exc_type))
    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    dropped = False
    with pytest.raises(typer.Exit) as end, interruptible("Start again."):
        FailsAtItsEnd()
        InterruptsItsEnd()
        dropped = True
        for _ in range(1_000):
            time.sleep(0.01)
        raise AssertionError
    assert dropped
    assert printed == [OSError]
    assert end.value.exit_code == ExitCode.INTERRUPTED
    assert "Interrupted. Start again." in capsys.readouterr().err
    assert sys.unraisablehook is hook
    assert signal.getsignal(signal.SIGINT) is handler


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `imgcap` is the installed command."""
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}", "COLUMNS": "200", **environment}
    return subprocess.run(["bash", "-c", command], capture_output=True, env=environment, timeout=900, check=False)


posix = pytest.mark.skipif(os.name != "posix", reason="needs bash")


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_harmless(closed: str) -> None:
    for command, code in (("model list", ExitCode.DONE), ("caption", ExitCode.USAGE), ("caption --x", ExitCode.USAGE)):
        done = shell(f"imgcap {command} {closed}")
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr


@posix
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("path,caption\nnone.jpg,a dog\n")
    done = shell(f"imgcap apply {rows} --sidecar .txt >&- 2>&-")
    assert done.returncode == ExitCode.FAILED
    assert rows.read_text() == "path,caption\nnone.jpg,a dog\n"


@posix
@pytest.mark.parametrize("command", ["model list", "model show", "--help", "caption --help", "--version"])
def test_a_closed_pipe_is_no_traceback(command: str) -> None:
    done = shell(f"(sleep 0.1; imgcap {command}) | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode in (ExitCode.DONE, ExitCode.FAILED)
    assert done.stderr == b""
    lost = shell(f"imgcap {command} --nonsense 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert lost.returncode in (ExitCode.USAGE, ExitCode.FAILED, ExitCode.DONE)


@posix
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1:strict"])
def test_characters_that_the_terminal_lacks_are_replaced(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"path": "日本.jpg", "caption": "a dog"}\n', encoding="utf-8")
    done = shell(f"imgcap apply {tmp_path}/rows.jsonl --sidecar .txt", PYTHONIOENCODING=encoding)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.decode(encoding.partition(":")[0]).splitlines()[0] == r"imgcap: \u65e5\u672c.jpg does not exist."
    done = shell("imgcap --help", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (ExitCode.DONE, b"")


class Broken(io.TextIOWrapper):
    """A stream whose reader has left."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise BrokenPipeError


def test_messages_are_dropped_when_nobody_can_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken())
    print_message("a line")
    print_error("an error", "a hint")
    err.print("more")


@pytest.mark.parametrize("done", [0, 4064])
def test_a_count_says_what_an_earlier_run_did(capsys: pytest.CaptureFixture[str], done: int) -> None:
    with counting("Encoding") as on_progress:
        for more in range(3):
            on_progress(done + more, 8086)
    said = "Encoding: 4,064 of 8,086 images are done already.\n"
    assert capsys.readouterr().err.count(said) == (done > 0)


def test_rows_are_dropped_when_their_reader_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken()
    monkeypatch.setattr(sys, "stdout", broken)
    stream = RowStream("jsonl")
    assert not stream.is_abandoned
    stream.writelines(["one\n", "two\n"])
    stream.flush()
    assert stream.is_abandoned
    assert broken.tries == 1


@pytest.mark.parametrize(
    "command",
    [
        ["prepare", "--images", ".", "--captions", "a.csv", "-o", "-"],
        ["train", ".", "-o", "-"],
        ["caption", "a.jpg", "--html", "-"],
        ["caption", "a.jpg", "--sidecar-dir", "-"],
        ["eval", ".", "--html", "-"],
        ["eval", ".", "--save-captions", "-"],
    ],
    ids=" ".join,
)
def test_outputs_that_cannot_be_stdout_say_so(
    imgcap_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = imgcap_here(*command)
    assert done.returncode == ExitCode.USAGE
    assert "Only rows of captions can be written to stdout." in done.stderr
    assert list(tmp_path.iterdir()) == []
