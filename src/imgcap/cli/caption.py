"""`imgcap caption`: pictures in, captions out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgcap.cli import options
from imgcap.cli.console import interruptible, print_error, printable
from imgcap.errors import ExitCode
from imgcap.model_store import DEFAULT_MODEL

if TYPE_CHECKING:
    from imgcap.captioner import Caption
    from imgcap.search import SearchOptions


def caption(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders that are searched for pictures.")],
    model: options.Model = DEFAULT_MODEL,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: path, caption, log_probability or error.")
    ] = False,
    beam_size: options.BeamSize = None,
    length_penalty: options.LengthPenalty = None,
    max_length: options.MaxLength = None,
    device: options.Device = None,
) -> None:
    """Write a caption for each picture.

    A single picture gets its bare caption, several get lines of path, tab and caption. A picture that cannot be read is
    reported and the others go on (exit code 3; 1 if none could be read).
    """
    from imgcap.captioner import load_model
    from imgcap.images import expand

    captioner = load_model(model, device)
    search = with_overrides(captioner.model.config.search, beam_size, length_penalty, max_length)
    bare = len(paths) == 1 and not paths[0].is_dir()
    done = failed = 0
    with interruptible("The captions above are complete."):
        for found in captioner.stream(expand(paths), search):
            if found.error:
                failed += 1
                print_error(str(found.error), found.error.hint)
            else:
                done += 1
            if as_json:
                print(json.dumps(_row(found), ensure_ascii=False), flush=True)
            elif not found.error:
                print(found.text if bare else f"{printable(found.path or '')}\t{found.text}", flush=True)
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED if done else ExitCode.FAILED)


def with_overrides(
    search: SearchOptions, beam_size: int | None, length_penalty: float | None, max_length: int | None
) -> SearchOptions:
    """`search` with the options that were given on the command line."""
    given: dict[str, Any] = {"beam_size": beam_size, "length_penalty": length_penalty, "max_length": max_length}
    return replace(search, **{name: value for name, value in given.items() if value is not None})


def _row(found: Caption) -> dict[str, object]:
    if found.error:
        return {"path": found.path, "error": str(found.error)}
    return {"path": found.path, "caption": found.text, "log_probability": round(found.log_probability, 4)}
