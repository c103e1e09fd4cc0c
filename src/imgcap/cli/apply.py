"""`imgcap apply`: write captions that a person has checked back to the images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from imgcap.captioning.row_files import read_rows
from imgcap.captioning.rows import KEPT
from imgcap.cli import options
from imgcap.cli.console import RunProgress, interruptible, print_error, print_message
from imgcap.errors import ExitCode, UsageError, is_unicode
from imgcap.images.sidecars import mirrored_root


def apply(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file that `imgcap caption` wrote.")],
    sidecar: options.Sidecar = None,
    sidecar_dir: options.SidecarDir = None,
    append: options.Append = False,
    write_metadata: options.WriteMetadata = False,
    keep_mtime: options.KeepMtime = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Write captions from a file, with your corrections, into sidecars or the metadata of the images.

    Run it in the folder in which `imgcap caption` ran, because the file's paths are relative to it. Rows without a
    caption are skipped. The descriptions count as written by a person: `imgcap caption` keeps them unless you give
    --overwrite.
    """
    _check(keep_mtime, write_metadata, sidecar is not None or sidecar_dir is not None)
    from imgcap.captioning.batch import write_caption

    rows = [
        (Path(row["path"]), row["caption"].strip()) for row in read_rows(file) if (row.get("caption") or "").strip()
    ]
    if not rows:
        raise UsageError(f"{file} has no captions.")
    sidecars = options.make_sidecars(sidecar, sidecar_dir, [path for path, _ in rows], overwrite, append, mirrored_root)
    done = failed = kept = 0
    with (
        interruptible(lambda: f"{done:,} of {len(rows):,} rows are done."),
        RunProgress("Writing", quiet, rows_on_terminal=False) as progress,
    ):
        for path, text in rows:
            if os.path.isfile(path):  # noqa: PTH113 (a Path raises for names that are too long)
                written = write_caption(
                    path, text, sidecars, write_metadata, overwrite, by_person=True, keep_mtime=keep_mtime
                )
            else:
                written = {"error": _missing(path, file)}
            if "error" in written:
                failed += 1
                print_error(written["error"])
            kept += written.get("description") == KEPT
            done += 1
            progress.advance(done, failed)
    if not quiet:
        parts = [f"Wrote captions for {len(rows) - failed - kept:,} of {len(rows):,} images"]
        if kept:
            parts.append(f"{kept:,} keep the description that a person wrote")
        if failed:
            parts.append(f"{failed:,} failed")
        print_message("; ".join(parts) + ".")
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED if failed < len(rows) else ExitCode.FAILED)


def _check(keep_mtime: bool, write_metadata: bool, write_sidecars: bool) -> None:
    """Raise `UsageError` for options that do not go together."""
    if not write_sidecars and not write_metadata:
        raise UsageError("Choose where to write: --sidecar .txt, --sidecar-dir FOLDER or --write-metadata.")
    if keep_mtime and not write_metadata:
        raise UsageError("--keep-mtime needs --write-metadata.")


def _missing(path: Path, file: Path) -> str:
    if is_unicode(str(path)):
        return f"{path} does not exist."
    return f"{path} does not exist; in {file} its name is not UTF-8 text."
