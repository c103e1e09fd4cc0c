"""Model folders of text files, for tests that check names and checksums only, and ways to damage them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgcap.model.store import (
    MANIFEST_FILE,
    MODEL_FILES,
    OPTIONAL_FILES,
    write_manifest,
)

ALL_FILES = {*MODEL_FILES, *OPTIONAL_FILES, MANIFEST_FILE}


def write_model(folder: Path, words: str = "") -> Path:
    """A folder that the store accepts as a model: it checks only names and checksums."""
    folder.mkdir(parents=True)
    for name in (*MODEL_FILES, *OPTIONAL_FILES):
        (folder / name).write_text(f"{words} in {name}\n" * 50)
    write_manifest(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


DAMAGES = [Path.unlink, empty, truncate, flip_a_bit]
damages = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
