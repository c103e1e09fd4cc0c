"""Errors that are written for the person at the terminal."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command tells the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_FAILED = 3
    INTERRUPTED = 130


class ImgcapError(Exception):
    """One sentence that says what is wrong with which input, a hint on what to do, and an exit code."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(shortened(message))
        self.hint = shortened(hint)


class UsageError(ImgcapError):
    """The call itself is wrong: an option's value, or options that do not go together."""

    exit_code = ExitCode.USAGE


def listing(names: list[str], limit: int = 5) -> str:
    """The first `limit` names for a sentence, and how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def shortened(text: str, limit: int = 2000) -> str:
    """`text` without its middle if it has more than `limit` characters: names from strangers can have any length."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def printable(text: str) -> str:
    """`text` with control characters escaped, so that no file name can steer the terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
