"""The terminal, for all commands: results go to stdout, messages and progress to stderr.

No command writes to a stream in any other way. So characters that the terminal cannot show are replaced, closed streams
are harmless, and text from files cannot control the terminal.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread, Timer
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, TextIO, cast

import typer
from rich.console import Console
from rich.markup import escape

from imgcap.errors import ExitCode, printable, shortened

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table

_REPEATED_AFTER = 0.01
"""Seconds after which an interrupt that Python dropped is repeated: finalising has ended then."""

_REPLACING = frozenset({"backslashreplace", "ignore", "namereplace", "replace", "xmlcharrefreplace"})
"""Error handlers under which every character can be printed."""


class _Messages(io.TextIOBase):
    """The current stderr. Once it cannot be written to, messages are dropped: they must not stop the work."""

    @property
    def _stderr(self) -> TextIO:
        """Stderr itself: while a bar is shown, rich puts a proxy in its place, which prints to the console `err`."""
        return cast(TextIO, getattr(sys.stderr, "rich_proxied_file", sys.stderr))

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stderr.encoding

    def isatty(self) -> bool:
        return bool(self._stderr and self._stderr.isatty())  # None until `prepare_streams`, if the stream is closed

    def fileno(self) -> int:
        return self._stderr.fileno()

    def write(self, text: str) -> int:
        try:
            return self._stderr.write(text)
        except OSError:
            discard(self._stderr)
            return len(text)

    def flush(self) -> None:
        try:
            self._stderr.flush()
        except OSError:
            discard(self._stderr)


out = Console(highlight=False, emoji=False, soft_wrap=True)
err = Console(highlight=False, emoji=False, soft_wrap=True, file=cast(TextIO, _Messages()))


def prepare_streams() -> None:
    """Open the standard streams that are closed, and let none of them fail for a character that it cannot encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor is the closed one: no file of ours can take its place, and be written to.
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors not in _REPLACING:
            stream.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Drop what `stream` still buffers and all that follows, so that Python does not complain when it exits."""
    with suppress(OSError, ValueError):  # a stream without a descriptor has no buffer to drop
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_result(text: str = "") -> None:
    """Print a line of results to stdout. Text from a file must be `printable`."""
    print(text)


def print_path(path: Path) -> None:
    """Print a path to stdout byte for byte, for programs that use it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    sys.stdout.buffer.flush()


def print_table(table: Table, min_width: int = 0, *, wrap: bool = False) -> None:
    """Print a table to stdout; on a narrow terminal, cells are wrapped or the lines are too long, but never cut."""
    console = Console(width=max(out.width, min_width), highlight=False, emoji=False, soft_wrap=not wrap)
    console.print(table, crop=False)


def print_message(text: str) -> None:
    """Print a line for the user to stderr."""
    err.print(escape(printable(shortened(text))))


def print_error(message: str, hint: str = "") -> None:
    """Print an error, and below it what to do about it, to stderr."""
    err.print(f"[bold red]imgcap:[/] {escape(printable(message))}")
    if hint:
        err.print(f"  {escape(printable(hint))}")


class RowStream(io.TextIOBase):
    """Stdout for rows of captions: UTF-8, except that text on a terminal keeps the encoding of the terminal.

    Once the reader of a pipe has left, rows are dropped, and `is_abandoned` is True.
    """

    def __init__(self, format_name: str) -> None:
        self._stream = cast(io.TextIOWrapper, sys.stdout)
        self.is_abandoned = False
        if not (format_name == "text" and self._stream.isatty()):
            errors = "surrogateescape" if format_name == "csv" else "backslashreplace"
            self._stream.reconfigure(encoding="utf-8", errors=errors, newline="")

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        if not self.is_abandoned:
            with self._while_read():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if not self.is_abandoned:
            with self._while_read():
                self._stream.flush()

    @contextmanager
    def _while_read(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.is_abandoned = True
            discard(self._stream)


@contextmanager
def interruptible(advice: str | Callable[[], str]) -> Iterator[None]:
    """End the block on Ctrl-C, and the command with `advice` and exit code 130.

    Python drops an interrupt that arrives while an object is finalised, and prints its traceback. Within the block, the
    interrupt is repeated instead.
    """
    ended = Event()
    hook = sys.unraisablehook

    def interrupt_again() -> None:
        if not ended.is_set():
            interrupt_main()

    def handle_dropped(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            Timer(_REPEATED_AFTER, interrupt_again).start()
        else:
            hook(dropped)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
    sys.unraisablehook = handle_dropped
    try:
        yield
    except KeyboardInterrupt:
        print_message(f"Interrupted. {advice if isinstance(advice, str) else advice()}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        ended.set()
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, handler)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C only sets what the yielded function returns; the second one interrupts."""
    requested = Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        requested.set()
        signal.signal(signal.SIGINT, before)
        print_message("Stopping after this batch; press Ctrl-C again to stop at once.")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def progress_bar(*more: ProgressColumn) -> Progress:
    """A bar on stderr with the time that is left, followed by the columns `more`; it disappears at its end.

    It leaves space in the line: where a terminal's own `^C` wraps the line, a copy of the bar would stay.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(),
        *more,
        console=err,
        speed_estimate_period=120,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not err.is_terminal,  # else it ends with an empty line
    )


@contextmanager
def counting(description: str, silent: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Within the block, a progress bar over images, moved by the yielded `(done, total)` callback.

    The first call comes before the first image; if some are done then, an earlier run did them, and this is said.
    """
    if silent:
        yield lambda _done, _total: None
        return
    from rich.progress import MofNCompleteColumn

    progress = progress_bar(MofNCompleteColumn())
    task = progress.add_task(description, total=None)

    def count(done: int, total: int) -> None:
        if done and progress.tasks[task].total is None:
            print_message(f"{description}: {done:,} of {total:,} images are done already.")
        progress.update(task, completed=done, total=total)

    with progress:
        yield count


class RunProgress:
    """Progress of a long run on stderr: a bar on a terminal, a line every minute in a log, nothing if `silent`.

    Where the rows themselves appear on the terminal, they are the progress, and there is no bar.
    """

    LINE_EVERY = 60
    """Seconds between two lines in a log."""

    def __init__(self, description: str, silent: bool, rows_on_terminal: bool) -> None:
        self._writes_lines = not silent and not err.is_terminal
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._ended = False
        if not silent and err.is_terminal and not rows_on_terminal:
            from rich.progress import MofNCompleteColumn, TextColumn

            self._bar = progress_bar(MofNCompleteColumn(), TextColumn("{task.fields[more]}"))
            self._task = self._bar.add_task(description, total=None, more="")

    def __enter__(self) -> RunProgress:
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
        """Count `images` in a thread of its own, to set the end of the bar."""
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
        """Show that `done` images are done, and `failed` of them have failed."""
        rate = done / max(time.monotonic() - self._started, 1e-9)
        failures = f", {failed:,} failed" if failed else ""
        if self._bar:
            self._bar.update(self._task, completed=done, more=f"{rate:.1f}/s{failures}")
        elif self._writes_lines and time.monotonic() - self._last_line >= self.LINE_EVERY:
            self._last_line = time.monotonic()
            print_message(f"{done:,} images, {rate:.1f} a second{failures}")
