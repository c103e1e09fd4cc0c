"""Whether imgcap can work on this machine: one finding a check, and what to do about what is wrong.

Only light modules are imported at the top, so that a torch that cannot be imported becomes a finding too.
"""

from __future__ import annotations

import operator
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from imgcap._version import __version__
from imgcap.errors import ImgcapError
from imgcap.files import sha256, write_tensors
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, DEFAULT_MODEL, available_models, cache_folder, locate
from imgcap.model.torchvision_compat import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor

    from imgcap.captioning.captioner import Captioner
    from imgcap.images.decoding import Pixels
    from imgcap.model.folder import Model

LEAST_FREE = 200_000_000
"""Bytes on the disk of the cache: the default model, unpacked, and some room."""
FEATURE_TOLERANCE = 0.01
"""Greatest distance of features from the reference, see `captioner.feature_distances`.

On the default model, folded and packed weights make 0.00005, and the most harmless mismatch of the input 0.4.
"""

EXPECTED_FILE = Path(__file__).with_name("expected.safetensors")
"""What the shipped model made of the bundled image of a cat where it was packaged, see `write_expected`."""

_REINSTALL = "Install imgcap again, into a fresh virtual environment."
_OTHER_CACHE = "Set IMGCAP_CACHE_DIR to a folder that can be written."
_OTHER_MODEL = "Train, copy or import the model again."
_CAT, _CAT_COLOUR, _COLOUR_TOLERANCE = 1, (147.7, 111.4, 86.8), 3.0
"""Which bundled image is the cat's, and the mean of its red, green and blue, 0-255."""

_COMPARE: dict[str, Callable[[list[int], list[int]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
P = ParamSpec("P")


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    name: str
    ok: bool
    text: str
    remedy: str = ""
    """What to do; empty if all is well."""


def examine(model: str = DEFAULT_MODEL) -> Iterator[Finding]:
    """All checks, in order; none raises, and none keeps the others from running."""
    yield check_python()
    yield check_imgcap()
    for name, bounds in _requirements("imgcap").items():
        yield check_torchvision(bounds) if name == "torchvision" else check_package(name, bounds)
    yield check_cache()
    yield check_disk()
    yield check_threads()
    yield check_processor()
    names = [DEFAULT_MODEL]
    with suppress(OSError):  # of which `check_cache` tells
        names = available_models()
    files = {name: check_files(name) for name in [*names, model]}
    yield from files.values()
    if not files[model].ok:
        return
    try:
        from imgcap.captioning.captioner import load_model

        captioner = load_model(model)
    except Exception as error:  # a broken torch raises whatever it stumbles over
        yield _wrong("loading", error, _REINSTALL)
        return
    yield check_encoder(captioner)
    yield check_features(captioner)
    yield check_captions(captioner)


def _check(name: str, remedy: str) -> Callable[[Callable[P, str]], Callable[P, Finding]]:
    """Make a function that tells what is well, or raises, return a `Finding`.

    `{}` in `name` stands for the first argument; `remedy` is for errors without a hint.
    """

    def decorate(check: Callable[P, str]) -> Callable[P, Finding]:
        @wraps(check)
        def run(*args: P.args, **kwargs: P.kwargs) -> Finding:
            named = name.format(*args)
            try:
                return Finding(named, True, check(*args, **kwargs))
            except Exception as error:  # one check must not stop the others
                return _wrong(named, error, remedy)

        return run

    return decorate


def _wrong(name: str, error: Exception, remedy: str) -> Finding:
    if isinstance(error, ImgcapError):
        return Finding(name, False, str(error), error.hint or remedy)
    return Finding(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)


@_check("Python", _REINSTALL)
def check_python() -> str:
    version, bounds = platform.python_version(), metadata.metadata("imgcap")["Requires-Python"]
    if not _fits(version, bounds):
        raise ImgcapError(f"Python {version} is not {bounds}.", "Use another Python.")
    return f"{version} ({bounds})"


@_check("imgcap", _REINSTALL)
def check_imgcap() -> str:
    installed = metadata.version("imgcap")
    if installed != __version__:
        raise ImgcapError(f"imgcap {__version__} runs, but {installed} is installed.")
    return f"{__version__}, {Path(__file__).parent}"


@_check("{}", _REINSTALL)
def check_package(name: str, bounds: str) -> str:
    """A package that imgcap needs in a version within `bounds`, such as ">=2.6,<2.14"."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise ImgcapError(f"{name} is not installed.", f'Run: pip install "{name}{bounds}"') from None
    if not _fits(version, bounds):
        raise ImgcapError(f"{name} {version} is not {bounds}.", f'Run: pip install "{name}{bounds}"')
    return f"{version} ({bounds})"


@_check("torchvision", "Install torch and torchvision again, together.")
def check_torchvision(bounds: str) -> str:
    """torchvision goes with one version of torch each, which it declares; `--encoder imagenet` alone imports it."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return "not installed; only --encoder imagenet needs it"
    if not _fits(version, bounds):
        raise ImgcapError(f"torchvision {version} is not {bounds}.", f'Run: pip install "torchvision{bounds}"')
    torch, wanted = metadata.version("torch"), _requirements("torchvision").get("torch", "")
    if not _fits(torch, wanted):
        raise ImgcapError(f"torchvision {version} is made for torch {wanted}, and this is torch {torch}.")
    import_torchvision("torchvision.models")
    return f"{version} ({bounds}), imports beside torch {torch}"


@_check("cache", _OTHER_CACHE)
def check_cache() -> str:
    folder = cache_folder()
    if not folder.exists():
        above = _existing(folder)
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise ImgcapError(f"The cache {folder} is not there and cannot be made.")
        return f"{folder}, not there yet"
    if not folder.is_dir():
        raise ImgcapError(f"The cache {folder} is not a folder.")
    parts = [f"{part.name} {_size(part) / 1e6:,.0f} MB" for part in sorted(folder.iterdir()) if part.is_dir()]
    how = "writable" if os.access(folder, os.W_OK) else "read-only, so that no model can be added"
    return f"{folder}, {how}: {', '.join(parts) or 'empty'}"


@_check("free disk", _OTHER_CACHE)
def check_disk() -> str:
    folder = _existing(cache_folder())
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE and os.access(folder, os.W_OK):  # nothing is written where nothing can be
        raise ImgcapError(
            f"Only {free / 1e6:,.0f} MB are free at {folder}, where at least {LEAST_FREE / 1e6:,.0f} should be.",
            "Make room, or set IMGCAP_CACHE_DIR to a folder on another disk.",
        )
    return f"{free / 1e9:,.1f} GB at {folder}"


@_check("threads", _REINSTALL)
def check_threads() -> str:
    import torch

    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > cores:
        raise ImgcapError(f"torch uses {threads} threads on {cores} cores.", f"Set OMP_NUM_THREADS to {cores}.")
    return f"{threads} on {cores} cores"


@_check("processor", _REINSTALL)
def check_processor() -> str:
    from imgcap.device import pick_device
    from imgcap.model.encoder import has_fast_bfloat16
    from imgcap.model.quantization import is_supported

    device = pick_device()
    int8 = "--precision int8 is fast (VNNI)" if is_supported() else "no --precision int8 (VNNI)"
    return f"{device.type}; {int8}, {'fast' if has_fast_bfloat16(device) else 'no fast'} bfloat16"


@_check("model {}", _OTHER_MODEL)
def check_files(name: str) -> str:
    """Checksums of a model by name or folder; of the default model, what is damaged or not there is unpacked again."""
    return f"all files are as the manifest says, {locate(name)}"


@_check("encoder", _OTHER_MODEL)
def check_encoder(captioner: Captioner) -> str:
    from imgcap.model.encoder import fingerprint

    config = captioner.model.config
    if fingerprint(captioner.model.encoder_file) != config.encoder_fingerprint:
        raise ImgcapError(f"The encoder in {captioner.model.folder} is not the one that the decoder was trained with.")
    return "the one that the decoder was trained with"


@_check("features", _REINSTALL)
def check_features(captioner: Captioner) -> str:
    """Features of an image of a cat, next to a plain computation, to the expected ones and to the training images'.

    All are needed. A mismatch of the input (channels swapped, another range) gives features that no statistic of a few
    images tells from natural ones, but the plain computation does. Where that is as wrong, the expected ones tell,
    which are known of the shipped encoder alone. Statistics that are of another encoder put natural features far away.
    """
    import numpy as np

    from imgcap.captioning.captioner import MAX_DISTANCE, feature_distances
    from imgcap.model.quantization import calibration_images

    pixels = calibration_images(captioner.encoder.config.pixels)[_CAT]
    if np.abs(pixels.mean((0, 1)) - _CAT_COLOUR).max() > _COLOUR_TOLERANCE:
        raise ImgcapError("The bundled image of a cat is decoded to other colours than it has.")
    decoder, features = captioner.model.decoder, captioner.encoder([pixels])
    if not features.isfinite().all():
        raise ImgcapError("The features of the bundled image of a cat are not numbers.")
    known, expected = _read_expected()
    origins = {"the reference": _reference_features(captioner.model.encoder_file, pixels)}
    if known["encoder"] == captioner.model.config.encoder_fingerprint:
        origins["the expected ones"] = expected
    differences = {name: feature_distances(decoder, features, origin).item() for name, origin in origins.items()}
    for name, difference in differences.items():
        if not difference <= FEATURE_TOLERANCE:
            raise ImgcapError(
                f"The features of the bundled image of a cat differ from {name} by {difference:.2g} standard "
                f"deviations, where {FEATURE_TOLERANCE} are tolerated."
            )
    [distance] = feature_distances(decoder, features).tolist()
    if not distance <= MAX_DISTANCE:
        raise ImgcapError(
            f"The features of the bundled image of a cat lie {distance:.3g} standard deviations from those of the "
            f"training images, where {MAX_DISTANCE:.0f} are tolerated.",
            _OTHER_MODEL,
        )
    found = "".join(f", {difference:.1g} from {name}" for name, difference in differences.items())
    return f"{distance:.2f} standard deviations from the training images{found}"


@_check("captions", _OTHER_MODEL)
def check_captions(captioner: Captioner) -> str:
    from imgcap.model.quantization import calibration_images

    features = captioner.encoder(calibration_images(captioner.encoder.config.pixels))
    model = captioner.model
    captions = [model.text(found[0]) for found in model.search(features, model.config.search)]
    if not captions[_CAT]:
        raise ImgcapError("The bundled image of a cat gets an empty caption.")
    if len(set(captions)) == 1:
        raise ImgcapError(f"The {len(captions)} bundled images all get the same caption, {captions[0]!r}.")
    known, _ = _read_expected()
    if known["model"] == _identity(model) and captions[_CAT] != known["caption"]:
        raise ImgcapError(
            f"The bundled image of a cat gets the caption {captions[_CAT]!r} instead of {known['caption']!r}.",
            _REINSTALL,
        )
    return f"{len(set(captions))} different ones for {len(captions)} images; a cat: {captions[_CAT]}"


def write_expected(captioner: Captioner) -> None:
    """Write what a model makes of the bundled image of a cat: features, float32 (1, 2048), and caption.

    It holds for all models with this encoder, or also with these settings and this decoder.
    """
    from imgcap.model.quantization import calibration_images

    model = captioner.model
    features = captioner.encoder([calibration_images(captioner.encoder.config.pixels)[_CAT]])
    [[best, *_]] = model.search(features, model.config.search)
    header = {"encoder": model.config.encoder_fingerprint, "model": _identity(model), "caption": model.text(best)}
    write_tensors(EXPECTED_FILE, {"features": features}, header)


def _read_expected() -> tuple[dict[str, str], Tensor]:
    from safetensors import safe_open

    with safe_open(EXPECTED_FILE, framework="pt") as opened:
        return opened.metadata(), opened.get_tensor("features")


def _identity(model: Model) -> str:
    """SHA-256 of the settings and of the decoder, by which captions are known; the card makes no difference."""
    return " ".join(sha256(model.folder / name) for name in (CONFIG_FILE, DECODER_FILE))


def _reference_features(encoder_file: Path, pixels: Pixels) -> Tensor:
    """What the network makes of RGB in [-1, 1], (1, 2048), in the most plain way: nothing folded or packed."""
    import torch

    from imgcap.model.encoder import Encoder

    network = Encoder.load(encoder_file, torch.device("cpu"), fold=False).network
    x = torch.from_numpy(pixels).float() / 127.5 - 1
    with torch.inference_mode():
        return network(x.permute(2, 0, 1)[None])  # type: ignore[no-any-return]


def _requirements(package: str) -> dict[str, str]:
    """What an installed package declares to need, extras left out: name -> bounds; nothing if it is not installed."""
    try:
        declared = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.fullmatch(r"([\w.-]+)\s*\(?([^;()]*)\)?", line.strip()) for line in declared)
    return {match[1]: match[2].strip() for match in found if match}


def _fits(version: str, bounds: str) -> bool:
    """Whether a version is within `bounds` such as ">=2.6,<2.14"; builds, as in 2.13.0+cpu, make no difference."""
    compared = re.findall(r"(>=|<=|==|>|<)\s*(\d[\d.]*)", bounds)
    return all(_COMPARE[how](_release(version), _release(bound)) for how, bound in compared)


def _release(version: str) -> list[int]:
    """2.13.0+cpu -> [2, 13]: zeros at the end do not count."""
    numbers = [int(number) for number in re.split(r"[^\d.]", version)[0].split(".") if number]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _existing(path: Path) -> Path:
    """`path`, or the nearest above it that is there."""
    return next(above for above in (path, *path.parents) if above.exists())


def _size(folder: Path) -> int:
    """Bytes in all files below a folder, as far as they can be seen."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(inside, name)).st_size  # noqa: PTH118 (`os.walk` gives strings)
    return total
