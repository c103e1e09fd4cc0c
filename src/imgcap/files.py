"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from imgcap.errors import ImgcapError

if TYPE_CHECKING:
    from torch import Tensor

if sys.platform != "win32":
    import fcntl

SURROGATES = "backslashreplace"
"""How half characters, as in file names that are not UTF-8, are written: as JSON escapes them."""

_RENAMED_KEYS = {"pictures": "images"}

_SCRATCH, _LOCK_FILE = ".imgcap-", ".lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; once written, flush it to disk and rename it to `path`."""
    with suppress(FileNotFoundError):
        if S_ISDIR(path.lstat().st_mode):  # told of now and not when all is written, as is a name that is too long
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with scratch_folder(path.parent) as scratch:
        partial = scratch / "partial"
        partial.touch()
        mode = partial.stat().st_mode  # as the user's umask has it; some writers make files that nobody else may read
        yield partial
        partial.chmod(mode)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        flush_folder(path.parent)


@contextmanager
def writing(target: Path | str, hint: str = "") -> Iterator[None]:
    """Report a failure to write `target` as an `ImgcapError`."""
    try:
        yield
    except OSError as error:
        raise ImgcapError(f"{target} cannot be written: {reason(error)}.", hint) from None


def current_keys(data: Any) -> Any:
    """`data` from a file that any version wrote, with the keys that this version uses."""
    return {_RENAMED_KEYS.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data


def flush_folder(folder: Path) -> None:
    """Let what was made, renamed or removed in `folder` outlive a power cut, where the system can."""
    with suppress(OSError):  # Windows opens no folders, and some file systems flush none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in `parent` for what is not whole yet; it goes at the end.

    Its process keeps it locked, so that those that killed processes have left are known, and go as well.
    """
    remove_abandoned(parent)
    scratch, lock = _make_scratch(parent)
    try:
        yield scratch
    finally:
        _unlock(lock)
        shutil.rmtree(scratch, ignore_errors=True)


def _make_scratch(parent: Path) -> tuple[Path, int | None]:
    while True:
        scratch = parent / f"{_SCRATCH}{uuid4().hex[:12]}"
        scratch.mkdir()
        with suppress(BlockingIOError):
            lock = _lock(scratch / _LOCK_FILE)
            if lock is not None or scratch.exists():
                return scratch, lock
        # Before it was locked, another process has taken it for abandoned.


@lru_cache(maxsize=1024)  # once is enough, and a folder of images may be large
def remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders in `parent` whose processes are gone."""
    with suppress(OSError):
        for scratch in parent.glob(f"{_SCRATCH}*"):
            with suppress(BlockingIOError):
                lock = _lock(scratch / _LOCK_FILE)
                if lock is not None:
                    shutil.rmtree(scratch, ignore_errors=True)
                _unlock(lock)


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Let no other imgcap write the file or folder `output` meanwhile. Raises `ImgcapError` if one is at it already.

    The lock ends with the process, however that ends. Where the file system has no locks, nobody is kept out. What
    killed processes have left in the folder of the output goes.
    """
    place = Path(os.path.realpath(output))
    lock_file = place / _LOCK_FILE if place.is_dir() else place.with_name(f".{place.name[:50]}{_LOCK_FILE}")
    with ExitStack() as stack:
        if place.is_dir() or place.is_file() or not place.exists():  # any number may write to a device
            make_folder(lock_file.parent)
            try:
                stack.callback(_unlock, _lock(lock_file))
            except BlockingIOError:
                raise ImgcapError(
                    f"{output} is being written by another imgcap.", "Wait until it has ended, or give another place."
                ) from None
            stack.callback(_remove, lock_file)
            remove_abandoned(lock_file.parent)
        yield


def _lock(lock_file: Path) -> int | None:
    """A descriptor that holds the lock of `lock_file`, which is made if need be; None where there are no locks.

    Raises `BlockingIOError` if another process holds it, or has just removed it.
    """
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not lock_file.exists() or not os.path.samestat(lock_file.stat(), os.fstat(descriptor)):
            raise BlockingIOError
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _remove(lock_file: Path) -> None:
    with suppress(OSError):
        lock_file.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=SURROGATES, newline="\n")


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors=SURROGATES, newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; what goes wrong on the disk is an `OSError`, as in the other writers."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as partial:
        try:
            save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, partial, metadata)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))) from None


def read_text(path: Path, errors: str = "strict", newline: str | None = None) -> str:
    """The file as UTF-8, with or without a byte order mark; all ends of lines become LF unless `newline` is "".

    Raises `ImgcapError` naming the line that is no text.
    """
    hint = "Save it as UTF-8, or unpack it if it is compressed."
    try:
        with path.open(encoding="utf-8-sig", errors=errors, newline=newline) as file:
            text = file.read()
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
            yield number, parse_json_line(path, number, line)


def parse_json_line(path: Path, number: int, line: str | bytes) -> Any:
    """The JSON value of line `number` of `path`. Raises `ImgcapError` naming it if it is broken."""
    try:
        return _JSON.decode(line if isinstance(line, str) else line.decode())
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
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            flush_folder(path.parent)
    except OSError as error:
        raise ImgcapError(f"The folder {path} cannot be created: {reason(error)}.") from None


def reason(error: OSError) -> str:
    """The operating system's words for `error`, to stand at the end of a sentence, and what helps if a disk is full."""
    words = (error.strerror or str(error) or type(error).__name__).lower()
    return words + "; free some space and run again" * (error.errno in (errno.ENOSPC, errno.EDQUOT))
