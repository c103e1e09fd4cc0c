"""Read captioned data sets in the formats that people have."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.files import read_json, read_json_lines, read_text
from imgcap.images.archives import ArchivedFile, archived_files
from imgcap.images.discovery import find_images, is_image_name, no_images
from imgcap.images.errors import ImageError
from imgcap.images.finder import ImageFinder
from imgcap.images.locations import archive_locations, is_url
from imgcap.text.tables import parse_table
from imgcap.text.tokenizer import has_words

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "restval": TRAIN,  # Karpathy's name for COCO validation images that join the training split
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
}

VAL_SHARE = TEST_SHARE = 0.1
"""Share of the images in each held-out split when the data set brings no splits of its own."""

_IMAGE_COLUMNS = ("image", "file_name", "filename", "image_name", "image_path", "path", "file", "image_id")
_CAPTION_COLUMNS = ("caption", "captions", "text", "comment")


@dataclass(frozen=True)
class Record:
    """One captioned image: `path` is relative to the data set's `root`, `split` None if it is in none."""

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
    """A captioned data set: its image folder, its records in a fixed order, and what had to be left out."""

    root: Path | str
    """The folder of the images, or the path or URL below which their archives are."""
    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]
    archives: tuple[str, ...] = ()
    """Archives of the images, relative to `root`."""
    archived: Mapping[str, ArchivedFile] = field(default_factory=dict)
    """The images in `archives`, by the paths of their records."""

    @property
    def location(self) -> str:
        """`root`, wherever it is seen from."""
        return str(self.root.resolve()) if isinstance(self.root, Path) else self.root

    def source(self, record: Record) -> Path | ArchivedFile:
        """The image of a record."""
        return self.root / record.path if isinstance(self.root, Path) else self.archived[record.path]


@dataclass(frozen=True)
class Entry:
    """One caption as its file has it: the image's name there, the caption, and the split if the file says."""

    name: str
    caption: str
    split: str | None = None


def read_dataset(
    images: Path | str,
    captions: Path | None = None,
    format_name: str | None = None,
    split_files: Mapping[str, Path] | None = None,
) -> Dataset:
    """Match the captions in `captions` (a file or folder) with the images under `images`.

    `images` is a folder, or the text that names tar archives, perhaps with ranges in braces; without `captions` they
    are those beside the images in the archives. `format_name` is one of `FORMATS`, or None to detect it.
    `split_files` maps split names to files with one image name a line; without them the splits come with the
    captions, or, if those have none, from a hash of each image's name (80 / 10 / 10 %). Raises `ImgcapError` or
    `UsageError`.
    """
    if isinstance(images, Path) and not images.is_dir():
        raise ImgcapError(f"The image folder {images} does not exist.")
    read = _captions_reader(captions, format_name) if captions else None
    if isinstance(images, Path) and read is None:
        raise UsageError("Images in a folder need captions.", "Give the caption file or folder by --captions.")
    shards = _Shards(images) if isinstance(images, str) else None
    finder = ImageFinder(shards.images, shards.root) if shards else ImageFinder.in_folder(Path(images))
    if not finder.paths:
        raise no_images(images) if isinstance(images, Path) else ImgcapError(f"{images} holds no images.")

    grouped: dict[str, list[Entry]] = {}  # by path relative to the root, in the order of the captions
    left_out: dict[str, str] = dict(shards.left_out) if shards else {}
    for entry in read() if read else shards.entries if shards else ():
        path = finder.find(entry.name)
        if path is None:
            left_out[entry.name] = _why_not_found(entry.name, finder)
        elif has_words(entry.caption):
            grouped.setdefault(path, []).append(entry)
        else:
            left_out.setdefault(entry.name, "has an empty caption")
    left_out |= _without_contradictions(grouped, finder)
    if not grouped:
        hint = f"It names {listing(list(left_out), 3)}." if left_out else "It has no captions."
        raise ImgcapError(f"No caption in {captions or images} belongs to an image in {images}.", hint)

    listed = _read_split_files(split_files or {}, finder, left_out)
    splits = listed if split_files else {path: _split_of(entries) for path, entries in grouped.items()}
    if not any(splits.values()):
        names = {path: shards.images[path].member if shards else path for path in grouped}
        splits = dict(_automatic_splits(names))
    left_out |= {path: "is in a split list, but has no caption" for path in listed if path not in grouped}
    without = finder.paths - grouped.keys() - listed.keys()
    left_out |= dict.fromkeys(sorted(without), "has no caption")
    records = tuple(
        Record(entries[0].name, path, tuple(e.caption for e in entries), splits.get(path))
        for path, entries in grouped.items()
    )
    unused = tuple(LeftOut(name, why) for name, why in left_out.items())
    if shards:
        return Dataset(shards.root, records, unused, shards.archives, shards.images)
    return Dataset(Path(images), records, unused)


def _captions_reader(captions: Path, format_name: str | None) -> Callable[[], Iterator[Entry]]:
    if not captions.exists():
        raise ImgcapError(f"The caption file {captions} does not exist.")
    format_name = format_name or detect_format(captions)
    if format_name not in FORMATS:
        raise UsageError(f"Unknown caption format {format_name!r}.", f"Known formats: {', '.join(FORMATS)}.")
    return partial(FORMATS[format_name], captions)


def _without_contradictions(grouped: dict[str, list[Entry]], finder: ImageFinder) -> dict[str, str]:
    """Remove the images that captions name by different folders; returns these names and why."""
    reasons: dict[str, str] = {}
    for path, entries in list(grouped.items()):
        names = {entry.name for entry in entries}
        if len(names) > 1 and finder.contradict(names):
            del grouped[path]
            reasons |= dict.fromkeys(names, f"could be {path}, which is named by other folders too")
    return reasons


def _why_not_found(name: str, finder: ImageFinder) -> str:
    if reason := finder.why_not(name):
        return reason
    if is_image_name(name) or "." not in name:
        return "has captions, but no image"
    return "has captions, but its name does not end like an image's"


def _split_of(entries: list[Entry]) -> str | None:
    return next((entry.split for entry in entries if entry.split), None)


def _read_split_files(
    files: Mapping[str, Path], finder: ImageFinder, left_out: dict[str, str]
) -> dict[str, str | None]:
    """Split of each image that the lists name; a listed name without image goes to `left_out`."""
    splits: dict[str, str | None] = {}
    for split, file in files.items():
        names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        paths = [finder.find(name) for name in names]
        if not any(paths):
            raise ImgcapError(f"The split list {file} names none of the images.", "It needs one file name a line.")
        for name, path in zip(names, paths, strict=True):
            if path is None:
                left_out.setdefault(name, finder.why_not(name) or f"is in the {split} list, but has no image")
            elif splits.setdefault(path, split) != split:
                raise ImgcapError(f"{path} is in two split lists, {splits[path]} and {split}.")
    return splits


def _automatic_splits(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A split for each path by a hash of its name, so that new images leave the old ones where they are.

    In an archive, a name is that of the member, so that images can move from one archive to another. Only in tiny
    sets, where a split would come out empty, the images nearest to it are moved there.
    """
    hashes = ((path, hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()) for path, name in names.items())
    place = {path: int.from_bytes(digest[:8], "big") / 2**64 for path, digest in hashes}
    ordered = sorted(names, key=lambda path: (place[path], path))
    test = sum(place[path] < TEST_SHARE for path in names)
    val = sum(TEST_SHARE <= place[path] < TEST_SHARE + VAL_SHARE for path in names)
    if len(names) >= len(SPLITS):
        test = min(max(test, 1), len(names) - 2)
        val = min(max(val, 1), len(names) - test - 1)
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
    """A table with a header: an image column, a caption column, perhaps a split column (Kaggle's `image,caption`)."""
    columns, rows = parse_table(read_text(file), file)
    image = _column(columns, _IMAGE_COLUMNS, file, "image")
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
    """JSON Lines: objects with an image, a caption or a list of captions, and perhaps a split."""
    for number, row in read_json_lines(file):
        where = f"line {number}"
        name = _text(row, _key(row, _IMAGE_COLUMNS, file, where), file, where)
        captions = _captions_of(row, file, where)
        split = split_name(_text(row, "split", file, where), f"{file}, {where}") if row.get("split") else None
        for caption in captions:
            yield Entry(name, caption, split)


def _captions_of(row: Any, file: object, where: str) -> list[str]:
    captions = row[_key(row, _CAPTION_COLUMNS, file, where)]
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise ImgcapError(f"{file}: the captions of {where} are neither text nor a list of texts.")
    return captions


def read_sidecars(folder: Path) -> Iterator[Entry]:
    """A folder with a .txt file beside each image, one caption a line."""
    for image in find_images(folder):
        sidecar = image.with_suffix(".txt")
        if sidecar.is_file():
            for line in read_text(sidecar).split("\n"):
                if line.strip():
                    yield Entry(image.relative_to(folder).as_posix(), line.strip())


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


class _Shards:
    """Tar archives in WebDataset's convention: `key.jpg` with `key.txt`, a caption a line, or `key.json` beside it.

    The key is what stands before the first dot of a file's name; where that is the key of several images, captions
    belong to the one that has the same name up to its ending.
    """

    def __init__(self, pattern: str) -> None:
        """List the archives. Raises `ImgcapError` if one of them cannot be read."""
        names = archive_locations(pattern)
        locations = [name if is_url(name) else Path(name).resolve().as_posix() for name in names]
        self.root = _common_folder(locations)
        self.archives = tuple(dict.fromkeys(_relative(location, self.root) for location in locations))
        self.images: dict[str, ArchivedFile] = {}
        """By path relative to `root`."""
        self.entries: list[Entry] = []
        self.left_out: dict[str, str] = {}
        for location in dict.fromkeys(locations):
            self._read(location)

    def _read(self, location: str) -> None:
        images: list[ArchivedFile] = []
        texts: dict[str, list[str]] = {}  # captions by the name of their file without its ending
        rows: dict[str, tuple[list[str], str | None]] = {}  # captions and split, likewise
        for file in archived_files(location, _is_of_sample):
            if isinstance(file, ImageError):
                if file.path == location and file.kind != "damaged":
                    raise file
                self.left_out[_relative(file.path, self.root)] = str(file)
            elif is_image_name(file.member):
                images.append(file)
            else:
                stem, ending = file.member.rsplit(".", 1)
                try:
                    if ending.lower() == "txt":
                        texts[stem] = _lines(file)
                    else:
                        rows[stem] = _captions_and_split(file)
                except ImgcapError as error:
                    self.left_out[_relative(file.name, self.root)] = str(error)
        for image in images:
            path = _relative(image.name, self.root)
            self.images[path] = image
            names = _stem_and_key(image.member)
            captions, split = next((rows[name] for name in names if name in rows), ([], None))
            captions = next((texts[name] for name in names if name in texts), captions)
            self.entries += (Entry(path, caption, split) for caption in captions)
        with_image = {name for image in images for name in _stem_and_key(image.member)}
        with_captions = (*texts, *(name for name, (captions, _) in rows.items() if captions))
        for name in with_captions:
            if name not in with_image:
                self.left_out[_relative(f"{location}/{name}", self.root)] = "has captions, but no image"


def _stem_and_key(member: str) -> tuple[str, str]:
    """What stands before the last dot and before the first dot of a file's name, folders kept."""
    return member.rsplit(".", 1)[0], re.sub(r"\.[^/]*$", "", member)


def _is_of_sample(member: str) -> bool:
    return is_image_name(member) or member.lower().endswith((".txt", ".json"))


def _common_folder(locations: Sequence[str]) -> str:
    """The longest path or URL that all locations are below; "" if they have none in common."""
    folders = [location.split("/")[:-1] for location in locations]
    same = 0
    for parts in zip(*folders):  # noqa: B905 (the shortest ends it)
        if len(set(parts)) > 1:
            break
        same += 1
    return "/".join(folders[0][:same])


def _relative(location: str, root: str) -> str:
    return location.removeprefix(root + "/") if root else location


def _lines(file: ArchivedFile) -> list[str]:
    return [line.strip() for line in _decoded(file).split("\n") if line.strip()]


def _captions_and_split(file: ArchivedFile) -> tuple[list[str], str | None]:
    """Captions in a sample's JSON, if it has any, and the split."""
    try:
        row = json.loads(_decoded(file))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ImgcapError(f"{file.name} is not a JSON object.")
    told = {name: row[name] for name in _CAPTION_COLUMNS if row.get(name)}
    captions = _captions_of(told, file.name, "the file") if told else []
    split = split_name(_text(row, "split", file.name, "the file"), file.name) if row.get("split") else None
    return captions, split


def _decoded(file: ArchivedFile) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImgcapError(f"{file.name} is not UTF-8 text.") from None


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


def _field(value: Any, key: str, file: object, where: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ImgcapError(f"{file}: {where} has no {key!r}.")
    found = value[key]
    if isinstance(found, (dict, list)) and key.endswith("id"):
        raise ImgcapError(f"{file}: {key!r} of {where} is neither a number nor text.")
    return found


def _text(value: Any, key: str, file: object, where: str) -> str:
    found = _field(value, key, file, where)
    if not isinstance(found, str):
        raise ImgcapError(f"{file}: {key!r} of {where} is not text.")
    return found


def _list(value: Any, key: str, file: Path, where: str = "the file") -> list[Any]:
    found = _field(value, key, file, where)
    if not isinstance(found, list):
        raise ImgcapError(f"{file}: {key!r} of {where} is not a list.")
    return found


def _key(row: Any, wanted: tuple[str, ...], file: object, where: str) -> str:
    if not isinstance(row, dict):
        raise ImgcapError(f"{file}: {where} is not a JSON object.")
    for key in wanted:
        if key in row:
            return key
    raise ImgcapError(f"{file}: {where} has no {wanted[0]!r}.")
