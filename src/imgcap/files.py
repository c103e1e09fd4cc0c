"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from imgcap.errors import ImgcapError

SURROGATES = "backslashreplace"
"""How half characters, as in file names that are not UTF-8, are written: as JSON escapes them."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; once written, flush it to disk and rename it to `path`."""
    partial = path.with_name(f".{path.name[:50]}.{uuid4().hex[:12]}")  # a name of 255 bytes leaves no room for more
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as the user's umask has it; some writers make files that nobody else may read
        yield partial
        partial.chmod(mode)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=SURROGATES, newline="\n")


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors=SURROGATES, newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_text(path: Path, errors: str = "strict") -> str:
    """The file as UTF-8, with or without a byte order mark. Raises `ImgcapError` naming the line that is no text."""
    hint = "Save it as UTF-8, or unpack it if it is compressed."
    try:
        text = path.read_text(encoding="utf-8-sig", errors=errors)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ImgcapError(f"{path}, line {line} is not UTF-8 text.", hint) from None
    except OSError as error:
        raise ImgcapError(f"{path} cannot be read: {reason(error)}.") from None
    if "\0" in text:  # the bytes of UTF-16 without its mark, or of a program's own format, can be valid UTF-8
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ImgcapError(f"{path}, line {line} holds a NUL character.", hint)
    return text


def read_bytes(path: Path) -> bytes:
    """The file's content. Raises `ImgcapError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImgcapError(f"{path} cannot be read: {reason(error)}.") from None


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises `ImgcapError` naming the line that is broken, or a key that stands twice."""
    text = read_text(path)
    try:
        return _JSON.decode(text)
    except KeyError as key:
        raise ImgcapError(f"{path} has the key {key} twice in one JSON object.") from None
    except (ValueError, RecursionError) as error:
        line = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ImgcapError(f"{path} is not valid JSON{line}.", "Check that the file is complete.") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number and JSON value of each line that is not blank. Raises `ImgcapError` naming a broken line."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield number, _JSON.decode(line)
            except KeyError as key:
                raise ImgcapError(f"{path}, line {number} has the key {key} twice in one JSON object.") from None
            except (ValueError, RecursionError):
                raise ImgcapError(f"{path}, line {number} is not valid JSON.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises `KeyError` for a key that stands twice: a value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_unique)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path: Path) -> None:
    """Create `path` and its parents. Raises `ImgcapError` where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImgcapError(f"The folder {path} cannot be created: {reason(error)}.") from None


def reason(error: OSError) -> str:
    """The operating system's words for `error`, to stand inside a sentence."""
    return (error.strerror or str(error) or type(error).__name__).lower()
