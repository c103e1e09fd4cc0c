"""Options of `imgcap eval`, and the objects that they are parsed into."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.cli import options
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import make_folder
from imgcap.model.store import CONFIG_FILE, available_models, locate
from imgcap.text.columns import Columns

if TYPE_CHECKING:
    from imgcap.model.search import SearchOptions

_FILES, _TRUST = "Captions from files", "Comparison"

Prepared = Annotated[Path | None, typer.Argument(help="Folder written by `imgcap prepare`.", show_default=False)]
Split = Annotated[str, typer.Option(help="Split to score: train, val or test.")]
Hypotheses = Annotated[
    Path | None,
    typer.Option(
        help="Captions to score instead of a model's: JSON Lines, JSON, CSV, or text.", rich_help_panel=_FILES
    ),
]
References = Annotated[
    list[Path] | None,
    typer.Option(
        help="References: JSON Lines, COCO or Karpathy JSON, CSV, Flickr8k token file, or text with one line per "
        "caption. Can be repeated.",
        rich_help_panel=_FILES,
    ),
]
Some = Annotated[
    bool,
    typer.Option(
        "--some", help="Score only the images that have both a caption and references.", rich_help_panel=_FILES
    ),
]
Images = Annotated[Path | None, typer.Option(help="Folder of the images, for --html.", rich_help_panel=_FILES)]
TrainingCaptions = Annotated[
    Path | None,
    typer.Option(
        help="Captions that the author of --hypotheses learned from. The floor is one of them, and copies of them are "
        "counted.",
        rich_help_panel=_FILES,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(help="Other captions of the same images, to find out which are better.", rich_help_panel=_TRUST),
]
CompareModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Another model, a name or folder, that captions the same images, to find out which model is better.",
        rich_help_panel=_TRUST,
    ),
]
Floor = Annotated[
    str | None,
    typer.Option(
        metavar="CAPTION",
        help="Caption given to every image; by default the one with the highest BLEU-4.",
        rich_help_panel=_TRUST,
    ),
]
MinReferences = Annotated[int, typer.Option("--min-refs", help="Minimum references per image.", rich_help_panel=_TRUST)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=options.OUTPUT)]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="Print a table for a README.", rich_help_panel=options.OUTPUT)
]
Html = Annotated[
    Path | None,
    typer.Option(
        help="Write one page with plots and images.", callback=options.page_file, rich_help_panel=options.OUTPUT
    ),
]
PerImage = Annotated[
    Path | None,
    typer.Option(help="Write the scores of each image to .jsonl or .csv, best first.", rich_help_panel=options.OUTPUT),
]
WorstFirst = Annotated[
    bool,
    typer.Option("--worst-first", help="Write the worst images of --per-image first.", rich_help_panel=options.OUTPUT),
]
SaveCaptions = Annotated[
    Path | None,
    typer.Option(
        help="Write the model's captions to this file, as JSON Lines.",
        rich_help_panel=options.OUTPUT,
        callback=options.not_stdout,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files.", rich_help_panel=options.OUTPUT)]


@dataclass(frozen=True)
class CaptionSources:
    """Files that captions and references are read from."""

    hypotheses: Path
    references: list[Path]
    images: Path | None
    training: Path | None
    columns: Columns
    some: bool


@dataclass(frozen=True)
class ModelRun:
    """A model that captions a split of a prepared folder."""

    prepared: Path
    model: str
    split: str
    compared: str | None
    """Another model that captions the same images."""
    choose_search: Callable[[SearchOptions], SearchOptions]
    save_captions: Path | None


@dataclass(frozen=True)
class OutputFiles:
    """Files to write. Raises `UsageError` or `ImgcapError` for unusable names, before any work is done."""

    html: Path | None
    per_image: Path | None
    worst_first: bool
    save_captions: Path | None
    overwrite: bool

    def __post_init__(self) -> None:
        files = [file for file in (self.html, self.per_image, self.save_captions) if file]
        if self.worst_first and not self.per_image:
            raise UsageError("--worst-first goes with --per-image.")
        if self.per_image and self.per_image.suffix.lower() not in (".jsonl", ".csv"):
            raise UsageError(f"{self.per_image} is neither .jsonl nor .csv.", "--per-image writes these two.")
        if self.save_captions and self.save_captions.suffix.lower() != ".jsonl":
            raise UsageError(f"--save-captions writes JSON Lines, but {self.save_captions} is not .jsonl.")
        places = [file.resolve() for file in files]
        for file, place in zip(files, places, strict=True):
            if places.count(place) > 1:
                raise UsageError(f"{file} cannot hold two things.")
            if file.is_dir() or (file.exists() and not self.overwrite):
                hint = "Give another file" + ("." if file.is_dir() else ", or replace it with --overwrite.")
                raise ImgcapError(f"{file} already exists.", hint)
            make_folder(file.absolute().parent)


def check_sources(
    prepared: Path | None, hypotheses: Path | None, references: list[Path] | None, save_captions: Path | None
) -> None:
    """Raise `UsageError` unless there is either a prepared folder or captions with references."""
    if (prepared is None) == (hypotheses is None):
        raise UsageError("Give either a prepared folder or --hypotheses and --references.")
    if (hypotheses is None) != (not references):
        raise UsageError("--hypotheses and --references need each other.")
    if hypotheses:
        _refuse_model("--hypotheses", hypotheses, f"a prepared folder and --model {hypotheses}")
    if hypotheses and save_captions:
        raise UsageError("--save-captions goes with a prepared folder and a model.")


def check_comparison(prepared: Path | None, compare: Path | None, compare_model: str | None, model: str) -> None:
    """Raise `UsageError` unless the captions are compared with those of one file or one other model, if at all.

    Raises `ImgcapError` if the file or the model does not exist: that is said before a model captions all images.
    """
    if compare and compare_model:
        raise UsageError("--compare and --compare-model cannot both be given.")
    if compare:
        also = "" if prepared else ", with a prepared folder instead of --hypotheses"
        _refuse_model("--compare", compare, f"--compare-model {compare}{also}")
        if not _exists(compare):
            raise ImgcapError(f"{compare} does not exist.", "Give a file of captions.")
    if compare_model is None:
        return
    if not prepared:
        raise UsageError("--compare-model goes with a prepared folder.", "Compare captions from files with --compare.")
    if os.path.isfile(compare_model):  # noqa: PTH113 (a Path raises for names that are too long)
        raise UsageError(
            f"--compare-model takes a model, but {compare_model} is a file.",
            f"If it holds captions, give --compare {compare_model}.",
        )
    if not compare_model:
        raise UsageError("--compare-model takes the name or the folder of a model.")
    if locate(compare_model).samefile(locate(model)):
        raise UsageError(f"--compare-model names the model that is scored, {model!r}.", "Name another model.")


def _refuse_model(option: str, path: Path, instead: str) -> None:
    """Raise `UsageError` if `path`, given to an option for captions, is a model folder or only the name of a model."""
    if (path / CONFIG_FILE).is_file() if _exists(path) else str(path) in available_models():
        raise UsageError(f"{option} takes a file of captions, but {path} is a model.", f"Give {instead}.")


def _exists(path: Path | str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 (a Path raises for names that are too long)


def check_file_options(prepared: Path | None, images: Path | None, training: Path | None, some: bool) -> None:
    """Raise `UsageError` for options that only captions from files have."""
    if prepared and (images or training):
        extra = "--images" if images else "--training-captions"
        raise UsageError(f"{extra} goes with --hypotheses: a prepared folder knows its own.")
    if prepared and some:
        raise UsageError("--some goes with --hypotheses: a model captions all images of the split.")
