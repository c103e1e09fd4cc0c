"""Captions to be scored, each with the references of its image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.scoring.caption_files import CaptionFile, FileCaption, check_complete, read_caption_file
from imgcap.scoring.matching import ImageIndex, several_images
from imgcap.text.columns import DETECTED, Columns

_COMPARED = "the captions to compare with"


@dataclass(frozen=True)
class Pairs:
    """Images in the order of the hypotheses: the id, the one caption and the references of each."""

    image_ids: list[str]
    """Line numbers, in plain text."""
    hypotheses: list[str]
    references: list[list[str]]
    names: dict[str, list[str]] = field(default_factory=dict, compare=False)
    """Other names of each image."""
    coverage: str = field(default="", compare=False)
    """One sentence on how many of the images are scored, if that may be some of them; else ""."""


def read_pairs(
    hypotheses: Path,
    references: Sequence[Path],
    min_references: int = 1,
    *,
    columns: Columns = DETECTED,
    some: bool = False,
) -> Pairs:
    """One caption of each image in `hypotheses`, and all captions of it in the files of `references`.

    A caption may be empty, a reference not. With `some`, images that lack a caption or references are left out.
    Raises `UsageError` if `min_references` is less than 1, and `ImgcapError` naming the images that lack a caption or
    references, have several captions, or have fewer than `min_references`.
    """
    ours = read_caption_file(hypotheses, columns)
    captions = _one_each(ours, some)
    merged: dict[str, list[str]] = {}
    names = {image_id: list(caption.other_names) for image_id, caption in captions.items()}
    missing: list[str] = []
    known = [read_caption_file(file, columns) for file in references]
    _check_columns(columns, [ours, *known])
    for file, theirs in zip(references, known, strict=True):
        check_complete(theirs)
        if ours.plain or theirs.plain:
            _check_lines(ours, len(theirs.by_id), theirs.plain, str(file))
        matches = _match(captions, theirs.other_names, str(hypotheses), str(file))
        for image_id, reference_id in matches.items():
            names[image_id] += [reference_id, *theirs.other_names[reference_id]]
            merged.setdefault(image_id, []).extend(_reference(each, file) for each in theirs.by_id[reference_id])
        matched = set(matches.values())
        missing += [image_id for image_id in theirs.by_id if image_id not in matched]
    missing = list(dict.fromkeys(missing))
    where = listing([str(file) for file in references])
    if not some or not merged:
        _check_ids(hypotheses, captions, merged, missing, where)
    scored = {image_id: merged[image_id] for image_id in captions if image_id in merged}
    check_references(scored, min_references, where)
    return Pairs(
        image_ids=list(scored),
        hypotheses=[captions[image_id].text or "" for image_id in scored],
        references=list(scored.values()),
        names={image_id: names[image_id] for image_id in scored},
        coverage=_coverage(len(scored), len(missing), len(captions) - len(scored)) if some else "",
    )


def read_hypotheses(
    file: Path, names: Mapping[str, Iterable[str]], *, columns: Columns = DETECTED, some: bool = False
) -> list[str]:
    """The one caption in `file` of each of the images, in their order.

    `names` holds the other names of each image id, as `Pairs` has them. With `some`, captions of other images are
    left out. Raises `ImgcapError` as `read_pairs` does.
    """
    ours = read_caption_file(file, columns)
    captions = _one_each(ours, some)
    if ours.plain:
        numbered = list(names) == [str(number) for number in range(1, len(names) + 1)]
        _check_lines(ours, len(names), numbered, _COMPARED)
    matches = _match(captions, names, str(file), _COMPARED)
    texts = {known: captions[image_id].text or "" for image_id, known in matches.items()}
    missing = [image_id for image_id in names if image_id not in texts]
    if missing or not some:
        _check_ids(file, captions, matches, missing, _COMPARED)
    return [texts[image_id] for image_id in names]


def check_references(references: Mapping[str, Sequence[str]], minimum: int, where: str) -> None:
    """Raise `ImgcapError` naming the images of `where` with fewer than `minimum` references, by image id.

    Raises `UsageError` if `minimum` is less than 1.
    """
    if minimum < 1:
        raise UsageError(f"The lowest number of references must be at least 1, not {minimum}.")
    few = [f"{image_id} ({len(captions)})" for image_id, captions in references.items() if len(captions) < minimum]
    if few:
        raise ImgcapError(f"Fewer than {minimum} references in {where} for {listing(few)}.")


def _check_columns(columns: Columns, files: Sequence[CaptionFile]) -> None:
    """Raise `UsageError` if a named column is in none of `files`."""
    found = sorted({name for file in files for name in file.columns})
    if missing := columns.missing_from(found):
        raise UsageError(f"No file has a column {missing[0]!r}.", f"Columns are {listing(found) or 'not there'}.")


def _one_each(captions: CaptionFile, some: bool) -> dict[str, FileCaption]:
    """The one caption of each image; with `some`, images without a caption are left out."""
    if not some:
        check_complete(captions)
    doubled = [
        f"{image_id} ({listing(list(dict.fromkeys(caption.place for caption in several)))})"
        for image_id, several in captions.by_id.items()
        if len(several) > 1
    ]
    if doubled:
        raise ImgcapError(f"{captions.file} has more than one caption for {listing(doubled)}.")
    return {image_id: caption for image_id, (caption,) in captions.by_id.items() if caption.text is not None}


def _match(
    captions: Mapping[str, FileCaption], known: Mapping[str, Iterable[str]], file: str, where: str
) -> dict[str, str]:
    """The known image of each caption, by the id in `file`; images of `where` by id and other names."""
    matches = {image_id: image_id for image_id in captions if image_id in known}
    rest = [caption for image_id, caption in captions.items() if image_id not in matches]
    if not rest:
        return matches
    index = ImageIndex(
        known, where, (name for each in captions.values() for name in (each.image_id, *each.other_names))
    )
    exact = set(matches)
    found: dict[str, str] = {}
    for caption in rest:
        match = index.find(caption.image_id, caption.other_names)
        if match is None or match in exact:
            continue
        if match in found:
            raise several_images(match, [found[match], caption.image_id], file)
        found[match] = caption.image_id
    return matches | {image_id: match for match, image_id in found.items()}


def _reference(caption: FileCaption, file: Path) -> str:
    if not caption.text or caption.text.isspace():
        raise ImgcapError(f"{file}, {caption.place} has an empty reference for {caption.image_id}.", "Leave it out.")
    return caption.text


def _check_lines(captions: CaptionFile, count: int, other_is_plain: bool, other: str) -> None:
    if captions.plain != other_is_plain:
        plain, named = (captions.file, other) if captions.plain else (other, captions.file)
        raise ImgcapError(
            f"{plain} is plain text without image ids, unlike {named}.", "Give ids on both sides, or on neither."
        )
    if len(captions.by_id) != count:
        raise ImgcapError(
            f"{captions.file} and {other} differ in their numbers of lines: {len(captions.by_id):,} and {count:,}.",
            "Line N of each plain text file is about the same image.",
        )


def _check_ids(
    file: Path, captions: Mapping[str, FileCaption], matched: Iterable[str], missing: list[str], where: str
) -> None:
    """Raise `ImgcapError` unless each caption has its image, and each image its caption."""
    known = set(matched)
    unknown = [image_id for image_id in captions if image_id not in known]
    if unknown and len(unknown) == len(captions):
        example = f"For example {unknown[0]!r} beside {missing[0]!r}." if missing else ""
        raise ImgcapError(f"{file} and {where} have no image id in common.", _other_folder(unknown, missing) or example)
    if unknown:
        raise ImgcapError(
            f"{file} has captions of images that are not in {where}: {listing(unknown)}.",
            _other_folder(unknown, missing) or "Score the others with --some.",
        )
    if missing:
        raise ImgcapError(
            f"{file} has no caption for {listing(missing)}.", f"They are in {where}; score the others with --some."
        )


def _other_folder(unknown: list[str], missing: list[str]) -> str:
    """A hint if an unknown image has the file name of a missing one in another folder."""
    index = ImageIndex(dict.fromkeys(missing, ()), "")
    for image_id in unknown:
        other = index.same_file_name(image_id)
        if other and "/" in image_id + other:
            return f"{image_id!r} and {other!r} are in different folders."
    return ""


def _coverage(scored: int, missing: int, without_references: int) -> str:
    sentence = f"Scored {scored:,} of {scored + missing:,} images with references"
    if without_references:
        noun = "caption" if without_references == 1 else "captions"
        sentence += f"; left out {without_references:,} {noun} of images without references"
    return f"{sentence}."
