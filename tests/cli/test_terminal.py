"""The installed command on a terminal, where it shows bars and spinners."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select

import pytest

from helpers.command import COMMAND
from helpers.data import write_data_set
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals.", allow_module_level=True)

TINY = ["--start-from", "none", "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1, "--batch-size", 8]
SECONDS = 120
"""A terminal that shows nothing for so long belongs to a command that hangs."""


class Command:
    """The running command. `text` is what its terminal has received."""

    def __init__(self, *arguments: object) -> None:
        self._terminal, screen = os.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(screen)

    def wait_for(self, text: str) -> None:
        """Read until `text` has come."""
        while text not in self.text:
            assert self._read(), self.text

    def end(self) -> int:
        """Read all; returns the exit code."""
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def _read(self) -> bool:
        ready, _, _ = select([self._terminal], [], [], SECONDS)
        assert ready, f"nothing for {SECONDS} seconds after {self.text!r}"
        try:
            received = os.read(self._terminal, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            received = b""
        self.text += received.decode(errors="replace")
        return bool(received)


Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Command] = []

    def run(*arguments: object) -> Command:
        running.append(Command(*arguments))
        return running[-1]

    yield run
    for command in running:
        command.close()


def test_train_shows_a_spinner_a_bar_and_a_line_for_each_epoch(
    start: Start, prepared: PreparedFolder, tmp_path: Path
) -> None:
    command = start("train", prepared.root, "-o", tmp_path / "model", *TINY, "--epochs", 2)
    assert command.end() == ExitCode.DONE, command.text
    places = [command.text.find(shown) for shown in ("Starting", "epoch   1  loss", "epoch   2  loss")]
    assert -1 not in places, command.text
    assert places == sorted(places)
    assert "epoch 2/2" in command.text  # the bar at its end, which is always drawn; an epoch can be too short for it
    assert f"{tmp_path / 'model'}: epoch " in command.text
    assert "Writing the report" in command.text


@pytest.mark.parametrize(("shown", "times"), [("Starting", 1), ("epoch   1  loss", 1), ("epoch   1  loss", 2)])
def test_an_interrupted_train_ends_with_a_sentence(
    start: Start, prepared: PreparedFolder, tmp_path: Path, shown: str, times: int
) -> None:
    command = start("train", prepared.root, "-o", tmp_path / "model", *TINY, "--epochs", 20000, "--patience", 20000)
    command.wait_for(shown)
    for _ in range(times):
        command.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert command.end() == ExitCode.INTERRUPTED, command.text
    assert "Interrupted. " in command.text
    assert "Traceback" not in command.text


def test_prepare_shows_a_bar(start: Start, encoder_file: Path, tmp_path: Path) -> None:
    captions = write_data_set(tmp_path)
    out = tmp_path / "out"
    command = start(
        "prepare", "--images", tmp_path / "images", "--captions", captions, "-o", out, "--encoder", encoder_file
    )
    assert command.end() == ExitCode.DONE, command.text
    assert "Encoding" in command.text
    assert f"{out}: " in command.text


def test_doctor_shows_a_spinner(start: Start) -> None:
    command = start("doctor")
    assert command.end() == ExitCode.DONE, command.text
    assert "Checking" in command.text
