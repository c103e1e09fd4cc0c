"""What the commands share on the terminal: results go to stdout, everything else to stderr."""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event, Thread
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, TextIO, cast

import typer
from rich.console import Console
from rich.markup import escape

from imgcap.errors import ExitCode, printable, shortened

if TYPE_CHECKING:
    from rich.progress import Progress, TextColumn

out = Console(highlight=False, emoji=False, soft_wrap=True)
err = Console(highlight=False, emoji=False, soft_wrap=True, stderr=True)


def print_error(message: str, hint: str = "") -> None:
    err.print(f"[bold red]imgcap:[/] {escape(printable(message))}")
    if hint:
        err.print(f"  {escape(printable(hint))}")


def say(message: str) -> None:
    """A line for the person at the terminal."""
    err.print(escape(printable(shortened(message))))


@contextmanager
def interruptible(advice: str) -> Iterator[Callable[[], None]]:
    """Ctrl-C ends the block, and the command, with `advice` and exit code 130.

    Python drops the interrupt if it comes while an object is being finalised: the yielded function raises it again.
    """
    noted = Event()

    def note(number: int, frame: FrameType | None) -> None:
        noted.set()
        signal.default_int_handler(number, frame)

    def check() -> None:
        if noted.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    except KeyboardInterrupt:
        say(f"Interrupted. {advice}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, before)


def _bar(*more: TextColumn) -> Progress:
    """A bar over images on stderr, with `more` columns behind it, that leaves stdout to the rows."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), *more)
    return Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False)


def counting(
    description: str, silent: bool = False
) -> tuple[AbstractContextManager[object], Callable[[int, int], None]]:
    """A progress bar over images, and the `(done, total)` callback that moves it."""
    if silent:
        return nullcontext(), lambda _done, _total: None
    progress = _bar()
    task = progress.add_task(description, total=None)
    return progress, lambda done, total: progress.update(task, completed=done, total=total)


def stdout(format_name: str) -> TextIO:
    """Stdout for rows: UTF-8, and no file name that it could stumble over."""
    stream = cast(io.TextIOWrapper, sys.stdout)
    stream.reconfigure(
        encoding="utf-8", errors="surrogateescape" if format_name == "csv" else "backslashreplace", newline=""
    )
    return stream


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C is only noted: the yielded function says so; a second one interrupts."""
    noted = Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        noted.set()
        signal.signal(signal.SIGINT, before)
        say("Stopping after this batch; Ctrl-C again stops at once.")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    except KeyboardInterrupt:
        noted.set()
    finally:
        signal.signal(signal.SIGINT, before)


class Watch:
    """Progress of a long run on stderr: a bar on a terminal, a line a minute in a log, nothing if it is `silent`.

    Where the rows themselves appear on the terminal, they are the progress, and there is no bar.
    """

    LINE_EVERY = 60
    """Seconds between two lines in a log."""

    def __init__(self, description: str, silent: bool, rows_on_terminal: bool) -> None:
        self._log = not silent and not err.is_terminal
        self._begun = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._ended = False
        if not silent and err.is_terminal and not rows_on_terminal:
            from rich.progress import TextColumn

            self._bar = _bar(TextColumn("{task.fields[more]}"))
            self._task = self._bar.add_task(description, total=None, more="")

    def __enter__(self) -> Watch:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if self._bar:
            self._bar.stop()

    def count(self, images: Iterable[object]) -> None:
        """Count what there is to do while it is done already; a bar without an end becomes one with an end."""
        if not self._bar:
            return
        bar, task = self._bar, self._task

        def run() -> None:
            total = 0
            for _ in images:
                if self._ended:
                    return
                total += 1
            bar.update(task, total=total)

        Thread(target=run, daemon=True).start()

    def advance(self, done: int, failed: int) -> None:
        """`done` images so far, `failed` among them."""
        rate = done / max(time.monotonic() - self._begun, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=done, more=f"{rate:.1f}/s" + f", {failed:,} failed" * bool(failed))
        elif self._log and time.monotonic() - self._last_line >= self.LINE_EVERY:
            self._last_line = time.monotonic()
            say(f"{done:,} images, {rate:.1f} a second" + f", {failed:,} failed" * bool(failed))
