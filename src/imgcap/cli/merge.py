"""`imgcap merge`: the shards of a run to the file of the whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgcap.cli.console import interruptible, say


def merge(
    output: Annotated[Path, typer.Argument(help="The file that was given to `imgcap caption --shard` by -o.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Put the shards of `imgcap caption --shard` together, in the order of a run without shards, and remove them."""
    from imgcap.captioning.shards import merge as run

    with interruptible("The shards are as they were."):
        rows = run(output, overwrite)
    say(f"{output}: {rows:,} rows.")
