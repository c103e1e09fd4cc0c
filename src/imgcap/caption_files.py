"""Read captions to be scored, and references to score them against, from anybody's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgcap.datasets import coco_annotations, detect_format, read_flickr8k
from imgcap.errors import ImgcapError, listing
from imgcap.files import read_json, read_json_lines, read_text

Captions = dict[str, list[str]]
"""Captions by image id; in a plain text file, where lines are parallel, the id is the line's number."""

_IDS = ("image_id", "id", "image", "file_name", "path")
_TEXTS = ("caption", "captions", "text", "references")


def read_pairs(hypotheses: Path, references: list[Path]) -> tuple[list[str], list[str], list[list[str]]]:
    """Image ids, the one caption of each, and its references, in the order of the hypotheses.

    Formats: JSON Lines, COCO results and annotations JSON, Flickr8k token file, plain text with one caption a line
    (then each reference file is parallel to it). Raises `ImgcapError` naming ids that do not match.
    """
    found = read_captions(hypotheses)
    doubled = [image_id for image_id, captions in found.items() if len(captions) > 1]
    if doubled:
        raise ImgcapError(f"{hypotheses} has more than one caption for {listing(doubled)}.")
    if not found:
        raise ImgcapError(f"{hypotheses} holds no captions.")
    merged: Captions = {}
    for file in references:
        captions_by_id = read_captions(file)
        if _is_plain_text(file):
            _check_ids(found, captions_by_id, hypotheses, [file])
        for image_id, captions in captions_by_id.items():
            merged.setdefault(image_id, []).extend(captions)
    _check_ids(found, merged, hypotheses, references)
    return list(found), [captions[0] for captions in found.values()], [merged[image_id] for image_id in found]


def _check_ids(
    hypotheses: Mapping[str, object], references: Mapping[str, object], file: Path, reference_files: list[Path]
) -> None:
    names = listing([str(path) for path in reference_files])
    without = [image_id for image_id in hypotheses if image_id not in references]
    if without:
        raise ImgcapError(f"{len(without):,} captions of {file} have no reference in {names}: {listing(without)}.")
    unanswered = [image_id for image_id in references if image_id not in hypotheses]
    if unanswered:
        raise ImgcapError(f"{len(unanswered):,} pictures of {names} have no caption in {file}: {listing(unanswered)}.")


def read_captions(file: Path) -> Captions:
    """Captions by image id, in the order of the file. Raises `ImgcapError`."""
    suffix = file.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _group([(f"line {n}", row) for n, row in read_json_lines(file)], file)
    if suffix == ".json":
        data = read_json(file)
        if isinstance(data, list):
            return _group([(f"item {i}", row) for i, row in enumerate(data)], file)
        return _coco_annotations(data, file)
    if not _is_plain_text(file):
        return _by_name(file)
    text = read_text(file).removesuffix("\n")
    return {str(number): [line] for number, line in enumerate(text.split("\n"), 1)} if text else {}


def _is_plain_text(file: Path) -> bool:
    if file.suffix.lower() != ".txt":
        return False
    try:
        return detect_format(file) != "flickr8k"
    except ImgcapError:
        return True


def _by_name(file: Path) -> Captions:
    if detect_format(file) != "flickr8k":
        raise ImgcapError(f"{file} is in no format that captions are scored from.", "Use .jsonl, .json or .txt.")
    captions: Captions = {}
    for entry in read_flickr8k(file):
        captions.setdefault(entry.name, []).append(entry.caption)
    return captions


def _coco_annotations(data: Any, file: Path) -> Captions:
    captions: Captions = {}
    for image_id, _, caption in coco_annotations(data, file):
        captions.setdefault(str(image_id), []).append(caption)
    return captions


def _group(rows: list[tuple[str, Any]], file: Path) -> Captions:
    captions: Captions = {}
    for where, row in rows:
        if not isinstance(row, dict):
            raise ImgcapError(f"{file}: {where} is not a JSON object.")
        image_id = next((row[key] for key in _IDS if key in row), None)
        text = next((row[key] for key in _TEXTS if key in row), None)
        if not isinstance(image_id, (str, int)) or isinstance(image_id, bool):
            raise ImgcapError(f"{file}: {where} has no image_id.")
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise ImgcapError(f"{file}: {where} has no caption.")
        captions.setdefault(str(image_id), []).extend(texts)
    return captions
