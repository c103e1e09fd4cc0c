from __future__ import annotations

import signal
import sys
from typing import Any

import pytest
import typer

from imgcap.cli.console import interruptible
from imgcap.errors import ExitCode


class InterruptsItsEnd:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_python_drops_ends_the_block_at_the_next_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: dropped.append(told.exc_type))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as end, interruptible("Start again.") as check:
        check()
        InterruptsItsEnd()
        assert dropped == [KeyboardInterrupt]
        check()
        raise AssertionError
    assert end.value.exit_code == ExitCode.INTERRUPTED
    assert "Interrupted. Start again." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
