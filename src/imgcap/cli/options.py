"""Options that several commands take, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imgcap.captioning.sidecars import Sidecars

IMAGES, WORDING, TELLING, OUTPUT, RUN = "Images", "Wording", "What is told", "Output", "Long runs"
"""Groups of options in `--help`."""

Model = Annotated[str, typer.Option("--model", "-m", help="Model: a name from `imgcap model list`, or a folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.", show_default=False)
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, or int8: near 3 times as fast on processors with VNNI; a third of the captions differ, none the "
        "worse on average.",
        rich_help_panel=RUN,
    ),
]
BeamSize = Annotated[
    int | None,
    typer.Option(
        help="Captions kept alive in the search; 1 is greedy. By default the model's choice.", rich_help_panel=WORDING
    ),
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(
        help="0 favours short captions, 1 ranks by the mean. By default the model's choice.", rich_help_panel=WORDING
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Most words in a caption. By default the model's choice.", rich_help_panel=WORDING),
]
Sidecar = Annotated[
    str | None,
    typer.Option(
        metavar="ENDING", help="Write each caption into a file of its own, for example .txt.", rich_help_panel=OUTPUT
    ),
]
SidecarDir = Annotated[
    Path | None,
    typer.Option(help="Write sidecars under this folder, sub-folders kept; .txt by default.", rich_help_panel=OUTPUT),
]
WriteMetadata = Annotated[
    bool,
    typer.Option(
        "--write-metadata",
        help="Write captions into JPEG, PNG and WebP files as XMP description and alt text; pixels stay as they are.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an output file, sidecars, and descriptions that a person wrote.",
        rich_help_panel=OUTPUT,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Do only this share of the images, such as 2/4; other machines that share the folder do the others.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]


def make_sidecars(ending: str | None, folder: Path | None, inputs: list[Path], overwrite: bool) -> Sidecars | None:
    """What --sidecar and --sidecar-dir ask for. Raises `UsageError` for an ending that cannot be."""
    if ending is None and folder is None:
        return None
    from imgcap.captioning.sidecars import Sidecars, common_root

    chosen = {} if ending is None else {"suffix": ending}
    return Sidecars(**chosen, folder=folder, root=common_root(inputs) if folder else Path(), overwrite=overwrite)
