"""Captions in sidecars, as `imgcap caption --sidecar` writes them: a text file for each image, one caption a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgcap.dataset.records import Entry, LeftOut
from imgcap.errors import ImgcapError
from imgcap.files import read_text
from imgcap.images.discovery import expand
from imgcap.images.sidecars import TEXT_SUFFIXES, SidecarPaths


def read_sidecars(folder: Path, images: Path | None = None) -> Iterator[Entry | LeftOut]:
    """The captions in sidecars of images in `folder`, and in those that mirror the images of `images` under `folder`.

    A sidecar that cannot be read, is empty, or could be of several images is left out. Raises `ImgcapError` if `folder`
    is not a folder.
    """
    if not folder.is_dir():
        raise ImgcapError(f"The folder {folder} cannot be read: not a directory.")
    is_inside = images is not None and folder.resolve().is_relative_to(images.resolve())
    prefix = folder.resolve().relative_to(images.resolve()) if images and is_inside else Path()
    beside = [SidecarPaths(suffix) for suffix in TEXT_SUFFIXES]
    done: set[Path] = set()
    for image in _readable_images(folder):
        name = prefix / image.relative_to(folder)
        yield from _captions(name.as_posix(), image, folder, beside, done)
    if images and not is_inside:
        mirrored = [SidecarPaths(suffix, folder, images) for suffix in TEXT_SUFFIXES]
        for image in _readable_images(images):
            yield from _captions(image.relative_to(images).as_posix(), image, folder, mirrored, done)


def _readable_images(folder: Path) -> Iterator[Path]:
    return (found for found in expand([folder]) if isinstance(found, Path))


def _captions(
    name: str, image: Path, folder: Path, places: list[SidecarPaths], done: set[Path]
) -> Iterator[Entry | LeftOut]:
    """The captions of an image. `done` has the sidecars that were read or left out already."""
    sidecar = next((found for place in places if (found := place.find(image))), None)
    if sidecar is None:
        for old in (place.of(image).with_name(image.stem + place.suffix) for place in places):
            if old not in done and old.is_file():
                done.add(old)
                reason = f"could be of several images: rename it, for example to {image.name}{old.suffix}"
                yield LeftOut(old.relative_to(folder).as_posix(), reason)
        return
    if sidecar in done:
        return
    done.add(sidecar)
    place = sidecar.relative_to(folder).as_posix()
    try:
        lines = read_text(sidecar).split("\n")
    except ImgcapError as error:
        yield LeftOut(place, str(error).removeprefix(str(sidecar)).lstrip(", ").rstrip("."))
        return
    if not any(line.strip() for line in lines):
        yield LeftOut(place, "is empty")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Entry(name, line.strip(), place=f"{place}, line {number}")
