"""Options of the commands. Typer needs a parameter for each option; its flags and its help text are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.captioning.row_files import PAGE_ENDINGS
from imgcap.errors import UsageError
from imgcap.images.sidecars import SidecarPaths, common_root

if TYPE_CHECKING:
    from imgcap.captioning.sidecars import Sidecars
    from imgcap.model.search import SearchOptions

IMAGES, WORDING, DETAILS, OUTPUT, RUN = "Images", "Wording", "Details", "Output", "Long runs"
"""Groups of options in `--help`."""

_images, _wording, _details, _output, _run = (
    partial(typer.Option, rich_help_panel=panel) for panel in (IMAGES, WORDING, DETAILS, OUTPUT, RUN)
)


def not_stdout(path: Path | None) -> Path | None:
    """Raise `UsageError` if `path` is `-`, for outputs that cannot be written to stdout."""
    if path == Path("-"):
        raise UsageError("Only rows of captions can be written to stdout.", "Give this output a name.")
    return path


def page_file(path: Path | None) -> Path | None:
    """Raise `UsageError` if `path`, given to `--html`, has not the ending of a web page."""
    path = not_stdout(path)
    if path and not path.name.lower().endswith(PAGE_ENDINGS):
        raise UsageError(f"--html writes a web page, but {path} is not .html.")
    return path


# Images

Images = Annotated[
    list[str] | None,
    typer.Argument(help="Images, folders, .tar or .parquet files to search for images, or - for an image on stdin."),
]
FromFile = Annotated[Path | None, _images(help="A file with one path per line; - for stdin.")]
Recursive = Annotated[bool, _images(help="Search sub-folders too.")]
Include = Annotated[
    list[str] | None, _images(help="Take only these images of a folder, such as '*.jpg'. Can be repeated.")
]
Exclude = Annotated[list[str] | None, _images(help="Skip these images, such as 'thumbs/**'. Can be repeated.")]
MaxPixels = Annotated[
    int | None,
    _images(
        help="Refuse images with more pixels; by default, those that need over 450 MB to decode.", show_default=False
    ),
]

# Wording

NumCaptions = Annotated[int, _wording("--num-captions", "-n", help="Different captions for each image.")]
BeamSize = Annotated[
    int | None,
    _wording(help="Captions that the search keeps at each step; 1 is greedy. By default the model's choice."),
]
LengthPenalty = Annotated[
    float | None,
    _wording(help="0 favours short captions, 1 ranks by the mean per word. By default the model's choice."),
]
MinLength = Annotated[int | None, _wording(help="Minimum number of words in a caption.")]
MaxLength = Annotated[int | None, _wording(help="Maximum number of words in a caption. By default the model's choice.")]
Ban = Annotated[list[str] | None, _wording(help="A word that captions must not contain. Can be repeated.")]
Sample = Annotated[bool, _wording("--sample", help="Draw captions at random instead of searching for the best.")]
Temperature = Annotated[float, _wording(help="With --sample: below 1 safer, above 1 more varied.")]
TopP = Annotated[float, _wording(help="With --sample: draw from the most probable words, of this total probability.")]
Seed = Annotated[int, _wording(help="With --sample: equal seeds give equal captions.")]
Prefix = Annotated[str, _wording(help="Text before each caption.")]
Suffix = Annotated[str, _wording(help="Text after each caption.")]
Trigger = Annotated[str, _wording(help="A word and a comma before all else; image generators are fine-tuned with it.")]

# Details

Words = Annotated[bool, _details("--words", help="Show the probability of each word.")]
MinConfidence = Annotated[float, _details(help="Withhold captions with less confidence, 0 to 1.")]
Explain = Annotated[
    bool,
    _details(
        "--explain",
        help="Show the most similar training images, named as in the model's training data, whether the caption is a "
        "copy of a training caption, and a warning for images unlike all training images.",
    ),
]

# Output

RowFile = Annotated[
    Path | None, _output("--output", "-o", help="Write rows to this file instead of stdout; - is stdout.")
]
Format = Annotated[
    str | None,
    _output(
        "--format",
        "-f",
        help="text, jsonl, json or csv; by default the ending of --output, or text without one.",
        show_default=False,
    ),
]
Gallery = Annotated[
    Path | None,
    _output("--html", help="Also write a gallery page, on which you can correct captions.", callback=page_file),
]
Sidecar = Annotated[
    str | None, _output(metavar="ENDING", help="Write each caption to a file of its own, for example .txt or .xmp.")
]
SidecarDir = Annotated[
    Path | None,
    _output(help="Write sidecars under this folder, with the same sub-folders; .txt by default.", callback=not_stdout),
]
Append = Annotated[bool, _output("--append", help="Add captions to text sidecars that exist, one per line.")]
WriteMetadata = Annotated[
    bool,
    _output(
        "--write-metadata",
        help="Write captions into JPEG, PNG and WebP files as XMP description and alt text; pixels stay as they are.",
    ),
]
KeepMtime = Annotated[
    bool, _output("--keep-mtime", help="With --write-metadata: keep the modification times of the images.")
]
Overwrite = Annotated[
    bool, _output("--overwrite", help="Replace output files, sidecars, and descriptions that a person wrote.")
]

# Long runs

Resume = Annotated[bool, _run("--resume", help="Continue the .jsonl file of --output.")]
RetryFailed = Annotated[bool, _run("--retry-failed", help="With --resume: try failed images again.")]
ByContent = Annotated[bool, _run("--by-content", help="Detect changes by SHA-256, not by size and modification time.")]
SkipExisting = Annotated[bool, _run("--skip-existing", help="Skip images that have a sidecar.")]
FailFast = Annotated[bool, _run("--fail-fast", help="Stop at the first failure.")]
BatchSize = Annotated[int, _run(help="Images computed together; does not change captions.")]
Shard = Annotated[
    str | None,
    _run(
        "--shard",
        help="Do only this part of the images, such as 2/4; other machines that share the folder do the others.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, _run("--quiet", "-q", help="Show neither progress nor summary.")]
Precision = Annotated[
    str,
    _run(
        help="float32; int8: about 3 times as fast on processors with VNNI or AMX, but one caption in eleven differs, "
        "as good on average; or auto: int8 on such a processor, else float32."
    ),
]

# Caption files

ImageColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column or key that names the image; by default known names such as image or file_name.",
        show_default=False,
    ),
]
CaptionColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column or key of the captions, perhaps NAME_0, NAME_1, ...; by default known names such as caption.",
        show_default=False,
    ),
]

# All commands

Model = Annotated[str, typer.Option("--model", "-m", help="A name from `imgcap model list`, or a model folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.", show_default=False)
]


def make_sidecars(
    ending: str | None,
    folder: Path | None,
    inputs: list[Path],
    overwrite: bool,
    append: bool,
    find_root: Callable[[str, Path, list[Path]], Path] = lambda _suffix, _folder, inputs: common_root(inputs),
) -> Sidecars | None:
    """The value of --sidecar, --sidecar-dir and --append; None without the first two. Raises `UsageError`.

    `find_root` finds the folder of images that `folder` mirrors, from the ending, `folder` and `inputs`.
    """
    if ending is None and folder is None:
        if append:
            raise UsageError("--append needs --sidecar or --sidecar-dir.")
        return None
    from imgcap.captioning.sidecars import Sidecars

    suffix = ".txt" if ending is None else ending
    root = find_root(suffix, folder, inputs) if folder and inputs else Path()
    return Sidecars(SidecarPaths(suffix, folder, root), overwrite, append)


def search_overrides(**given: object) -> Callable[[SearchOptions], SearchOptions]:
    """A function that replaces search options by those that are given and not None."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return lambda own: replace(own, **chosen)  # type: ignore[arg-type]
