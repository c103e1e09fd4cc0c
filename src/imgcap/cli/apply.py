"""`imgcap apply`: captions that a person has checked, back to the images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import Watch, print_error, say
from imgcap.errors import ExitCode, UsageError


def apply(
    file: Annotated[Path, typer.Argument(help="Rows of `imgcap caption`, .jsonl or .csv, corrected or not.")],
    sidecar: options.Sidecar = None,
    sidecar_dir: options.SidecarDir = None,
    write_metadata: options.WriteMetadata = False,
    overwrite: options.Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Neither progress nor summary.")] = False,
) -> None:
    """Write the captions of a file, corrected by hand, into sidecars or the images' metadata.

    Paths are those of the file: run it where `imgcap caption` ran. Rows without a caption are left out. Descriptions
    that are written count as a person's, so that `imgcap caption` never replaces them unasked.
    """
    if sidecar is None and sidecar_dir is None and not write_metadata:
        raise UsageError("Say where to: --sidecar .txt, --sidecar-dir FOLDER or --write-metadata.")
    from imgcap.captioning.batch import KEPT, write_caption
    from imgcap.captioning.rows import read_rows

    rows = [
        (Path(row["path"]), row["caption"].strip()) for row in read_rows(file) if (row.get("caption") or "").strip()
    ]
    if not rows:
        raise UsageError(f"{file} holds no captions.")
    sidecars = options.make_sidecars(sidecar, sidecar_dir, [path for path, _ in rows], overwrite)
    failed = kept = 0
    with Watch("Writing", quiet, rows_on_terminal=False) as watch:
        for number, (path, text) in enumerate(rows, 1):
            if os.path.isfile(path):  # noqa: PTH113 (a Path raises for names that are too long)
                written = write_caption(path, text, sidecars, write_metadata, overwrite, by_person=True)
            else:
                written = {"error": f"{path} does not exist."}
            if "error" in written:
                failed += 1
                print_error(written["error"])
            kept += written.get("description") == KEPT
            watch.advance(number, failed)
    if not quiet:
        more = f"; {kept:,} keep the description that a person wrote" * bool(kept) + f"; {failed:,} failed" * bool(
            failed
        )
        say(f"Wrote captions for {len(rows) - failed - kept:,} of {len(rows):,} images{more}.")
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED if failed < len(rows) else ExitCode.FAILED)
