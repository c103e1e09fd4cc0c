"""Samples in tar archives, in WebDataset's convention."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from imgcap.dataset.records import LeftOut, Sample
from imgcap.dataset.rows import RowError, caption_keys, split_of, texts_of
from imgcap.errors import ImgcapError
from imgcap.images.archived import ArchivedFile
from imgcap.images.discovery import is_image_name
from imgcap.images.errors import ImageError
from imgcap.images.tars import archived_files
from imgcap.text.columns import Columns


def tar_samples(location: str, columns: Columns) -> Iterator[Sample | LeftOut]:
    """The samples in a tar archive: `key.jpg` with `key.txt`, a caption a line, or `key.json` beside it.

    The key is the part of a file name before its first dot. Where several images have one key, captions belong to the
    image whose name without the ending is the same, or to the one that they name whole: `key.jpg.txt`. Raises
    `ImageError` if the archive cannot be read.
    """
    images: list[ArchivedFile] = []
    texts: dict[str, list[str]] = {}  # captions, by the name of their file without its ending
    rows: dict[str, tuple[list[str], str | None]] = {}  # captions and split, likewise
    for file in archived_files(location, _is_of_sample):
        if isinstance(file, ImageError):
            if file.path == location and file.kind != "damaged":
                raise file
            yield LeftOut(file.path, str(file))
        elif is_image_name(file.member):
            images.append(file)
        else:
            stem, ending = file.member.rsplit(".", 1)
            try:
                if ending.lower() == "txt":
                    texts[stem] = _lines(file)
                else:
                    rows[stem] = _captions_and_split(file, columns)
            except ImgcapError as error:
                yield LeftOut(file.name, str(error))
    stems = Counter(_stem(image.member) for image in images)
    keys = Counter(_key(image.member) for image in images)
    for image in images:
        names = _names(image.member, stems, keys)
        captions, split = next((rows[name] for name in names if name in rows), ([], None))
        yield Sample(image, next((texts[name] for name in names if name in texts), captions), split)
    with_image = {name for image in images for name in _names(image.member, stems, keys)}
    with_captions = (*texts, *(name for name, (captions, _) in rows.items() if captions))
    for name in with_captions:
        if name not in with_image:
            several = stems[name] > 1 or keys[name] > 1
            reason = "has captions that could be of several images" if several else "has captions, but no image"
            yield LeftOut(f"{location}/{name}", reason)


def _names(member: str, stems: Counter[str], keys: Counter[str]) -> list[str]:
    """Names without ending of the caption files that belong to an image: its whole name, its stem, its key.

    A stem or key that several images share counts for none of them, as with sidecars in a folder.
    """
    stem, key = _stem(member), _key(member)
    return [member, *([stem] if stems[stem] == 1 else []), *([key] if keys[key] == 1 else [])]


def _stem(member: str) -> str:
    return member.rsplit(".", 1)[0]


def _key(member: str) -> str:
    return re.sub(r"\.[^/]*$", "", member)


def _is_of_sample(member: str) -> bool:
    return is_image_name(member) or member.lower().endswith((".txt", ".json"))


def _lines(file: ArchivedFile) -> list[str]:
    return [line.strip() for line in _text(file).split("\n") if line.strip()]


def _captions_and_split(file: ArchivedFile, columns: Columns) -> tuple[list[str], str | None]:
    """The captions in a sample's JSON, if it has any, and the split. Raises `ImgcapError`."""
    try:
        row = json.loads(_text(file))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ImgcapError(f"{file.name} is not a JSON object.")
    try:
        keys = [key for key in caption_keys(row, columns) if row[key]]
        captions = [text for text in texts_of(row, keys) if text] if keys else []
        return captions, split_of(row.get("split"))
    except RowError as error:
        raise ImgcapError(f"{file.name} {error}.") from None


def _text(file: ArchivedFile) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImgcapError(f"{file.name} is not UTF-8 text.") from None
