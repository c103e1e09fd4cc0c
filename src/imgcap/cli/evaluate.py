"""`imgcap eval`: score a model on a prepared split, or captions from files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imgcap.cli import evaluate_options as given
from imgcap.cli import options
from imgcap.cli.console import counting, interruptible, print_message, print_result, print_table
from imgcap.errors import UsageError, printable
from imgcap.model.store import DEFAULT_MODEL
from imgcap.text.columns import Columns

if TYPE_CHECKING:
    from imgcap.captioning.split import CaptionedSplit
    from imgcap.distributed import World
    from imgcap.images.archived import ArchivedFile
    from imgcap.scoring.evaluation import Evaluation


@dataclass(frozen=True)
class HypothesisSet:
    """Captions to score, from files or from a model."""

    name: str
    title: str
    image_ids: Sequence[str]
    hypotheses: Sequence[str]
    references: Sequence[Sequence[str]]
    names: dict[str, list[str]]
    """Other names of each image."""
    training: Sequence[Sequence[str]] | None = None
    made_by: Sequence[str] = ()
    remarks: Sequence[str] = ()
    compared: tuple[str, Sequence[str]] | None = None
    """The name of other captions of the same images, and these captions."""
    find_images: Callable[[], Sequence[Path | ArchivedFile | None]] = field(default=tuple)
    """Finds the image of each caption, for the page; nothing if the images are not known."""
    model_folder: Path | None = None


def evaluate(
    prepared: given.Prepared = None,
    model: options.Model = DEFAULT_MODEL,
    split: given.Split = "test",
    beam_size: options.BeamSize = None,
    length_penalty: options.LengthPenalty = None,
    max_length: options.MaxLength = None,
    hypotheses: given.Hypotheses = None,
    references: given.References = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    some: given.Some = False,
    images: given.Images = None,
    training_captions: given.TrainingCaptions = None,
    compare: given.Compare = None,
    compare_model: given.CompareModel = None,
    floor: given.Floor = None,
    min_refs: given.MinReferences = 1,
    as_json: given.Json = False,
    markdown: given.Markdown = False,
    html: given.Html = None,
    per_image: given.PerImage = None,
    worst_first: given.WorstFirst = False,
    save_captions: given.SaveCaptions = None,
    overwrite: given.Overwrite = False,
    device: options.Device = None,
) -> None:
    """Score captions: BLEU-1 to BLEU-4, CIDEr-D and ROUGE-L, with intervals, floor and ceiling.

    The floor is the best single caption for all images, the ceiling the score of one person against the others.
    Captions are tokenised as in coco-caption. A signature holds everything needed to repeat the scores.
    """
    given.check_sources(prepared, hypotheses, references, save_captions)
    given.check_file_options(prepared, images, training_captions, some)
    given.check_comparison(prepared, compare, compare_model, model)
    if as_json and markdown:
        raise UsageError("--json and --markdown cannot both be printed.")
    if images and not html:
        raise UsageError("--images goes with --html.")
    outputs = given.OutputFiles(html, per_image, worst_first, save_captions, overwrite)
    columns = Columns(image_column, caption_column)
    with interruptible("Run the command again for the scores."):
        if hypotheses:
            source = given.CaptionSources(hypotheses, references or [], images, training_captions, columns, some)
            captions: HypothesisSet | None = _from_files(source, min_refs)
        else:
            assert prepared
            run = given.ModelRun(
                prepared,
                model,
                split,
                compare_model,
                options.search_overrides(beam_size=beam_size, length_penalty=length_penalty, max_length=max_length),
                save_captions,
            )
            captions = _from_model(run, device, min_refs)
        if captions is None:  # another process of torchrun reports
            return
        if compare:
            captions = replace(captions, compared=(str(compare), _read_compared(compare, captions, columns, some)))
        evaluation = _score(captions, floor)
    _write_files(outputs, captions, evaluation)
    _print(evaluation, captions.title, as_json, markdown)


def _from_files(source: given.CaptionSources, min_references: int) -> HypothesisSet:
    from imgcap.images.finder import ImageFinder
    from imgcap.scoring.caption_files import read_captions
    from imgcap.scoring.pairs import read_pairs

    pairs = read_pairs(source.hypotheses, source.references, min_references, columns=source.columns, some=source.some)
    images: list[Path | None] = []
    if source.images:
        find = ImageFinder.in_folder(source.images).find
        found = (next(filter(None, map(find, (i, *pairs.names[i]))), None) for i in pairs.image_ids)
        images = [source.images / path if path else None for path in found]
    return HypothesisSet(
        name=str(source.hypotheses),
        title=str(source.hypotheses),
        image_ids=pairs.image_ids,
        hypotheses=pairs.hypotheses,
        references=pairs.references,
        names=pairs.names,
        training=list(read_captions(source.training, source.columns).values()) if source.training else None,
        remarks=[pairs.coverage] if pairs.coverage else [],
        find_images=lambda: images,
    )


def _from_model(run: given.ModelRun, device: str | None, min_references: int) -> HypothesisSet | None:
    """The model's captions of the split; None in all processes of torchrun but the first."""
    from imgcap.captioning.split import find_images, remarks_on, signature_parts, write_captions
    from imgcap.distributed import joined
    from imgcap.scoring.pairs import check_references

    with joined(device) as world:
        found = _caption(run, run.model, world)
        image_ids = [record.image_id for record in found.records]
        references = [record.references for record in found.records]
        check_references(dict(zip(image_ids, references, strict=True)), min_references, str(run.prepared))
        if run.save_captions and world.is_first:
            write_captions(run.save_captions, found.records)
        other = _caption(run, run.compared, world) if run.compared else None
    if not world.is_first:
        return None
    return HypothesisSet(
        name=run.model,
        title=f"{run.model} on {run.split} of {run.prepared}",
        image_ids=image_ids,
        hypotheses=[record.caption for record in found.records],
        references=references,
        names={record.image_id: [record.path] for record in found.records},
        training=found.training or None,
        made_by=signature_parts(run.split, found, other),
        remarks=remarks_on(found, other),
        compared=(str(run.compared), [record.caption for record in other.records]) if other else None,
        find_images=lambda: find_images(found),
        model_folder=found.model.folder,
    )


def _caption(run: given.ModelRun, model: str, world: World) -> CaptionedSplit:
    from imgcap.captioning.split import caption_split

    with counting(f"Captioning with {model}", silent=not world.is_first) as on_progress:
        return caption_split(
            run.prepared,
            model,
            run.split,
            run.choose_search,
            world=world,
            on_progress=on_progress,
        )


def _read_compared(file: Path, captions: HypothesisSet, columns: Columns, some: bool) -> list[str]:
    from imgcap.scoring.pairs import read_hypotheses

    return read_hypotheses(file, {i: captions.names[i] for i in captions.image_ids}, columns=columns, some=some)


def _score(captions: HypothesisSet, constant: str | None) -> Evaluation:
    from imgcap.scoring.evaluation import evaluate as score

    return score(
        captions.hypotheses,
        captions.references,
        name=captions.name,
        training=captions.training,
        constant=constant,
        compared=captions.compared,
        made_by=captions.made_by,
        remarks=captions.remarks,
    )


def _write_files(outputs: given.OutputFiles, captions: HypothesisSet, evaluation: Evaluation) -> None:
    """Write all files, before anything is printed: the terminal may refuse a character or close."""
    compared = captions.compared[1] if captions.compared else None
    if outputs.per_image:
        from imgcap.scoring.image_scores import image_rows, write_image_rows

        rows = image_rows(
            captions.image_ids,
            captions.hypotheses,
            captions.references,
            evaluation,
            compared,
            worst_first=outputs.worst_first,
        )
        write_image_rows(outputs.per_image, rows)
    if outputs.html:
        from imgcap.pages.evaluation_page import write_evaluation_page
        from imgcap.training.curves import learning_curves

        write_evaluation_page(
            outputs.html,
            captions.title,
            evaluation,
            captions.image_ids,
            captions.hypotheses,
            captions.references,
            compared=compared,
            labels=_labels(captions),
            images=captions.find_images(),
            curves=learning_curves(captions.model_folder) if captions.model_folder else (),
        )


def _labels(captions: HypothesisSet) -> tuple[str, str]:
    """Short names for the captions compared with, if any, and for these captions: their files or folders."""
    names = (captions.compared[0] if captions.compared else "", captions.name)
    theirs, ours = (Path(name).name for name in names)
    return names if theirs == ours else (theirs, ours)


def _print(evaluation: Evaluation, title: str, as_json: bool, markdown: bool) -> None:
    from imgcap.scoring import score_table

    if as_json:
        print_result(json.dumps(score_table.as_json(evaluation, title)))
        for remark in evaluation.remarks:
            print_message(remark)
    elif markdown:
        print_result(score_table.markdown(evaluation, title))
    else:
        _print_tables(evaluation, title)


def _print_tables(evaluation: Evaluation, title: str) -> None:
    from imgcap.scoring import score_table

    print_result(printable(title))
    _print_table(score_table.columns(evaluation), score_table.rows(evaluation))
    if evaluation.comparison:
        _print_table(score_table.DIFFERENCE_COLUMNS, score_table.difference_rows(evaluation))
        print_result(printable(evaluation.comparison.verdict))
    for note in score_table.notes(evaluation):
        print_result(printable(note))
    print_result(printable(f"signature: {evaluation.signature}"))


def _print_table(names: list[str], body: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in body:
        table.add_row(*row)
    print_table(table, min_width=100, wrap=True)
