"""The `imgcap` command. Each command has a file of its own: it parses, calls the core once, and prints."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Annotated

import typer

from imgcap._version import __version__
from imgcap.cli import apply, bench, caption, doctor, evaluate, merge, models, prepare, train
from imgcap.cli.console import print_error
from imgcap.errors import ExitCode, ImgcapError
from imgcap.files import reason

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""

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


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"imgcap {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit: an `ImgcapError` is one sentence on stderr and its exit code.

    So is what the system says of a file, such as that its name is too long.
    """
    _share_one_heap()
    try:
        _run()
    except SystemExit as end:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's; to ask torch for it would import it, for `--help` too
            _leave(end)
        raise


def _leave(end: SystemExit) -> None:
    """End the process at once: as Python winds up, a thread of Gloo that asks for it would abort the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _run() -> None:
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # so that a full disk is told of here, and not when Python ends
    except ImgcapError as error:
        print_error(str(error), error.hint)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _drop_stdout()  # the reader of a pipe has left
        sys.exit(ExitCode.FAILED)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        print_error(f"{error.filename or 'The output'} cannot be used: {reason(error)}.")
        if error.filename is None:
            _drop_stdout()
        sys.exit(ExitCode.FAILED)


def _drop_stdout() -> None:
    """Send what is still buffered to nowhere: Python must not complain when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _share_one_heap() -> None:
    """Have all threads allocate from one heap: glibc gives each its own, and what an image took stays in each."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_ARENA_MAX, 1)
