"""Read captioned data sets in the formats that people have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.files import read_json, read_json_lines, read_text
from imgcap.picture_files import PictureFinder, find_images, is_image_name, no_pictures
from imgcap.tables import parse_table
from imgcap.tokenizer import words

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "restval": TRAIN,  # Karpathy's name for COCO validation pictures that join the training split
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
}

VAL_SHARE = TEST_SHARE = 0.1
"""Share of the pictures in each held-out split when the data set brings no splits of its own."""

_IMAGE_COLUMNS = ("image", "file_name", "filename", "image_name", "image_path", "path", "file", "image_id")
_CAPTION_COLUMNS = ("caption", "captions", "text", "comment")


@dataclass(frozen=True)
class Record:
    """One captioned picture: `path` is relative to the data set's picture folder, `split` None if it is in none."""

    image_id: str
    path: str
    captions: tuple[str, ...]
    split: str | None


@dataclass(frozen=True)
class LeftOut:
    """Something the data set names that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A captioned data set: its picture folder, its records in a fixed order, and what had to be left out."""

    root: Path
    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Entry:
    """One caption as its file has it: the picture's name there, the caption, and the split if the file says."""

    name: str
    caption: str
    split: str | None = None


def read_dataset(
    images: Path, captions: Path, format_name: str | None = None, split_files: Mapping[str, Path] | None = None
) -> Dataset:
    """Match the captions in `captions` (a file or folder) with the pictures under `images`.

    `format_name` is one of `FORMATS`, or None to detect it. `split_files` maps split names to files with one picture
    name a line; without them the splits come from the caption file, or, if it has none, from a hash of each picture's
    name (80 / 10 / 10 %). Raises `ImgcapError` or `UsageError`.
    """
    if not images.is_dir():
        raise ImgcapError(f"The picture folder {images} does not exist.")
    if not captions.exists():
        raise ImgcapError(f"The caption file {captions} does not exist.")
    format_name = format_name or detect_format(captions)
    if format_name not in FORMATS:
        raise UsageError(f"Unknown caption format {format_name!r}.", f"Known formats: {', '.join(FORMATS)}.")
    finder = PictureFinder(images)
    if not finder.paths:
        raise no_pictures(images)

    grouped: dict[str, list[Entry]] = {}  # by path relative to `images`, in the order of the caption file
    left_out: dict[str, str] = {}
    for entry in FORMATS[format_name](captions):
        path = finder.find(entry.name)
        if path is None:
            left_out[entry.name] = _why_not_found(entry.name)
        elif words(entry.caption):
            grouped.setdefault(path, []).append(entry)
        else:
            left_out.setdefault(entry.name, "has an empty caption")
    if not grouped:
        hint = f"It names {listing(list(left_out), 3)}." if left_out else "It has no captions."
        raise ImgcapError(f"No caption in {captions} belongs to a picture in {images}.", hint)

    listed = _read_split_files(split_files or {}, finder, left_out)
    splits = listed if split_files else {path: _split_of(entries) for path, entries in grouped.items()}
    if not any(splits.values()):
        splits = dict(_automatic_splits(list(grouped)))
    left_out |= {path: "is in a split list, but has no caption" for path in listed if path not in grouped}
    without = finder.paths - grouped.keys() - listed.keys()
    left_out |= dict.fromkeys(sorted(without), "has no caption")
    records = tuple(
        Record(entries[0].name, path, tuple(e.caption for e in entries), splits.get(path))
        for path, entries in grouped.items()
    )
    return Dataset(images, records, tuple(LeftOut(name, why) for name, why in left_out.items()))


def _why_not_found(name: str) -> str:
    if is_image_name(name) or "." not in name:
        return "has captions, but no picture"
    return "has captions, but its name does not end like a picture's"


def _split_of(entries: list[Entry]) -> str | None:
    return next((entry.split for entry in entries if entry.split), None)


def _read_split_files(
    files: Mapping[str, Path], finder: PictureFinder, left_out: dict[str, str]
) -> dict[str, str | None]:
    """Split of each picture that the lists name; a listed name without picture goes to `left_out`."""
    splits: dict[str, str | None] = {}
    for split, file in files.items():
        names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        paths = [finder.find(name) for name in names]
        if not any(paths):
            raise ImgcapError(f"The split list {file} names none of the pictures.", "It needs one file name a line.")
        for name, path in zip(names, paths, strict=True):
            if path is None:
                left_out.setdefault(name, f"is in the {split} list, but has no picture")
            elif splits.setdefault(path, split) != split:
                raise ImgcapError(f"{path} is in two split lists, {splits[path]} and {split}.")
    return splits


def _automatic_splits(paths: list[str]) -> Iterator[tuple[str, str]]:
    """A split for each picture by a hash of its name, so that new pictures leave the old ones where they are.

    Only in tiny sets, where a split would come out empty, the pictures nearest to it are moved there.
    """
    hashes = ((path, hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()) for path in paths)
    place = {path: int.from_bytes(digest[:8], "big") / 2**64 for path, digest in hashes}
    ordered = sorted(paths, key=lambda path: (place[path], path))
    test = sum(place[path] < TEST_SHARE for path in paths)
    val = sum(TEST_SHARE <= place[path] < TEST_SHARE + VAL_SHARE for path in paths)
    if len(paths) >= len(SPLITS):
        test = min(max(test, 1), len(paths) - 2)
        val = min(max(val, 1), len(paths) - test - 1)
    for rank, path in enumerate(ordered):
        yield path, TEST if rank < test else VAL if rank < test + val else TRAIN


def split_name(text: str, where: object) -> str:
    """The split that `text` means ("dev" is "val"). Raises `ImgcapError`."""
    try:
        return _SPLIT_NAMES[text.strip().lower()]
    except KeyError:
        raise ImgcapError(f"{where}: unknown split {text!r}.", f"Known splits: {', '.join(SPLITS)}.") from None


# One reader a format: a file or folder -> its captions in order.


def read_flickr8k(file: Path) -> Iterator[Entry]:
    """Lines `NAME.jpg#K<TAB>caption`, as in Flickr8k.token.txt (Hodosh et al. 2013)."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            match = re.fullmatch(r"(.+)#\d+\t(.*)", line.rstrip("\r"))
            if not match:
                raise ImgcapError(f"{file}, line {number} is not NAME.jpg#K<TAB>caption.")
            yield Entry(match[1], match[2])


def read_csv(file: Path) -> Iterator[Entry]:
    """A table with a header: a picture column, a caption column, perhaps a split column (Kaggle's `image,caption`)."""
    columns, rows = parse_table(read_text(file), file)
    image = _column(columns, _IMAGE_COLUMNS, file, "picture")
    caption = _column(columns, _CAPTION_COLUMNS, file, "caption")
    for line, row in rows:
        split = row.get("split", "").strip()
        yield Entry(row[image].strip(), row[caption], split_name(split, f"{file}, line {line}") if split else None)


def _column(columns: list[str], wanted: tuple[str, ...], file: Path, what: str) -> str:
    found = [name for name in wanted if name in columns]
    if not found:
        raise ImgcapError(
            f"{file} has no {what} column; its header is {listing([name[:40] for name in columns]) or 'empty'}.",
            f"Name one of its columns {wanted[0]!r}.",
        )
    return found[0]


def read_coco(file: Path) -> Iterator[Entry]:
    """COCO captions JSON: `images` with id, file_name; `annotations` with image_id, caption (Chen et al. 2015)."""
    data = read_json(file)
    names = {
        _field(image, "id", file, f"images[{i}]"): _text(image, "file_name", file, f"images[{i}]")
        for i, image in enumerate(_list(data, "images", file))
    }
    for i, annotation in enumerate(_list(data, "annotations", file)):
        image_id = _field(annotation, "image_id", file, f"annotations[{i}]")
        if image_id not in names:
            raise ImgcapError(f"{file}: annotations[{i}] names image_id {image_id!r}, which is not in images.")
        yield Entry(names[image_id], _text(annotation, "caption", file, f"annotations[{i}]"))


def read_karpathy(file: Path) -> Iterator[Entry]:
    """Karpathy's split JSON: `images` with filename, split and sentences (Karpathy and Fei-Fei 2015)."""
    for i, image in enumerate(_list(read_json(file), "images", file)):
        where = f"images[{i}]"
        name = _text(image, "filename", file, where)
        folder = image.get("filepath")
        split = split_name(_text(image, "split", file, where), f"{file}: {where}") if "split" in image else None
        for j, sentence in enumerate(_list(image, "sentences", file, where)):
            raw = _text(sentence, "raw", file, f"{where}.sentences[{j}]")
            yield Entry(f"{folder}/{name}" if isinstance(folder, str) and folder else name, raw, split)


def read_jsonl(file: Path) -> Iterator[Entry]:
    """JSON Lines: objects with a picture, a caption or a list of captions, and perhaps a split."""
    for number, row in read_json_lines(file):
        where = f"line {number}"
        name = _text(row, _key(row, _IMAGE_COLUMNS, file, where), file, where)
        captions = row[_key(row, _CAPTION_COLUMNS, file, where)]
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise ImgcapError(f"{file}: the captions of {where} are neither text nor a list of texts.")
        split = split_name(_text(row, "split", file, where), f"{file}, {where}") if row.get("split") else None
        for caption in captions:
            yield Entry(name, caption, split)


def read_sidecars(folder: Path) -> Iterator[Entry]:
    """A folder with a .txt file beside each picture, one caption a line."""
    for picture in find_images(folder):
        sidecar = picture.with_suffix(".txt")
        if sidecar.is_file():
            for line in read_text(sidecar).split("\n"):
                if line.strip():
                    yield Entry(picture.relative_to(folder).as_posix(), line.strip())


def read_imagefolder(folder: Path) -> Iterator[Entry]:
    """Hugging Face's imagefolder: metadata.csv or metadata.jsonl in the folder or in one sub-folder for each split."""
    for metadata in _metadata_files(folder):
        prefix = metadata.parent.relative_to(folder).as_posix()
        top = prefix.split("/")[0].lower()
        read = read_csv if metadata.suffix == ".csv" else read_jsonl
        for entry in read(metadata):
            name = entry.name if prefix == "." else f"{prefix}/{entry.name}"
            yield Entry(name, entry.caption, entry.split or _SPLIT_NAMES.get(top))


def _metadata_files(folder: Path) -> list[Path]:
    return sorted(
        p for name in ("metadata.csv", "metadata.jsonl") for p in (*folder.glob(name), *folder.glob(f"*/{name}"))
    )


FORMATS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "flickr8k": read_flickr8k,
    "csv": read_csv,
    "coco": read_coco,
    "karpathy": read_karpathy,
    "jsonl": read_jsonl,
    "sidecars": read_sidecars,
    "imagefolder": read_imagefolder,
}


def detect_format(captions: Path) -> str:
    """The name in `FORMATS` that fits a file or folder, by its name and its content. Raises `ImgcapError`."""
    if captions.is_dir():
        return "imagefolder" if _metadata_files(captions) else "sidecars"
    suffix = captions.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix == ".json":
        data = read_json(captions)
        if isinstance(data, dict) and "annotations" in data:
            return "coco"
        if isinstance(data, dict) and "images" in data:
            return "karpathy"
    else:
        first = next((line for line in read_text(captions).split("\n") if line.strip()), "")
        if re.match(r".+#\d+\t", first):
            return "flickr8k"
        if first.lstrip().startswith("{"):
            return "jsonl"
        if any(name in first.lower() for name in _IMAGE_COLUMNS) and any(mark in first for mark in ",\t;|"):
            return "csv"
    raise ImgcapError(
        f"The format of {captions} cannot be told from its content.",
        f"Name it with --format: {', '.join(FORMATS)}.",
    )


def _field(value: Any, key: str, file: Path, where: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ImgcapError(f"{file}: {where} has no {key!r}.")
    found = value[key]
    if isinstance(found, (dict, list)) and key.endswith("id"):
        raise ImgcapError(f"{file}: {key!r} of {where} is neither a number nor text.")
    return found


def _text(value: Any, key: str, file: Path, where: str) -> str:
    found = _field(value, key, file, where)
    if not isinstance(found, str):
        raise ImgcapError(f"{file}: {key!r} of {where} is not text.")
    return found


def _list(value: Any, key: str, file: Path, where: str = "the file") -> list[Any]:
    found = _field(value, key, file, where)
    if not isinstance(found, list):
        raise ImgcapError(f"{file}: {key!r} of {where} is not a list.")
    return found


def _key(row: Any, wanted: tuple[str, ...], file: Path, where: str) -> str:
    if not isinstance(row, dict):
        raise ImgcapError(f"{file}: {where} is not a JSON object.")
    for key in wanted:
        if key in row:
            return key
    raise ImgcapError(f"{file}: {where} has no {wanted[0]!r}.")
