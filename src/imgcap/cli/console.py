"""What the commands share on the terminal: results go to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from imgcap.errors import ExitCode

if TYPE_CHECKING:
    from rich.progress import Progress

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def printable(text: str) -> str:
    """`text` with control characters escaped, so that no file name can steer the terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def print_error(message: str, hint: str = "") -> None:
    err.print(f"[bold red]imgcap:[/] {escape(printable(message))}")
    if hint:
        err.print(f"  {escape(printable(hint))}")


def say(message: str) -> None:
    """A line for the person at the terminal."""
    err.print(escape(printable(message)))


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Ctrl-C ends the block, and the command, with `advice` and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Interrupted. {advice}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def counting(description: str) -> tuple[AbstractContextManager[Progress], Callable[[int, int], None]]:
    """A progress bar over pictures, and the `(done, total)` callback that moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    task = progress.add_task(description, total=None)
    return progress, lambda done, total: progress.update(task, completed=done, total=total)
