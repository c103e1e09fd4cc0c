"""Model folders by name or path: the model that ships with the package, imported ones, and how they are checked.

A model folder holds `config.json`, `vocabulary.json`, `encoder.safetensors`, `decoder.safetensors`, perhaps
`training_index.safetensors` and `MODEL_CARD.md`, and a `manifest.json` with the size and SHA-256 of each. The shipped
model is unpacked from the package into the user cache on first use. Each file is replaced on its own, by a rename, with
content that is the same for every process; so any number of processes may unpack at once, and a damaged file is put
right while others read. Where the cache cannot be written, the model is used as it lies in the package.
"""

from __future__ import annotations

import os
import re
import shutil
from importlib import resources
from pathlib import Path
from stat import S_ISREG

import platformdirs

from imgcap.errors import ImgcapError, UsageError, listing
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
"""Files without which a folder is not a model."""
METRICS_FILE = "metrics.jsonl"
"""What each epoch of the training gave."""
OPTIONAL_FILES = (INDEX_FILE, MODEL_CARD_FILE, METRICS_FILE)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a model, and a file in a model folder, may be called: never a path."""


def cache_folder() -> Path:
    """The user cache of imgcap: `IMGCAP_CACHE_DIR` if that is set."""
    return Path(os.environ.get("IMGCAP_CACHE_DIR") or platformdirs.user_cache_dir("imgcap", appauthor=False))


def available_models() -> list[str]:
    """Names that `load_model` and `--model` take: the shipped model and the imported ones."""
    imported = _imported_folder()
    names = [p.name for p in imported.iterdir() if (p / MANIFEST_FILE).is_file()] if imported.is_dir() else []
    return [DEFAULT_MODEL, *sorted(name for name in names if _NAME.fullmatch(name))]


def locate(name_or_path: str) -> Path:
    """The verified folder of a model given by name or path. Raises `ImgcapError` if it is unknown or damaged."""
    if name_or_path == DEFAULT_MODEL:
        return _unpack_default()
    imported = _imported_folder() / name_or_path
    if _NAME.fullmatch(name_or_path) and (imported / MANIFEST_FILE).is_file():
        folder = imported
    elif os.path.isdir(name_or_path):  # noqa: PTH112 (a Path raises for names that are too long)
        folder = Path(name_or_path)
    else:
        raise ImgcapError(
            f"There is no model {name_or_path!r}.",
            f"Give a model folder, or one of: {', '.join(available_models())}.",
        )
    verify(folder)
    return folder


def verify(folder: Path) -> None:
    """Check every file of a model folder against its manifest. Raises `ImgcapError` naming what is damaged."""
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise ImgcapError(f"{folder} is not a model folder: it has no {listing(missing)}.")
    if not (folder / MANIFEST_FILE).is_file():
        raise ImgcapError(f"The model {folder} has no {MANIFEST_FILE}, so it is not complete.", "Finish its training.")
    files = _read_manifest(folder)
    inside = os.path.realpath(folder)
    for name in (*MODEL_FILES, *OPTIONAL_FILES, MANIFEST_FILE, *files):
        if os.path.dirname(os.path.realpath(folder / name)) != inside:  # noqa: PTH120
            raise ImgcapError(f"{folder / name} is a link out of the model's folder.", "Put a copy in its place.")
    damaged = [name for name, wanted in files.items() if not _matches(folder / name, wanted)]
    if damaged:
        raise ImgcapError(f"The model {folder} is damaged: {listing(damaged)} is not as its manifest says.")


def write_manifest(folder: Path) -> None:
    """Write the size and SHA-256 of the model's files; done last, it makes the folder a complete model."""
    names = [*MODEL_FILES, *(name for name in OPTIONAL_FILES if (folder / name).is_file())]
    write_json(folder / MANIFEST_FILE, {"files": {name: _describe(folder / name) for name in names}})


def import_model(source: Path, name: str | None = None) -> Path:
    """Copy a model folder into the user cache, to be used by name. Raises `ImgcapError`; a taken name is an error."""
    name = source.resolve().name if name is None else name
    if not _NAME.fullmatch(name) or name == DEFAULT_MODEL:
        raise UsageError(f"{name!r} cannot be a model's name.", "Use letters, digits, '.', '_' and '-'; not 'default'.")
    if not source.is_dir():
        raise ImgcapError(f"The model folder {source} does not exist.")
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
    return ImgcapError(f"There is a model {name!r} already.", f"Remove it with `imgcap model remove {name}`.")


def remove_model(name: str) -> Path:
    """Remove an imported model, or the unpacked copy of the shipped one. Raises `ImgcapError` if there is none."""
    target = _default_folder(_packaged_default()) if name == DEFAULT_MODEL else _imported_folder() / name
    if not _NAME.fullmatch(name) or not target.is_dir():
        raise ImgcapError(f"There is no model {name!r} in the cache.", f"Known: {', '.join(available_models())}.")
    try:
        with scratch_folder(target.parent) as scratch:
            shutil.rmtree(target.rename(scratch / name))  # renamed at once, so that nobody loads half a model
    except OSError as error:
        raise ImgcapError(f"{target} cannot be removed: {reason(error)}.") from None
    return target


def _imported_folder() -> Path:
    return cache_folder() / "models"


def _packaged_default() -> Path:
    """The shipped model inside the installed package."""
    return Path(str(resources.files("imgcap.model") / DEFAULT_MODEL))


def _default_folder(packaged: Path) -> Path:
    # Named by content: versions of imgcap that ship different models share a cache without quarrel.
    if not (packaged / MANIFEST_FILE).is_file():
        raise ImgcapError("This installation of imgcap comes without its default model.", "Install the wheel again.")
    return cache_folder() / "shipped" / sha256(packaged / MANIFEST_FILE)[:16]


def _unpack_default() -> Path:
    packaged = _packaged_default()
    folder = _default_folder(packaged)
    files = {**_read_manifest(packaged), MANIFEST_FILE: _describe(packaged / MANIFEST_FILE)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        for name, wanted in files.items():
            if not _matches(folder / name, wanted):
                if not _matches(packaged / name, wanted):
                    raise ImgcapError(f"The installed default model is damaged ({name}).", "Install imgcap again.")
                with replacing(folder / name) as partial:
                    shutil.copyfile(packaged / name, partial)
    except OSError:  # the cache is full, or cannot be written
        verify(packaged)
        return packaged
    return folder


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
    try:
        info = file.stat()
        if not S_ISREG(info.st_mode) or info.st_size != wanted.get("bytes"):  # reading a pipe would never end
            return False
        return sha256(file) == wanted.get("sha256")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ImgcapError(f"{file} cannot be read: {reason(error)}.") from None
