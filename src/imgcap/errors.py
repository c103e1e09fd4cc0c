"""Errors for the person at the terminal.

ImgcapError     exit code 1
  UsageError    exit code 2
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_FAILED = 3
    INTERRUPTED = 130


class ImgcapError(Exception):
    """One sentence that names the input and what is wrong with it, a hint on what to do, and an exit code."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(shortened(message))
        self.hint = shortened(hint)


class UsageError(ImgcapError):
    """The call is wrong: an option has a bad value, or options contradict each other."""

    exit_code = ExitCode.USAGE


def flag(name: str) -> str:
    """The option `name` as the command line calls it."""
    return f"--{name.replace('_', '-')}"


def listing(names: list[str], limit: int = 5) -> str:
    """The first `limit` names, comma-separated, and how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def shortened(text: str, limit: int = 2000) -> str:
    """`text` with its middle cut out if it is longer than `limit` characters: untrusted names can have any length."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def is_unicode(text: str) -> bool:
    """Whether `text` is free of surrogates, which stand for bytes that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a file name cannot steer the terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
