"""Options that several commands take, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="Model: a name from `imgcap model list`, or a folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.", show_default=False)
]
BeamSize = Annotated[
    int | None, typer.Option(help="Captions kept alive in the search; 1 is greedy. By default the model's choice.")
]
LengthPenalty = Annotated[
    float | None, typer.Option(help="0 favours short captions, 1 ranks by the mean. By default the model's choice.")
]
MaxLength = Annotated[int | None, typer.Option(help="Most words in a caption. By default the model's choice.")]
