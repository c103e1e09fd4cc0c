"""The `imgcap` command. Each command has a file of its own: it parses, calls the core once, and prints."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from imgcap import __version__
from imgcap.cli import apply, bench, caption, doctor, evaluate, models, prepare, train
from imgcap.cli.console import print_error
from imgcap.errors import ExitCode, ImgcapError

app = typer.Typer(
    name="imgcap",
    help="Caption pictures offline, and retrain the captioner on your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("caption")(caption.caption)
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
    """Run the command line and exit: an `ImgcapError` is one sentence on stderr and its exit code."""
    try:
        app()
    except ImgcapError as error:
        print_error(str(error), error.hint)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe has left; Python must not complain when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
