"""Read captions to be scored, and references to score them against, from anybody's files.

The ending of a file's name tells its format:

    .jsonl .ndjson  an object a line, with an image id and a caption or a list of captions
    .json           an array of such objects (COCO results), or an object whose `annotations` are one (COCO captions)
    .csv .tsv       a header that names the columns, and a row a caption, or several in caption_0, caption_1 and so on
    any other       text, which its content tells apart:
                    - its first line is a header as in .csv: a table (Kaggle's captions.txt)
                    - it holds a tab: NAME<TAB>caption in each line that is not blank, as `imgcap caption` prints; if
                      the first NAME ends in #K, all do, and #K is no part of the id (Flickr8k's token file)
                    - it holds none: plain text, where line N of every file is about the same image

Ids are compared as they are written, but for white space around them; the number 7 and the text "7" are the same id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.files import read_json, read_json_lines, read_text
from imgcap.text.tables import from_cell, parse_table

# Of several the first counts; `id` may as well number the rows.
_IDS = ("image_id", "image", "image_name", "image_path", "file_name", "filename", "path", "file", "id")
_CAPTIONS = ("caption", "captions", "text", "comment", "reference", "references")

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What JSON can escape, but no text holds: NUL and halves of characters."""
_COMPARED = "the captions to compare with"


@dataclass(frozen=True)
class Pairs:
    """Images in the order of the hypotheses: for each its id, its one caption, and its references."""

    image_ids: list[str]
    """In plain text, the numbers of the lines."""
    hypotheses: list[str]
    references: list[list[str]]


class _Caption(NamedTuple):
    place: str
    """Where in the file it stands: "line 3"."""
    image_id: str
    text: str | None
    """None if the image failed or its caption was withheld."""


@dataclass(frozen=True)
class _Captions:
    file: Path
    by_id: dict[str, list[_Caption]]
    plain: bool
    """Whether the file is plain text, and the ids are the numbers of its lines."""


def read_pairs(hypotheses: Path, references: list[Path], min_references: int = 1) -> Pairs:
    """One caption of each image of `hypotheses`, and what all files of `references` hold for it.

    A caption may be empty, a reference not. Raises `UsageError` for less than one reference, and `ImgcapError` naming
    the ids that are missing on either side, have several captions, or fewer than `min_references`.
    """
    captions = _read(hypotheses)
    texts = _one_each(captions)
    merged: dict[str, list[str]] = {}
    for file in references:
        found = _read(file)
        if captions.plain or found.plain:
            _check_lines(captions, len(found.by_id), found.plain, str(file))
        for image_id, several in found.by_id.items():
            merged.setdefault(image_id, []).extend(_reference(caption, file) for caption in several)
    names = listing([str(file) for file in references])
    _check_ids(hypotheses, texts, merged, names)
    matched = {image_id: merged[image_id] for image_id in texts}
    check_references(matched, min_references, names)
    return Pairs(list(texts), list(texts.values()), list(matched.values()))


def check_references(references: Mapping[str, Sequence[str]], minimum: int, where: str) -> None:
    """Raise `ImgcapError` naming the images of `where` with fewer than `minimum` references, by image id.

    Raises `UsageError` if `minimum` is less than 1.
    """
    if minimum < 1:
        raise UsageError(f"The lowest number of references must be at least 1, not {minimum}.")
    few = [f"{image_id} ({len(captions)})" for image_id, captions in references.items() if len(captions) < minimum]
    if few:
        raise ImgcapError(f"Fewer than {minimum} references in {where} for {listing(few)}.")


def read_hypotheses(file: Path, image_ids: list[str]) -> list[str]:
    """The one caption in `file` of each of the images, in their order, for comparison with `Pairs` of these ids.

    Raises `ImgcapError` as `read_pairs` does.
    """
    captions = _read(file)
    texts = _one_each(captions)
    if captions.plain:
        numbered = image_ids == [str(number) for number in range(1, len(image_ids) + 1)]
        _check_lines(captions, len(image_ids), numbered, _COMPARED)
    _check_ids(file, texts, dict.fromkeys(image_ids), _COMPARED)
    return [texts[image_id] for image_id in image_ids]


def read_captions(file: Path) -> dict[str, list[str]]:
    """All captions in `file` by image id, in its order. Raises `ImgcapError`."""
    return {image_id: [caption.text or "" for caption in several] for image_id, several in _read(file).by_id.items()}


def _one_each(captions: _Captions) -> dict[str, str]:
    doubled = [
        f"{image_id} ({listing(list(dict.fromkeys(caption.place for caption in several)))})"
        for image_id, several in captions.by_id.items()
        if len(several) > 1
    ]
    if doubled:
        raise ImgcapError(f"{captions.file} has more than one caption for {listing(doubled)}.")
    return {image_id: caption.text or "" for image_id, (caption,) in captions.by_id.items()}


def _reference(caption: _Caption, file: Path) -> str:
    if not caption.text or caption.text.isspace():
        raise ImgcapError(f"{file}, {caption.place} has an empty reference for {caption.image_id}.", "Leave it out.")
    return caption.text


def _check_lines(captions: _Captions, count: int, other_is_plain: bool, other: str) -> None:
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


def _check_ids(file: Path, captions: Collection[str], known: Collection[str], other: str) -> None:
    unknown = [image_id for image_id in captions if image_id not in known]
    missing = [image_id for image_id in known if image_id not in captions]
    if len(unknown) == len(captions):
        raise ImgcapError(
            f"{file} and {other} have no image id in common.",
            f"Ids are compared as they are written: {unknown[0]!r} beside {missing[0]!r}." if missing else "",
        )
    if unknown:
        raise ImgcapError(f"{file} has captions of images that are not in {other}: {listing(unknown)}.")
    if missing:
        raise ImgcapError(f"{file} has no caption for {listing(missing)}.", f"They are in {other}.")


def _read(file: Path) -> _Captions:
    ending, plain = file.suffix.lower(), False
    if ending in (".jsonl", ".ndjson"):
        found = _from_rows(((f"line {number}", row) for number, row in read_json_lines(file)), file)
    elif ending == ".json":
        found = _from_rows(_json_rows(file), file)
    else:
        text = read_text(file)
        if ending in (".csv", ".tsv") or _is_header(text.partition("\n")[0]):
            found = _from_rows(_table_rows(text, file), file)
        elif "\t" in text:
            found = _from_named_lines(text, file)
        else:
            plain = True
            lines = text.removesuffix("\n").split("\n") if text else []
            found = (_Caption(f"line {number}", str(number), line) for number, line in enumerate(lines, 1))
    by_id: dict[str, list[_Caption]] = {}
    for caption in found:
        by_id.setdefault(caption.image_id, []).append(caption)
    if not by_id:
        raise ImgcapError(f"{file} holds no captions.")
    without = [f"{c.image_id} ({c.place})" for several in by_id.values() for c in several if c.text is None]
    if without:
        raise ImgcapError(
            f"{file} has no caption for {listing(without)}, which failed or were withheld.",
            "Caption them, or leave them out on both sides.",
        )
    return _Captions(file, by_id, plain)


def _from_rows(rows: Iterable[tuple[str, Any]], file: Path) -> Iterator[_Caption]:
    for place, row in rows:
        where = f"{file}, {place}"
        if not isinstance(row, dict):
            raise ImgcapError(f"{where} is not a JSON object.")
        id_key, caption_keys = _keys(tuple(row))
        if id_key is None:
            raise ImgcapError(f"{where} has no image id.", f"Name it {', '.join(_IDS[:-1])} or {_IDS[-1]}.")
        image_id = _image_id(row[id_key], where)
        values = [row[key] for key in caption_keys if len(caption_keys) == 1 or row[key]]
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        if not any(texts) and (row.get("error") or row.get("withheld")):
            yield _Caption(place, image_id, None)
            continue
        if not texts:
            raise ImgcapError(f"{where} has no caption.", f"Name it {', '.join(_CAPTIONS[:-1])} or {_CAPTIONS[-1]}.")
        for text in texts:
            if not isinstance(text, str):
                raise ImgcapError(f"{where} has a caption that is not text.")
            if broken := _NO_TEXT.search(text):
                raise ImgcapError(f"{where} has a caption with U+{ord(broken[0]):04X} in it, which no text can hold.")
            yield _Caption(place, image_id, text)


@lru_cache
def _keys(names: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Which of a row's names is the image id's, and which are those of captions."""
    image_id = next((name for name in _IDS if name in names), None)
    for wanted in _CAPTIONS:
        if found := [name for name in names if re.fullmatch(rf"{wanted}([ _-]?\d+)?", name)]:
            return image_id, found
    return image_id, []


def _image_id(value: object, where: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ImgcapError(f"{where} has an image id that is neither text nor a whole number.")
    image_id = str(value).strip()
    if not image_id:
        raise ImgcapError(f"{where} has an empty image id.")
    return image_id


def _json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    data, name = read_json(file), "item"
    if isinstance(data, dict) and "annotations" in data:
        data, name = data["annotations"], "annotation"
    if not isinstance(data, list):
        raise ImgcapError(f"{file} holds neither an array of captions nor COCO annotations.")
    return ((f"{name} {number}", row) for number, row in enumerate(data, 1))


def _is_header(line: str) -> bool:
    for delimiter in ",\t;|":
        image_id, captions = _keys(tuple(cell.strip(' "').lower() for cell in line.split(delimiter)))
        if image_id and captions:
            return True
    return False


def _table_rows(text: str, file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    columns, rows = parse_table(text, file)
    image_id, captions = _keys(tuple(columns))
    if columns and not (image_id and captions):
        raise ImgcapError(
            f"{file}, line 1 is not a header that names a column of image ids and one of captions: "
            f"{listing([name[:40] for name in columns])}.",
            f"Known names are {', '.join(_IDS)}; {', '.join(_CAPTIONS)}.",
        )
    if "error_kind" in columns:
        for line, row in rows:
            yield f"line {line}", {name: from_cell(cell) for name, cell in row.items()}
    else:
        yield from ((f"line {line}", row) for line, row in rows)


def _from_named_lines(text: str, file: Path) -> Iterator[_Caption]:
    numbered = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        match = re.fullmatch(r"(.+)#\d+", name)
        numbered = bool(match) if numbered is None else numbered
        where = f"{file}, line {number}"
        if not tab or (numbered and not match):
            raise ImgcapError(
                f"{where} is not {'NAME#K' if numbered else 'NAME'}<TAB>caption.",
                "Plain text, one caption a line, must not hold any tab.",
            )
        yield _Caption(f"line {number}", _image_id(match[1] if numbered and match else name, where), caption)
