"""The page that a training ends with: captions and scores before and after, and how the model was trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from imgcap.captioning.explain import evenly_spaced
from imgcap.captioning.split import CaptionedSplit, caption_rows, find_images, remarks_on, signature_parts
from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.dataset.splits import TEST, TRAIN, VAL
from imgcap.distributed import World
from imgcap.errors import ImgcapError, listing
from imgcap.model.folder import Model, load_model_folder
from imgcap.model.store import locate, start_model
from imgcap.pages.evaluation_page import write_evaluation_page
from imgcap.pages.score_page import write_score_page
from imgcap.pages.selection import GROUP_SIZE, ScoredImage
from imgcap.scoring.evaluation import Evaluation, evaluate
from imgcap.scoring.resampling import ALPHA, VERDICT_METRIC
from imgcap.text.tokenizer import words
from imgcap.text.vocabulary import SPECIAL_WORDS
from imgcap.training.curves import learning_curves
from imgcap.training.description import describe_training
from imgcap.training.settings import WORTH_TRAINING

REPORT_FILE = "report.html"

_BEFORE, _AFTER = _LABELS = ("Before", "After")
_NAMED_WORDS = 30
"""Most new words that the page lists."""


@dataclass(frozen=True)
class Report:
    """What was written."""

    file: Path
    content: str
    """What the page shows, in a sentence."""
    verdict: str | None
    """Whether the training has made the captions better; None without scores or a start model."""
    advice: str | None = None
    """What to do if the start model scores higher, or if nothing tells whether it would."""


def write_report(
    prepared: PreparedFolder,
    folder: Path,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Write a page into the model folder `folder`: captions before and after its training on `prepared`.

    The images are those of the val split, else of the test split. Without either they are training images, and the page
    has no scores. Where the start model cannot caption them, the page says why. Raises `ImgcapError`.
    """
    model = load_model_folder(folder, device)
    options = model.config.training.get("options", {})
    prepared = prepared.with_val_share(options.get("val_share", 0.0), options.get("seed", 0))
    split, rows = _choose_images(prepared)
    name = start_model(model.config.training)
    total = len(rows) * (2 if name else 1)

    def caption(model: Model, name: str, done: int) -> CaptionedSplit:
        return caption_rows(
            prepared,
            rows,
            model,
            model.config.search,
            name=name,
            world=World(device=device),
            on_progress=lambda now, _: on_progress(done + now, total),
        )

    after, before, remarks = caption(model, str(folder), 0), None, []
    if name:
        try:
            before = caption(load_model_folder(locate(name), device), name, len(rows))
        except ImgcapError as error:
            remarks.append(f"There are no captions from before the training: {error}")
    contents = _Contents(split, after, before, remarks)
    return _write_unscored(contents) if split == TRAIN else _write_scored(contents)


@dataclass(frozen=True)
class _Contents:
    """What the page shows."""

    split: str
    after: CaptionedSplit
    before: CaptionedSplit | None
    remarks: Sequence[str]

    @property
    def folder(self) -> Path:
        return self.after.model.folder

    @property
    def title(self) -> str:
        name = self.folder.resolve().name
        return f"{name} before and after its training" if self.before else f"{name} after its training"

    @property
    def compared(self) -> list[str] | None:
        return [record.caption for record in self.before.records] if self.before else None

    @property
    def content(self) -> str:
        count, kind = len(self.after.records), "training" if self.split == TRAIN else self.split
        return (
            f"{count:,} {kind} {'image with its' if count == 1 else 'images with their'} captions "
            f"{'before and after' if self.before else 'after'} the training"
        )

    @property
    def facts(self) -> list[tuple[str, str]]:
        if not self.before:
            return [("model", self.after.name)]
        return [("before", self.before.name), ("after", self.after.name), ("vocabulary", self._vocabulary(self.before))]

    def _vocabulary(self, before: CaptionedSplit) -> str:
        """How many words the training added and took away, and which of the added ones the captions have."""
        old, now = (set(captioned.model.vocabulary.words) - set(SPECIAL_WORDS) for captioned in (before, self.after))
        new = now - old
        said = sorted({word for record in self.after.records for word in words(record.caption)} & new)
        parts = [f"{len(old & now):,} words kept", f"{len(old - now):,} dropped", f"{len(new):,} new"]
        which = f": {listing(said, _NAMED_WORDS)}" if said else ""
        return ", ".join(parts) + (f", of which these captions have {len(said):,}{which}" if new else "")

    @property
    def settings(self) -> list[tuple[str, str]]:
        return describe_training(self.after.model)


def _choose_images(prepared: PreparedFolder) -> tuple[str, Rows]:
    """A split and its rows: val, else test, else some of train."""
    for split in (VAL, TEST):
        if len(rows := prepared.rows(split, may_be_empty=True)):
            return split, rows
    return TRAIN, evenly_spaced(prepared.rows(TRAIN), GROUP_SIZE)


def _write_scored(contents: _Contents) -> Report:
    """Write the page of images that the model has not learned from."""
    after, before, compared = contents.after, contents.before, contents.compared
    image_ids = [record.image_id for record in after.records]
    hypotheses = [record.caption for record in after.records]
    references = [record.references for record in after.records]
    evaluation = evaluate(
        hypotheses,
        references,
        name=after.name,
        training=[after.prepared.records[row].captions for row in after.prepared.rows(TRAIN)],
        compared=(before.name, compared) if before and compared else None,
        made_by=signature_parts(contents.split, after, before),
        remarks=[
            *contents.remarks,
            *remarks_on(after, before),
            *_cautions(contents),
        ],
    )
    advice = _advice(contents, evaluation)
    if advice:
        evaluation = replace(evaluation, remarks=(*evaluation.remarks, advice))
    write_evaluation_page(
        contents.folder / REPORT_FILE,
        contents.title,
        evaluation,
        image_ids,
        hypotheses,
        references,
        compared=compared,
        labels=_LABELS,
        images=find_images(after),
        curves=learning_curves(contents.folder),
        facts=contents.facts,
        settings=contents.settings,
    )
    verdict = evaluation.comparison.verdict if evaluation.comparison else None
    return Report(contents.folder / REPORT_FILE, f"{contents.content}.", verdict, advice)


def _advice(contents: _Contents, evaluation: Evaluation) -> str | None:
    """What to do if the start model scores higher: it goes no further than the verdict."""
    before, comparison = contents.before, evaluation.comparison
    if not before or not comparison or (difference := comparison.differences[VERDICT_METRIC]).value >= 0:
        return None
    options = contents.after.model.config.training.get("options", {})
    has_all_words = options.get("keep_words") or options.get("self_critical")
    again = f"train again on more images{'' if has_all_words else ', or with --keep-words'}"
    if difference.p < ALPHA:
        return f"Use {before.name} as it is, or {again}."
    choose = f"Compare the captions on the page before you choose, or {again}."
    return " ".join(filter(None, [_doubt(contents), choose]))


def _doubt(contents: _Contents) -> str:
    """A sentence on whether so few training images can have improved the start model, or ""."""
    images = len(contents.after.prepared.rows(TRAIN))
    if not contents.before or images >= WORTH_TRAINING:
        return ""
    return (
        f"{images:,} training image{' is' if images == 1 else 's are'} few: in imgcap's measurements, {WORTH_TRAINING} "
        "images of what a model did not know made it better than its start, and 50 did not."
    )


def _cautions(contents: _Contents) -> list[str]:
    """A sentence on val images that chose the epoch, and on what to do about it."""
    after, before = contents.after, contents.before
    options = after.model.config.training.get("options", {})
    if contents.split != VAL or not options.get("patience", True):
        return []
    found = "The val images also chose the epoch, which raises the scores after the training a little."
    if before and len(after.prepared.rows(TEST, may_be_empty=True)):
        compare = f"imgcap eval {after.prepared.root} --model {after.name} --compare-model {before.name}"
        found += f" The test images did not: `{compare}` compares the two models on them."
    return [found]


def _write_unscored(contents: _Contents) -> Report:
    """Write the page of images that the model has learned from: scores would only measure its memory."""
    after, compared = contents.after, contents.compared
    images = [
        ScoredImage(
            image_id=record.image_id,
            caption=record.caption,
            references=record.references,
            cider_d=math.nan,
            bleu_4=math.nan,
            rouge_l=math.nan,
            image=image,
            compared=compared[i] if compared else None,
        )
        for i, (record, image) in enumerate(zip(after.records, find_images(after), strict=True))
    ]
    unscored = (
        f"There are no scores, because there is no val or test split: {after.name} has learned from what is shown. "
        "Expect worse captions of other images."
    )
    doubt = _doubt(contents)
    write_score_page(
        contents.folder / REPORT_FILE,
        title=contents.title,
        measures=[],
        facts=contents.facts,
        images=images,
        labels=_LABELS if compared else None,
        curves=learning_curves(contents.folder),
        settings=contents.settings,
        verdict=unscored,
        notes=[*contents.remarks, *filter(None, [doubt])],
    )
    return Report(contents.folder / REPORT_FILE, f"{contents.content}. {unscored}", None, doubt or None)
