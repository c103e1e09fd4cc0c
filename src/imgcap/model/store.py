"""Find, check, import and remove model folders: the model that ships with the package and imported ones.

A model folder holds `config.json`, `vocabulary.json`, `encoder.safetensors`, `decoder.safetensors`, optionally
`training_index.safetensors`, `MODEL_CARD.md` and `metrics.jsonl`, and a `manifest.json` with the size and SHA-256 of
each file.

The shipped model is unpacked from the package into the user cache on first use. Each file is replaced separately, by a
rename, and every process writes the same content. So any number of processes can unpack at once, and a damaged file is
repaired while others read it. Without a usable cache, the model is read from the package.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from stat import S_ISREG
from typing import Any

import platformdirs

from imgcap._version import DISTRIBUTION
from imgcap.errors import ImgcapError, UsageError, listing, printable
from imgcap.files import (
    flush_folder,
    make_folder,
    read_json,
    reason,
    remove_abandoned,
    replacing,
    scratch_folder,
    sha256,
    write_json,
)

DEFAULT_MODEL = "default"
CONFIG_FILE, VOCABULARY_FILE = "config.json", "vocabulary.json"
ENCODER_FILE, DECODER_FILE = "encoder.safetensors", "decoder.safetensors"
MANIFEST_FILE, MODEL_CARD_FILE, INDEX_FILE = "manifest.json", "MODEL_CARD.md", "training_index.safetensors"
MODEL_FILES = (CONFIG_FILE, VOCABULARY_FILE, ENCODER_FILE, DECODER_FILE)
"""Files that every model has."""
METRICS_FILE = "metrics.jsonl"
"""Losses and scores of each epoch of the training."""
OPTIONAL_FILES = (INDEX_FILE, MODEL_CARD_FILE, METRICS_FILE)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Valid names of models and of files in a model folder: never a path."""
_UNPACKED = re.compile(r"[0-9a-f]{16}")
"""Names of the folders that the shipped model is unpacked into."""

_log = logging.getLogger(__name__)


class NoCacheError(ImgcapError):
    """There is no place for the user cache."""

    def __init__(self) -> None:
        super().__init__(
            "There is no home folder, so there is no cache for models.",
            "Set IMGCAP_CACHE_DIR to a folder that can be written.",
        )


def cache_folder() -> Path:
    """The user cache of imgcap: `IMGCAP_CACHE_DIR` or the system's place for caches.

    Raises `NoCacheError` if the user has no home folder.
    """
    if chosen := os.environ.get("IMGCAP_CACHE_DIR"):
        return Path(chosen)
    try:
        folder = Path(platformdirs.user_cache_dir("imgcap", appauthor=False))
    except RuntimeError:
        raise NoCacheError from None
    if not folder.is_absolute():  # older versions of platformdirs return "~/.cache/imgcap"
        raise NoCacheError
    return folder


def available_models() -> list[str]:
    """Names that `load_model` and `--model` accept: the shipped model and the imported ones."""
    names: list[str] = []
    with suppress(OSError, NoCacheError):  # without a cache that can be read, there are no imported models
        names = [folder.name for folder in _imported_folder().iterdir() if _is_imported(folder.name)]
    return [DEFAULT_MODEL, *sorted(names)]


def locate(name_or_path: str) -> Path:
    """Return the verified folder of a model given by name or path. Raises `ImgcapError` if it is unknown or damaged."""
    if name_or_path == DEFAULT_MODEL:
        return _locate_default()
    if _is_imported(name_or_path):
        folder = _imported_folder() / name_or_path
    elif os.path.isdir(name_or_path):  # noqa: PTH112 (a Path raises for names that are too long)
        folder = Path(name_or_path)
    else:
        raise ImgcapError(
            _not_a_folder(name_or_path, f"There is no model {name_or_path!r}."),
            f"Give a model folder, or one of: {', '.join(available_models())}.",
        )
    verify(folder)
    return folder


def _not_a_folder(path: str | Path, missing: str) -> str:
    """Why `path`, which is no folder, is no model: because it is a file, or else the sentence `missing`."""
    is_file = os.path.isfile(path)  # noqa: PTH113 (a Path raises for names that are too long)
    return f"{path} is a file, but a model is a folder." if is_file else missing


def start_model(training: Mapping[str, Any]) -> str | None:
    """Name or folder of the model that a training started from, as the user gave it; None for random weights.

    `training` is that of a `ModelConfig`.
    """
    name = training.get("options", {}).get("start_from")
    return None if name in (None, "auto", "none") else str(name)


def verify(folder: Path) -> None:
    """Check every file of a model folder against its manifest. Raises `ImgcapError` naming the damaged files."""
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise ImgcapError(f"{folder} is not a model folder: it has no {listing(missing)}.")
    if not (folder / MANIFEST_FILE).is_file():
        raise ImgcapError(f"The model {folder} has no {MANIFEST_FILE}, so it is incomplete.", "Finish its training.")
    files = _read_manifest(folder)
    inside = os.path.realpath(folder)
    for name in (*MODEL_FILES, *OPTIONAL_FILES, MANIFEST_FILE, *files):
        if os.path.dirname(os.path.realpath(folder / name)) != inside:  # noqa: PTH120
            raise ImgcapError(
                f"{folder / name} is a link out of the model's folder.", "Replace it by a copy of the file."
            )
    try:
        damaged = [name for name, wanted in files.items() if not _matches(folder / name, wanted)]
    except OSError as error:
        raise ImgcapError(f"{error.filename or folder} cannot be read: {reason(error)}.") from None
    if damaged:
        raise ImgcapError(f"The model {folder} is damaged: {listing(damaged)} does not match its manifest.")


def write_manifest(folder: Path) -> None:
    """Write the sizes and SHA-256 of the model's files. Written last, the manifest makes the model complete."""
    names = [*MODEL_FILES, *(name for name in OPTIONAL_FILES if (folder / name).is_file())]
    write_json(folder / MANIFEST_FILE, {"files": {name: _describe(folder / name) for name in names}})


def import_model(source: Path, name: str | None = None) -> Path:
    """Copy a model folder into the user cache, to use it by name. Raises `ImgcapError`, also if the name is taken."""
    name = source.resolve().name if name is None else name
    if not _NAME.fullmatch(name) or name == DEFAULT_MODEL:
        raise UsageError(f"{name!r} cannot be a model's name.", "Use letters, digits, '.', '_' and '-'; not 'default'.")
    if not source.is_dir():
        raise ImgcapError(_not_a_folder(source, f"{source} does not exist."))
    verify(source)
    target = _imported_folder() / name
    if target.exists():
        raise _taken(name)
    make_folder(target.parent)
    try:
        with scratch_folder(target.parent) as scratch:
            partial = scratch / name
            partial.mkdir()
            for file in (*_read_manifest(source), MANIFEST_FILE):
                with replacing(partial / file) as copy:
                    shutil.copyfile(source / file, copy)
            verify(partial)
            partial.rename(target)
            flush_folder(target.parent)
    except OSError as error:
        if target.exists():  # another process was faster
            raise _taken(name) from None
        raise ImgcapError(f"The model {name!r} could not be copied to {target}: {reason(error)}.") from None
    return target


def _taken(name: str) -> ImgcapError:
    return ImgcapError(f"The model {name!r} already exists.", f"Remove it with `imgcap model remove {name}`.")


def remove_model(name: str) -> Path:
    """Remove an imported model or the unpacked copy of the shipped one. Raises `ImgcapError` if there is none."""
    target = _default_folder(_packaged_default()) if name == DEFAULT_MODEL else _imported_folder() / name
    if not _NAME.fullmatch(name) or not target.is_dir():
        raise ImgcapError(f"There is no model {name!r} in the cache.", f"Known: {', '.join(available_models())}.")
    _remove(target)
    return target


def other_versions() -> list[Path]:
    """The folders in the cache into which other versions of imgcap have unpacked their default models."""
    with suppress(OSError, ImgcapError):  # there may be no cache, or no default model in this installation
        own = _default_folder(_packaged_default())
        return sorted(each for each in own.parent.iterdir() if each != own and _UNPACKED.fullmatch(each.name))
    return []


def remove_other_versions() -> list[Path]:
    """Remove the folders of `other_versions`, and return them. Raises `ImgcapError`."""
    folders = other_versions()
    for folder in folders:
        _remove(folder)
    return folders


def _remove(folder: Path) -> None:
    try:
        with scratch_folder(folder.parent) as scratch:
            shutil.rmtree(folder.rename(scratch / folder.name))  # renamed first, so that nobody loads half a model
    except OSError as error:
        raise ImgcapError(f"{folder} cannot be removed: {reason(error)}.") from None


def _imported_folder() -> Path:
    return cache_folder() / "models"


def _is_imported(name: str) -> bool:
    with suppress(NoCacheError):  # os.path: unlike `Path.is_file`, it does not raise if the cache cannot be read
        return bool(_NAME.fullmatch(name)) and os.path.isfile(_imported_folder() / name / MANIFEST_FILE)  # noqa: PTH113
    return False


def _packaged_default() -> Path:
    """The shipped model inside the installed package."""
    return Path(str(resources.files("imgcap.model") / DEFAULT_MODEL))


def default_encoder_fingerprint() -> str:
    """Fingerprint of the shipped model's encoder, without unpacking it; "" if this installation has no model."""
    file = _packaged_default() / CONFIG_FILE
    return str(read_json(file)["encoder_fingerprint"]) if file.is_file() else ""


def _default_folder(packaged: Path) -> Path:
    if not (packaged / MANIFEST_FILE).is_file():
        raise ImgcapError("This installation of imgcap has no default model.", f"Install {DISTRIBUTION} again.")
    # Named by content, so that versions of imgcap with different models can share a cache.
    return cache_folder() / "shipped" / sha256(packaged / MANIFEST_FILE)[:16]  # matches `_UNPACKED`


def _locate_default() -> Path:
    """The unpacked copy of the shipped model, or the package's own folder if the cache cannot be used."""
    packaged = _packaged_default()
    try:
        return _unpack(packaged, _default_folder(packaged))
    except NoCacheError as error:
        problem = str(error)
    except OSError as error:
        problem = f"The cache {cache_folder()} cannot be used: {reason(error)}."
    verify(packaged)
    _warn_once(f"{problem} The default model is used from the package.")
    return packaged


def _unpack(packaged: Path, folder: Path) -> Path:
    """Write the files of the shipped model that are missing or damaged in `folder`. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    for name, wanted in {**_read_manifest(packaged), MANIFEST_FILE: _describe(packaged / MANIFEST_FILE)}.items():
        if not _matches(folder / name, wanted):
            if not _matches(packaged / name, wanted):
                raise ImgcapError(f"The installed default model is damaged ({name}).", f"Install {DISTRIBUTION} again.")
            with replacing(folder / name) as partial:
                shutil.copyfile(packaged / name, partial)
    return folder


@lru_cache
def _warn_once(sentence: str) -> None:
    _log.warning("%s", printable(sentence))


def _read_manifest(folder: Path) -> dict[str, dict[str, object]]:
    manifest = read_json(folder / MANIFEST_FILE)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if (
        not isinstance(files, dict)
        or not set(MODEL_FILES) <= files.keys()
        or not all(isinstance(wanted, dict) and _NAME.fullmatch(name) for name, wanted in files.items())
    ):
        raise ImgcapError(f"{folder / MANIFEST_FILE} is not the manifest of a model.")
    return files


def _describe(file: Path) -> dict[str, object]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _matches(file: Path, wanted: dict[str, object]) -> bool:
    """Whether `file` has the size and SHA-256 of the manifest. Raises `OSError` if it cannot be read."""
    try:
        info = file.stat()
        if not S_ISREG(info.st_mode) or info.st_size != wanted.get("bytes"):  # reading a pipe would never end
            return False
        return sha256(file) == wanted.get("sha256")
    except FileNotFoundError:
        return False
