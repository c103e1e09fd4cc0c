"""Tar archives for tests."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgcap.dataset.formats import read_csv
from imgcap.dataset.records import Entry


def write_tar(file: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """A tar of `members`: names or headers, which may lie, and contents."""
    with file.open("wb") as tar:
        for name, content in members:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            header.size = header.size or len(content)
            tar.write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            tar.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        tar.write(bytes(2 * tarfile.BLOCKSIZE))
    return file


def samples(images: Path, captions: Path) -> Iterator[tuple[str, bytes]]:
    """The images of a folder in order, each followed by a .txt with its captions."""
    texts: dict[str, list[str]] = {}
    for entry in read_csv(captions):
        assert isinstance(entry, Entry)
        texts.setdefault(entry.name, []).append(entry.caption)
    for image in sorted(images.iterdir()):
        yield image.name, image.read_bytes()
        yield f"{image.stem}.txt", "\n".join(texts[image.name]).encode()


def write_shards(folder: Path, images: Path, captions: Path, per_shard: int = 10) -> list[Path]:
    """Shards 00.tar, 01.tar, ... of `per_shard` samples each."""
    folder.mkdir()
    members = list(samples(images, captions))
    parts = [members[i : i + 2 * per_shard] for i in range(0, len(members), 2 * per_shard)]
    return [write_tar(folder / f"{number:02}.tar", part) for number, part in enumerate(parts)]
