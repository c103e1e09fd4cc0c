"""`imgcap eval`: score a model on a prepared split, or anybody's captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.cli import options, score_table
from imgcap.cli.console import counting, interruptible
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import make_folder
from imgcap.model.store import DEFAULT_MODEL

if TYPE_CHECKING:
    from imgcap.dataset.prepared import PreparedFolder
    from imgcap.distributed import World
    from imgcap.images.archives import ArchivedFile
    from imgcap.model.search import SearchOptions
    from imgcap.scoring.evaluation import Evaluation

FILES, TRUST = "Captions from files", "Trust"


@dataclass(frozen=True)
class _Captions:
    """Captions to be scored, wherever they come from."""

    name: str
    title: str
    image_ids: Sequence[str]
    hypotheses: Sequence[str]
    references: Sequence[Sequence[str]]
    training: Sequence[Sequence[str]] | None = None
    made_by: Sequence[str] = ()
    images: Callable[[], Sequence[Path | ArchivedFile | None]] = tuple
    """Finds the image of each caption, for the page that shows them; nothing if there are none."""
    model_folder: Path | None = None


def evaluate(
    prepared: Annotated[
        Path | None, typer.Argument(help="Folder written by `imgcap prepare`.", show_default=False)
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    split: Annotated[str, typer.Option(help="Split to score: train, val or test.")] = "test",
    beam_size: options.BeamSize = None,
    length_penalty: options.LengthPenalty = None,
    max_length: options.MaxLength = None,
    hypotheses: Annotated[
        Path | None,
        typer.Option(
            help="Score these captions instead of a model's: JSON Lines, JSON, CSV, or .txt lines.",
            rich_help_panel=FILES,
        ),
    ] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            help="References: JSON Lines, COCO JSON, CSV, Flickr8k token file, or .txt parallel to the captions. "
            "Repeat it.",
            rich_help_panel=FILES,
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, for --html.", rich_help_panel=FILES)
    ] = None,
    training_captions: Annotated[
        Path | None,
        typer.Option(
            help="Captions that the writer of --hypotheses has learned from: one of them is the floor's, and copies "
            "of them are counted.",
            rich_help_panel=FILES,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Other captions of the same images: are they better or worse?", rich_help_panel=TRUST),
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(
            metavar="CAPTION",
            help="The caption said of every image; by default the one with the highest BLEU-4.",
            rich_help_panel=TRUST,
        ),
    ] = None,
    min_refs: Annotated[
        int, typer.Option(help="Fewest references that each image must have.", rich_help_panel=TRUST)
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=options.OUTPUT)
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table for a README.", rich_help_panel=options.OUTPUT)
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write one page with plots and images.", rich_help_panel=options.OUTPUT)
    ] = None,
    per_image: Annotated[
        Path | None,
        typer.Option(help="Write each image's scores to .jsonl or .csv, best first.", rich_help_panel=options.OUTPUT),
    ] = None,
    worst_first: Annotated[
        bool, typer.Option("--worst-first", help="Turn --per-image round.", rich_help_panel=options.OUTPUT)
    ] = False,
    save_captions: Annotated[
        Path | None,
        typer.Option(help="Write the model's captions to this file, as JSON Lines.", rich_help_panel=options.OUTPUT),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace output files.", rich_help_panel=options.OUTPUT)
    ] = False,
    device: options.Device = None,
) -> None:
    """Score captions: BLEU-1 to BLEU-4, CIDEr-D and ROUGE-L with their intervals, between floor and ceiling.

    The floor is the best caption that never looks at an image, the ceiling what one person scores against the others.
    Captions are tokenised as coco-caption tokenises them; a signature says all that it takes to repeat the scores.
    """
    _check_calls(prepared, hypotheses, references, images, training_captions, save_captions)
    if as_json and markdown:
        raise UsageError("--json and --markdown cannot both be printed.")
    if (worst_first and not per_image) or (images and not html):
        raise UsageError("--worst-first goes with --per-image, --images with --html.")
    _check_outputs([file for file in (html, per_image, save_captions) if file], overwrite)
    if per_image and per_image.suffix.lower() not in (".jsonl", ".csv"):
        raise UsageError(f"{per_image} is neither .jsonl nor .csv.", "--per-image writes these two.")
    from imgcap.distributed import joined
    from imgcap.scoring.caption_files import read_hypotheses
    from imgcap.scoring.evaluation import evaluate as score

    with interruptible("Nothing was written."):
        if hypotheses:
            captions = _from_files(hypotheses, references or [], images, training_captions, min_refs)
        else:
            assert prepared
            with joined(device) as world:
                captions = _from_model(
                    prepared,
                    model,
                    split,
                    options.search_overrides(beam_size=beam_size, length_penalty=length_penalty, max_length=max_length),
                    world,
                    min_refs,
                    save_captions,
                )
            if not world.is_first:
                return
        compared = read_hypotheses(compare, list(captions.image_ids)) if compare else None
        evaluation = score(
            captions.hypotheses,
            captions.references,
            name=captions.name,
            training=captions.training,
            constant=floor,
            compared=(str(compare), compared) if compared else None,
            made_by=captions.made_by,
        )
    if as_json:
        print(json.dumps(score_table.as_json(evaluation, captions.title)))
    elif markdown:
        print(score_table.markdown(evaluation, captions.title))
    else:
        score_table.print_table(evaluation, captions.title)
    if per_image:
        from imgcap.scoring.image_scores import image_rows, write_image_rows

        rows = image_rows(
            captions.image_ids, captions.hypotheses, captions.references, evaluation, compared, worst_first=worst_first
        )
        write_image_rows(per_image, rows)
    if html:
        _write_page(html, captions, evaluation, compared)


def _check_calls(
    prepared: Path | None,
    hypotheses: Path | None,
    references: list[Path] | None,
    images: Path | None,
    training_captions: Path | None,
    save_captions: Path | None,
) -> None:
    """Raise `UsageError` for options that do not go together."""
    if (prepared is None) == (hypotheses is None):
        raise UsageError("Give either a prepared folder or --hypotheses and --references.")
    if (hypotheses is None) != (not references):
        raise UsageError("--hypotheses and --references need each other.")
    if hypotheses and save_captions:
        raise UsageError("--save-captions goes with a prepared folder and a model.")
    if prepared and (images or training_captions):
        extra = "--images" if images else "--training-captions"
        raise UsageError(f"{extra} goes with --hypotheses: a prepared folder knows its own.")


def _check_outputs(files: list[Path], overwrite: bool) -> None:
    """Raise `ImgcapError` rather than lose what is there, or learn after minutes that it cannot be written."""
    for file in files:
        if files.count(file) > 1:
            raise UsageError(f"{file} cannot hold two things.")
        if file.is_dir() or (file.exists() and not overwrite):
            hint = "Give another file" + ("." if file.is_dir() else ", or replace it with --overwrite.")
            raise ImgcapError(f"{file} is there already.", hint)
        make_folder(file.absolute().parent)


def _from_files(
    hypotheses: Path, references: list[Path], image_folder: Path | None, training: Path | None, min_refs: int
) -> _Captions:
    from imgcap.images.finder import ImageFinder
    from imgcap.scoring.caption_files import read_captions, read_pairs

    pairs = read_pairs(hypotheses, references, min_refs)
    images: list[Path | None] = []
    if image_folder:
        found = map(ImageFinder.in_folder(image_folder).find, pairs.image_ids)
        images = [image_folder / path if path else None for path in found]
    return _Captions(
        name=str(hypotheses),
        title=str(hypotheses),
        image_ids=pairs.image_ids,
        hypotheses=pairs.hypotheses,
        references=pairs.references,
        training=list(read_captions(training).values()) if training else None,
        images=lambda: images,
    )


def _from_model(
    prepared: Path,
    model: str,
    split: str,
    choose_options: Callable[[SearchOptions], SearchOptions],
    world: World,
    min_refs: int,
    save_captions: Path | None,
) -> _Captions:
    from imgcap.captioning.split import caption_split, write_captions
    from imgcap.scoring.caption_files import check_references

    progress, on_progress = counting("Captioning", silent=not world.is_first)
    with progress:
        found = caption_split(prepared, model, split, choose_options, world=world, on_progress=on_progress)
    image_ids = [record.image_id for record in found.records]
    references = [record.references for record in found.records]
    check_references(dict(zip(image_ids, references, strict=True)), min_refs, str(prepared))
    if save_captions and world.is_first:
        write_captions(save_captions, found.records)
    search = found.search
    return _Captions(
        name=model,
        title=f"{model} on {split} of {prepared}",
        image_ids=image_ids,
        hypotheses=[record.caption for record in found.records],
        references=references,
        training=found.training or None,
        made_by=[
            f"model:{found.model.config.name}@{found.model.hash}",
            f"split:{split}",
            f"beam:{search.beam_size}",
            f"length_penalty:{search.length_penalty:g}",
            f"max_length:{search.max_length}",
        ],
        images=lambda: [_image(found.prepared, record.path) for record in found.records],
        model_folder=found.model.folder,
    )


def _image(prepared: PreparedFolder, path: str) -> Path | ArchivedFile | None:
    from imgcap.images.errors import ImageError

    try:
        return prepared.source(path)
    except ImageError:  # its archive has gone, and its scores can be shown without it
        return None


def _write_page(file: Path, captions: _Captions, evaluation: Evaluation, compared: Sequence[str] | None) -> None:
    from imgcap.pages.interval_plot import Measure
    from imgcap.pages.score_page import ScoredImage, write_score_page
    from imgcap.scoring.scores import METRICS
    from imgcap.training.trainer import learning_curves

    comparison, ceiling = evaluation.comparison, evaluation.ceiling
    shown = captions.images()
    by_image = evaluation.images
    measures = [
        Measure(
            name=title,
            value=evaluation.scores.metrics[name],
            low=evaluation.intervals[name][0],
            high=evaluation.intervals[name][1],
            floor=evaluation.floor.metrics[name],
            ceiling=ceiling.metrics[name] if ceiling else None,
            compared=comparison.scores.metrics[name] if comparison else None,
            top=10.0 if name == "cider_d" else 1.0,
        )
        for name, title in METRICS.items()
    ]
    images = [
        ScoredImage(
            image_id=image_id,
            caption=captions.hypotheses[i],
            references=tuple(captions.references[i]),
            cider_d=float(by_image.cider_d[i]),
            bleu_4=float(by_image.bleu_4[i]),
            rouge_l=float(by_image.rouge_l[i]),
            image=shown[i] if shown else None,
            compared=compared[i] if compared else None,
        )
        for i, image_id in enumerate(captions.image_ids)
    ]
    write_score_page(
        file,
        title=captions.title,
        measures=measures,
        facts=[*score_table.facts(evaluation), ("signature", evaluation.signature)],
        images=images,
        curves=learning_curves(captions.model_folder) if captions.model_folder else None,
        verdict=comparison.verdict if comparison else None,
        notes=score_table.notes(evaluation),
    )
