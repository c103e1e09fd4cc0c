"""Read and write files: whole or not at all, by one process at a time, and with errors that name the file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from imgcap.errors import ImgcapError
from imgcap.file_attributes import copy_attributes

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor

SURROGATES = "backslashreplace"
"""Error handler that writes lone surrogates, as in file names that are not UTF-8, the way JSON escapes them."""

_RENAMED_KEYS = {"pictures": "images"}
"""Keys of earlier versions, and their names today."""

_SCRATCH, _LOCK_FILE = ".imgcap-", ".lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; once it is written, flush it to disk and rename it to `path`.

    A file that is replaced hands down its owner, permissions and extended attributes, as far as the system allows. A
    symbolic link stays, and the file that it points to is replaced.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        if S_ISDIR(path.lstat().st_mode):  # fail before anything is written; so does a name that is too long
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with scratch_folder(path.parent) as scratch:
        partial = scratch / "partial"
        partial.touch()
        mode = partial.stat().st_mode  # follows the umask; some writers create files that only the owner can read
        yield partial
        partial.chmod(mode)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if path.is_file():
            copy_attributes(path, partial)  # after opening it: the file may be read-only
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
    """`data` from a file of any version, with the keys of this version."""
    return {_RENAMED_KEYS.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data


def flush_folder(folder: Path) -> None:
    """Make created, renamed and removed entries of `folder` survive a power cut, where the system can."""
    with suppress(OSError):  # Windows cannot open folders, and some file systems cannot flush them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Create a hidden folder in `parent` for unfinished files, and remove it at the end.

    The process holds a lock on it. Folders without one were left by killed processes and are removed as well.
    """
    remove_abandoned(parent)
    scratch, lock = _make_scratch(parent)
    try:
        yield scratch
    finally:
        _unlock(lock)
        shutil.rmtree(scratch, ignore_errors=True)


def _make_scratch(parent: Path) -> tuple[Path, BaseFileLock | None]:
    while True:
        scratch = parent / f"{_SCRATCH}{uuid4().hex[:12]}"
        scratch.mkdir()
        with suppress(BlockingIOError):
            lock = _lock(scratch / _LOCK_FILE)
            if lock is not None or scratch.exists():
                return scratch, lock
        # Another process took the folder for abandoned before it was locked: make another one.


@lru_cache(maxsize=1024)  # once per folder is enough, and a folder of images may be large
def remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders in `parent` that killed processes left."""
    with suppress(OSError):
        for scratch in parent.glob(f"{_SCRATCH}*"):
            with suppress(BlockingIOError):
                lock = _lock(scratch / _LOCK_FILE)
                if lock is not None:
                    shutil.rmtree(scratch, ignore_errors=True)
                    _unlock(lock)
                    with suppress(OSError):  # only Windows leaves the folder, because it cannot remove a locked file
                        scratch.rmdir()


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Keep other imgcap processes from writing the file or folder `output`.

    The lock ends with the process, even if that is killed. On file systems without locks, nobody is kept out. Scratch
    folders that killed processes left beside the output are removed.

    Raises `ImgcapError` if another process is writing `output`.
    """
    place = Path(os.path.realpath(output))
    lock_file = place / _LOCK_FILE if place.is_dir() else place.with_name(f".{place.name[:50]}{_LOCK_FILE}")
    with ExitStack() as stack:
        if place.is_dir() or place.is_file() or not place.exists():  # any number of processes may write to a device
            make_folder(lock_file.parent)
            try:
                stack.callback(_unlock, _lock(lock_file))
            except BlockingIOError:
                raise ImgcapError(
                    f"{output} is being written by another imgcap.",
                    "Wait until it has finished, or choose another output.",
                ) from None
            stack.callback(_remove, lock_file)
            remove_abandoned(lock_file.parent)
        yield


def _lock(lock_file: Path) -> BaseFileLock | None:
    """Create and lock `lock_file`. Returns None where locks are not available.

    Raises `BlockingIOError` if another process holds the lock or has just removed the file.
    """
    from filelock import FileLock, Timeout  # here, because it takes as long to import as the rest of this module

    # A soft lock, which is a mere file, would outlive a killed process.
    lock = FileLock(lock_file, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError from None
    except (OSError, NotImplementedError):
        return None
    return lock


def _unlock(lock: BaseFileLock | None) -> None:
    if lock is not None:
        lock.release()


def _remove(lock_file: Path) -> None:
    with suppress(OSError):  # Windows removes it as it unlocks it
        lock_file.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with LF line ends. Raises `OSError`, as all writers here."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=SURROGATES, newline="\n")


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors=SURROGATES, newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises `OSError`: safetensors' own errors are converted."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as partial:
        try:
            save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, partial, metadata)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))) from None


def read_text(path: Path, errors: str = "strict", newline: str | None = None) -> str:
    """Read UTF-8 with or without a byte order mark. Line ends become LF unless `newline` is "".

    Raises `ImgcapError` naming the line that is not text.
    """
    hint = "Save it as UTF-8 (in a spreadsheet: CSV UTF-8), or unpack it if it is compressed."
    try:
        with path.open(encoding="utf-8-sig", errors=errors, newline=newline) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ImgcapError(f"{path}, line {line} is not UTF-8 text.", hint) from None
    except OSError as error:
        raise ImgcapError(f"{path} cannot be read: {reason(error)}.") from None
    if "\0" in text:  # UTF-16 without a byte order mark, and binary formats, can be valid UTF-8
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ImgcapError(f"{path}, line {line} holds a NUL character.", hint)
    return text


def read_bytes(path: Path) -> bytes:
    """Read the content of a file. Raises `ImgcapError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImgcapError(f"{path} cannot be read: {reason(error)}.") from None


def read_json(path: Path) -> Any:
    """Read a JSON value. Raises `ImgcapError` naming the broken line or the repeated key."""
    text = read_text(path)
    try:
        return _JSON.decode(text)
    except KeyError as key:
        raise ImgcapError(f"{path} has the key {key} twice in one JSON object.") from None
    except (ValueError, RecursionError) as error:
        line = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ImgcapError(f"{path} is not valid JSON{line}.", "Check that the file is complete.") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line number and JSON value of each line that is not blank. Raises `ImgcapError` naming a broken line."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, parse_json_line(path, number, line)


def parse_json_line(path: Path, number: int, line: str | bytes) -> Any:
    """Parse line `number` of `path` as JSON. Raises `ImgcapError` naming the line if it is broken."""
    try:
        return _JSON.decode(line if isinstance(line, str) else line.decode())
    except KeyError as key:
        raise ImgcapError(f"{path}, line {number} has the key {key} twice in one JSON object.") from None
    except (ValueError, RecursionError):
        raise ImgcapError(f"{path}, line {number} is not valid JSON.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object. Raises `KeyError` for a repeated key, because one of its values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_unique)


def sha256(path: Path) -> str:
    """SHA-256 of the content of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path: Path) -> None:
    """Create `path` and its parents. Raises `ImgcapError` if that fails, or if nothing can be written into it."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            flush_folder(path.parent)
    except OSError as error:
        raise ImgcapError(f"The folder {path} cannot be created: {reason(error)}.") from None
    if not os.access(path, os.W_OK):
        raise ImgcapError(f"The folder {path} cannot be written.", "Give another folder, or yourself the permission.")


def reason(error: OSError) -> str:
    """The operating system's words for `error`, for the end of a sentence, and advice if the disk is full."""
    words = (error.strerror or str(error) or type(error).__name__).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{words}; free some space and run again"
    return words
