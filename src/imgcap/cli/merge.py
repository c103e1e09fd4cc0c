"""`imgcap merge`: merge the shards of a captioning run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgcap.cli.console import interruptible, print_message


def merge(
    output: Annotated[Path, typer.Argument(help="The -o file of the sharded run.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Merge the shards that `imgcap caption --shard` wrote into one file, and delete the shards.

    The file is the same as that of a run without shards.
    """
    from imgcap.captioning.shards import merge as run

    with interruptible("The shards are unchanged."):
        rows = run(output, overwrite)
    print_message(f"{output}: {rows:,} rows.")
