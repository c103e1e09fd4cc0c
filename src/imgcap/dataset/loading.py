"""Read captioned data sets: images, the captions that belong to them, and their splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from imgcap.dataset.archives import ArchiveDataset
from imgcap.dataset.class_folders import CaptionTemplate, class_captions
from imgcap.dataset.formats import COLUMN_READERS, FORMATS, READERS, detect_format
from imgcap.dataset.records import NO_CAPTION, Dataset, Entry, LeftOut, Record
from imgcap.dataset.sidecars import read_sidecars
from imgcap.dataset.splits import automatic_splits, read_split_lists
from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.images.discovery import expand, is_image_name
from imgcap.images.finder import ImageFinder
from imgcap.text.columns import DETECTED, Columns, why_no_text
from imgcap.text.tokenizer import has_words


def read_dataset(
    images: Path | str,
    captions: Path | None = None,
    format_name: str | None = None,
    split_files: Mapping[str, Path] | None = None,
    columns: Columns = DETECTED,
    templates: Sequence[CaptionTemplate] = (),
) -> Dataset:
    """Match the captions in `captions` (a file or folder) with the images under `images`.

    `images` is a folder, or text that names archives, perhaps with ranges in braces. Without `captions`, those in the
    archives count, or `templates` make them from the folders of the images. `format_name` is one of `FORMATS`, or None
    to detect it. `split_files` has a file of image names by split. Without it the splits come from the captions, or, if
    those have none, from a hash of each image's name (80 / 10 / 10 %). Rows that cannot be used are left out. Raises
    `ImgcapError` if a file is wrong as a whole, and `UsageError`.
    """
    if isinstance(images, Path) and not images.is_dir():
        raise ImgcapError(f"The image folder {images} does not exist.")
    read = _entries_reader(images, captions, format_name, columns, templates)
    archived = ArchiveDataset(images, columns, captions is None) if isinstance(images, str) else None
    left_out: dict[str, str] = dict(archived.left_out) if archived else {}
    finder = ImageFinder(archived.images, archived.root) if archived else _find_images(Path(images), left_out)
    if not finder.paths:
        raise ImgcapError(f"{images} holds no images.")
    found: Iterable[Entry | LeftOut] = read(finder) if read else archived.entries if archived else ()
    grouped, missing = _group_by_image(found, finder, left_out)
    missing |= _without_other_folders(grouped, finder) | _without_contradictions(grouped, finder)
    left_out |= missing
    if not grouped:
        raise _no_captions(captions or images, images, left_out, missing)

    listed = read_split_lists(split_files or {}, finder, left_out)
    grouped = {path: entries for path, entries in grouped.items() if listed.get(path, "") is not None}
    if not grouped:
        raise ImgcapError(f"All images of {captions or images} are in two split lists.", "Keep each image in one list.")
    splits = listed if split_files else {path: _split_of(entries) for path, entries in grouped.items()}
    if not any(splits.values()):
        names = {path: archived.images[path].member if archived else path for path in grouped}
        splits = dict(automatic_splits(names))
    for path in listed:
        if path not in grouped:
            left_out.setdefault(path, "is in a split list, but has no caption")
    without = finder.paths - grouped.keys() - listed.keys()
    # An archive holds the captions beside the images, so that one without is faulty.
    left_out |= dict.fromkeys(sorted(without), NO_CAPTION if read else "has no caption")
    records = tuple(
        Record(entries[0].name, path, tuple(e.caption for e in entries), splits.get(path))
        for path, entries in grouped.items()
    )
    unused = tuple(LeftOut(name, why) for name, why in left_out.items())
    if archived:
        return Dataset(archived.root, records, unused, archived.archives, archived.images)
    return Dataset(Path(images), records, unused)


def _entries_reader(
    images: Path | str,
    captions: Path | None,
    format_name: str | None,
    columns: Columns,
    templates: Sequence[CaptionTemplate],
) -> Callable[[ImageFinder], Iterator[Entry | LeftOut]] | None:
    """Reads or makes the captions when it is called; None if they are in the archives.

    Raises `ImgcapError` and `UsageError` now.
    """
    if templates and (captions or format_name):
        raise UsageError("--caption-template makes captions from folders, so it excludes --captions and --format.")
    if templates:
        if not isinstance(images, Path):
            raise UsageError("--caption-template needs --images FOLDER, with a folder for each class.")
        return lambda finder: class_captions(images, finder.paths, templates)
    if captions:
        read = _captions_reader(captions, images, format_name, columns)
        return lambda _finder: read()
    if isinstance(images, Path):
        raise UsageError(
            "Images in a folder need captions.",
            "Give the caption file or folder by --captions, or make captions by --caption-template.",
        )
    return None


def _find_images(folder: Path, left_out: dict[str, str]) -> ImageFinder:
    """A finder for all images in `folder`. Sub-folders that cannot be read go to `left_out`.

    Raises `ImgcapError` if `folder` itself cannot be read, or holds no images.
    """
    paths: list[str] = []
    for found in expand([folder]):
        if isinstance(found, Path):
            paths.append(found.relative_to(folder).as_posix())
        elif found.path == str(folder):
            raise found
        else:
            left_out[Path(found.path).relative_to(folder).as_posix()] = str(found)
    return ImageFinder(paths, folder)


def _captions_reader(
    captions: Path, images: Path | str, format_name: str | None, columns: Columns
) -> Callable[[], Iterator[Entry | LeftOut]]:
    """Reads the captions when it is called. Raises `ImgcapError` and `UsageError` now."""
    if not captions.exists():
        raise ImgcapError(f"The caption file {captions} does not exist.")
    name = format_name or detect_format(captions, columns)
    if name not in FORMATS:
        raise UsageError(f"Unknown caption format {name!r}.", f"Known formats: {', '.join(FORMATS)}.")
    if name in COLUMN_READERS:
        return lambda: COLUMN_READERS[name](captions, columns)
    if columns != DETECTED:
        known = ", ".join(COLUMN_READERS)
        raise UsageError(f"The format {name} has no columns to name.", f"Formats with columns: {known}.")
    if name in READERS:
        return lambda: READERS[name](captions)
    return lambda: read_sidecars(captions, images if isinstance(images, Path) else None)


def _group_by_image(
    found: Iterable[Entry | LeftOut], finder: ImageFinder, left_out: dict[str, str]
) -> tuple[dict[str, list[Entry]], dict[str, str]]:
    """The captions of each image, by its path, in their order; and names without an image, and why.

    Rows that cannot be used go to `left_out`.
    """
    grouped: dict[str, list[Entry]] = {}
    missing: dict[str, str] = {}
    for entry in found:
        if isinstance(entry, LeftOut):
            left_out[entry.name] = entry.reason
        elif (path := finder.find(entry.name)) is None:
            missing[entry.name] = _why_not_found(entry.name, finder)
        elif reason := why_no_text(entry.caption):
            left_out[entry.place] = reason
        elif has_words(entry.caption):
            grouped.setdefault(path, []).append(entry)
        else:
            left_out[entry.place] = f"has an empty caption for {entry.name}"
    return grouped, missing


def _without_other_folders(grouped: dict[str, list[Entry]], finder: ImageFinder) -> dict[str, str]:
    """Remove the captions of images in other folders than the root, if some name the root; returns their names and why.

    Captions of `a/1.jpg` and `b/1.jpg` are of two images, of which the folder `a` has one.
    """
    named = {
        entry.name: finder.names_root(entry.name, path)
        for path, entries in grouped.items()
        for entry in entries
        if entry.name != path
    }
    if True not in named.values():
        return {}
    for path, entries in list(grouped.items()):
        grouped[path] = [entry for entry in entries if named.get(entry.name) is not False]
        if not grouped[path]:
            del grouped[path]
    return {name: "is in another folder" for name, is_named in named.items() if is_named is False}


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


def _no_captions(
    captions: Path | str, images: Path | str, left_out: Mapping[str, str], missing: Mapping[str, str]
) -> ImgcapError:
    """The error for captions of which none can be used, with the first reason in the hint."""
    if missing or not left_out:
        hint = f"It names {listing(list(missing), 3)}." if missing else "It has no captions."
        return ImgcapError(f"No caption in {captions} belongs to an image in {images}.", hint)
    name, why = next(iter(left_out.items()))
    return ImgcapError(f"No caption in {captions} can be used.", f"The first that was left out: {name} {why}.")
