"""Read captions by image from files of many formats.

The ending of the file name gives the format:

    .jsonl .ndjson  one object per line, with an image and a caption or a list of captions
    .json           an array of such objects (COCO results), COCO captions (`annotations`), or Karpathy's `images`
    .csv .tsv       a header that names the columns; one caption per row, or several in caption_0, caption_1, ...
    any other       text, in one of these forms:
                    - a table, if the first line is a header as in .csv (Kaggle's captions.txt)
                    - NAME<TAB>caption in each line that is not blank, if there is a tab (`imgcap caption`); if the
                      first NAME ends in #K, all do, and #K is not part of the name (Flickr8k's token file)
                    - plain text, if there is no tab: line N of every file is about the same image

A folder has metadata.csv or metadata.jsonl, itself or in its sub-folders (imagefolder of Hugging Face), or a text file
for each image (`imgcap caption --sidecar`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from imgcap.errors import ImgcapError, listing
from imgcap.files import read_json, read_json_lines, read_text
from imgcap.images.discovery import find_images
from imgcap.images.sidecars import TEXT_SUFFIXES, SidecarPaths
from imgcap.text.columns import CAPTIONS, DETECTED, FILE_NAMES, Columns, caption_texts, cell_captions, why_no_text
from imgcap.text.tables import from_cell, parse_table

_METADATA = ("metadata.csv", "metadata.jsonl")
_NAMES_HINT = f"Name it {', '.join(FILE_NAMES[:-1])} or image_id; or use --image-column."
_CAPTIONS_HINT = f"Name it {', '.join(CAPTIONS[:-1])} or {CAPTIONS[-1]}; or use --caption-column."


class FileCaption(NamedTuple):
    """One caption of a file."""

    place: str
    """Where it is in the file, such as "line 3"."""
    image_id: str
    other_names: tuple[str, ...]
    """Other names of the image, such as its file name if the id is a number."""
    text: str | None
    """None if captioning failed or the caption was withheld."""


@dataclass(frozen=True)
class _RowColumns:
    """What the columns of a row hold."""

    image: str | None
    captions: list[str]
    other_names: list[str]
    """The file name beside an id, and COCO's id beside a file name."""

    @classmethod
    def of(cls, names: tuple[str, ...], columns: Columns) -> _RowColumns:
        image, file_name = columns.find_image(names, id_first=True), columns.find_image(names)
        others = [name for name in (file_name, "cocoid") if name in names and name != image]
        return cls(image, columns.find_captions(names), [name for name in others if name])


@dataclass(frozen=True)
class CaptionFile:
    """All captions of a file by image id, in its order."""

    file: Path
    by_id: dict[str, list[FileCaption]]
    plain: bool
    """Whether the file is plain text, and the ids are line numbers."""
    columns: frozenset[str] = frozenset()
    """Names of its columns or keys."""

    @cached_property
    def other_names(self) -> dict[str, list[str]]:
        """The other names of each image."""
        return {
            image_id: list(dict.fromkeys(name for caption in several for name in caption.other_names))
            for image_id, several in self.by_id.items()
        }


def read_caption_file(file: Path, columns: Columns = DETECTED) -> CaptionFile:
    """The captions in `file`, which may be a folder. Raises `ImgcapError` naming the line that cannot be used."""
    if file.is_dir():
        return _read_folder(file, columns)
    ending, plain = file.suffix.lower(), False
    seen: dict[tuple[str, ...], _RowColumns] = {}
    if ending in (".jsonl", ".ndjson"):
        found = _from_rows(((f"line {number}", row) for number, row in read_json_lines(file)), file, columns, seen)
    elif ending == ".json":
        found = _from_rows(_json_rows(file), file, columns, seen)
    else:
        text = read_text(file)
        if ending in (".csv", ".tsv") or _is_header(text.partition("\n")[0], columns):
            found = _from_rows(_table_rows(text, file, columns), file, columns, seen)
        elif "\t" in text:
            found = _from_named_lines(text, file)
        else:
            plain = True
            lines = text.removesuffix("\n").split("\n") if text else []
            found = (FileCaption(f"line {number}", str(number), (), line) for number, line in enumerate(lines, 1))
    by_id: dict[str, list[FileCaption]] = {}
    for caption in found:
        by_id.setdefault(caption.image_id, []).append(caption)
    if not by_id:
        raise ImgcapError(f"{file} holds no captions.")
    return CaptionFile(file, by_id, plain, frozenset(name for names in seen for name in names))


def read_captions(file: Path, columns: Columns = DETECTED) -> dict[str, list[str]]:
    """All captions in `file` by image id, in its order. Raises `ImgcapError`."""
    found = read_caption_file(file, columns)
    check_complete(found)
    return {image_id: [caption.text or "" for caption in several] for image_id, several in found.by_id.items()}


def check_complete(captions: CaptionFile) -> None:
    """Raise `ImgcapError` naming the images whose captioning failed or whose captions were withheld."""
    missing = [f"{c.image_id} ({c.place})" for several in captions.by_id.values() for c in several if c.text is None]
    if missing:
        raise ImgcapError(
            f"{captions.file} has no caption for {listing(missing)}, which failed or were withheld.",
            "Caption them, or score the others with --some.",
        )


def _read_folder(folder: Path, columns: Columns) -> CaptionFile:
    metadata = sorted(file for name in _METADATA for file in (*folder.glob(name), *folder.glob(f"*/{name}")))
    by_id: dict[str, list[FileCaption]] = {}
    seen: frozenset[str] = frozenset()
    for file in metadata:
        inside = file.parent.relative_to(folder)
        found = read_caption_file(file, columns)
        seen |= found.columns
        for caption in (each for several in found.by_id.values() for each in several):
            image_id, *others = ((inside / name).as_posix() for name in (caption.image_id, *caption.other_names))
            place = f"{file.relative_to(folder).as_posix()} {caption.place}"
            by_id.setdefault(image_id, []).append(FileCaption(place, image_id, tuple(others), caption.text))
    for caption in _sidecar_captions(folder) if not metadata else ():
        by_id.setdefault(caption.image_id, []).append(caption)
    if not by_id:
        raise ImgcapError(f"{folder} holds no captions.", f"They are in {', '.join(_METADATA)} or in sidecars.")
    return CaptionFile(folder, by_id, plain=False, columns=seen)


def _sidecar_captions(folder: Path) -> Iterator[FileCaption]:
    """One caption for each line of the sidecars in `folder`, as `imgcap prepare` reads them."""
    places = [SidecarPaths(suffix) for suffix in TEXT_SUFFIXES]
    for image in find_images(folder):
        sidecar = next((found for place in places if (found := place.find(image))), None)
        for line in read_text(sidecar).split("\n") if sidecar else ():
            if sidecar and line.strip():
                place, name = (path.relative_to(folder).as_posix() for path in (sidecar, image))
                yield FileCaption(place, name, (), line.strip())


def _from_rows(
    rows: Iterable[tuple[str, Any]], file: Path, columns: Columns, seen: dict[tuple[str, ...], _RowColumns]
) -> Iterator[FileCaption]:
    """The captions of `rows`; their columns are added to `seen`."""
    for place, row in rows:
        where = f"{file}, {place}"
        if not isinstance(row, dict):
            raise ImgcapError(f"{where} is not a JSON object.")
        names = tuple(row)
        found = seen.get(names) or seen.setdefault(names, _RowColumns.of(names, columns))
        if found.image is None:
            raise ImgcapError(f"{where} has no image id.", _NAMES_HINT)
        image_id = _image_id(row[found.image], where)
        texts = _texts(row, found.captions, where)
        others = _other_names(row, found.other_names, image_id)
        if not any(texts) and (row.get("error") or row.get("withheld")):
            yield FileCaption(place, image_id, others, None)
            continue
        if not texts:
            raise ImgcapError(f"{where} has no caption.", _CAPTIONS_HINT)
        for text in texts:
            if text is None:
                raise ImgcapError(f"{where} has a caption that is not text.")
            if reason := why_no_text(text):
                raise ImgcapError(f"{where} {reason}.")
            yield FileCaption(place, image_id, others, text)


def _texts(row: dict[str, Any], caption_columns: list[str], where: str) -> list[str | None]:
    """The captions of a row; of several columns, empty ones do not count."""
    values = [row[name] for name in caption_columns if len(caption_columns) == 1 or row[name]]
    try:
        return [text for value in values for text in caption_texts(value)]
    except ValueError:
        raise ImgcapError(f"{where} has a caption that is not text.") from None


def _other_names(row: dict[str, Any], columns: Sequence[str], image_id: str) -> tuple[str, ...]:
    if not columns:
        return ()
    texts = (str(row[name]).strip() for name in columns if isinstance(row[name], (str, int)))
    return tuple(name for name in texts if name and name != image_id)


def _image_id(value: object, where: str) -> str:
    if isinstance(value, dict):  # an image of Hugging Face's datasets
        value = value.get("path") or value.get("file_name")
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ImgcapError(f"{where} has an image id that is neither text nor a whole number.")
    image_id = str(value).strip(" \t\r\n\f\v\ufeff")
    if not image_id:
        raise ImgcapError(f"{where} has an empty image id.")
    return image_id


def _json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    data, name, rows = read_json(file), "item", None
    if isinstance(data, dict) and "annotations" in data:
        rows, name = _with_file_names(data), "annotation"
    elif isinstance(data, dict) and isinstance(data.get("images"), list):
        rows, name = [_with_folder(image) for image in data["images"]], "image"
    elif isinstance(data, list):
        rows = data
    if rows is None:
        raise ImgcapError(f"{file} holds neither an array of captions nor COCO annotations.")
    return ((f"{name} {number}", row) for number, row in enumerate(rows, 1))


def _with_file_names(data: dict[str, Any]) -> list[Any] | None:
    """COCO's annotations, each with the file name of its image (Chen et al. 2015)."""
    images, annotations = data.get("images"), data["annotations"]
    if not isinstance(annotations, list):
        return None
    known = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    names = {str(image.get("id")): image["file_name"] for image in known if isinstance(image.get("file_name"), str)}
    return [
        {**row, "file_name": names[str(row.get("image_id"))]}
        if isinstance(row, dict) and str(row.get("image_id")) in names
        else row
        for row in annotations
    ]


def _with_folder(image: Any) -> Any:
    """An image of Karpathy's JSON, the folder in its file name (Karpathy and Fei-Fei 2015)."""
    if isinstance(image, dict) and isinstance(image.get("filename"), str) and isinstance(image.get("filepath"), str):
        return {**image, "filename": f"{image['filepath']}/{image['filename']}"}
    return image


def _is_header(line: str, columns: Columns) -> bool:
    for delimiter in ",\t;|":
        names = [cell.strip(' "').lower() for cell in line.split(delimiter)]
        if columns.find_image(names) and columns.find_captions(names):
            return True
    return False


def _table_rows(text: str, file: Path, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    names, rows = parse_table(text, file)
    captions = columns.find_captions(names)
    if names and not (columns.find_image(names) and captions):
        raise ImgcapError(
            f"{file}, line 1 is not a header that names a column of image ids and one of captions: "
            f"{listing([name[:40] for name in names])}.",
            f"Known names are {', '.join(FILE_NAMES)}, image_id; {', '.join(CAPTIONS)}. Name others with "
            "--image-column and --caption-column.",
        )
    own = "error_kind" in names  # a table of `imgcap caption`
    for line, row in rows:
        cells: dict[str, Any] = {name: from_cell(cell) for name, cell in row.items()} if own else dict(row)
        yield f"line {line}", cells | {name: cell_captions(cells[name]) for name in captions if cells[name]}


def _from_named_lines(text: str, file: Path) -> Iterator[FileCaption]:
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
        image_id = _image_id(match[1] if numbered and match else name, where)
        yield FileCaption(f"line {number}", image_id, (), caption)
