"""The `imgcap` command. Each command has a file of its own: it parses, calls one function, and prints."""

from __future__ import annotations

import ctypes
import errno
import sys
from typing import Annotated

import typer

from imgcap._version import __version__
from imgcap.cli import apply, bench, caption, doctor, evaluate, merge, models, prepare, train
from imgcap.cli.console import discard, prepare_streams, print_error, print_result
from imgcap.errors import ExitCode, ImgcapError
from imgcap.files import reason

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""

app = typer.Typer(
    name="imgcap",
    help="Caption images offline, and retrain the captioner on your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("caption")(caption.caption)
app.command("merge")(merge.merge)
app.command("apply")(apply.apply)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="model")


def _print_version(requested: bool) -> None:
    if requested:
        print_result(f"imgcap {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit.

    An `ImgcapError`, or an error of the system about a file, is one sentence on stderr and an exit code.
    """
    prepare_streams()
    _use_one_heap()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # report a full disk here, not when Python exits
    except ImgcapError as error:
        print_error(str(error), error.hint)
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if "home directory" not in str(error):
            raise
        print_error("There is no home folder, so shell completion cannot be installed.", "Set HOME to a folder.")
        sys.exit(ExitCode.FAILED)
    except BrokenPipeError:
        discard(sys.stdout)  # the reader of a pipe has closed it
        sys.exit(ExitCode.FAILED)
    except OSError as error:
        if error.filename is None and "temporary directory" in str(error):  # Python's tempfile has found none
            print_error("There is no folder for temporary files.", "Set TMPDIR to a folder that can be written.")
            sys.exit(ExitCode.FAILED)
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        print_error(f"{error.filename or 'The output'} cannot be used: {reason(error)}.")
        if error.filename is None:
            discard(sys.stdout)
        sys.exit(ExitCode.FAILED)


def _use_one_heap() -> None:
    """Make all threads allocate from one heap: with glibc's heap for each thread, each keeps what an image took."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_ARENA_MAX, 1)
