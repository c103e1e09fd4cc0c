"""Check whether imgcap works on this machine. Each check gives one finding, with a remedy if something is wrong.

Only light modules are imported at the top, so that a torch that cannot be imported becomes a finding too.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from imgcap._version import DISTRIBUTION, __version__
from imgcap.errors import ImgcapError
from imgcap.files import reason, sha256, write_tensors
from imgcap.model.store import (
    CONFIG_FILE,
    DECODER_FILE,
    DEFAULT_MODEL,
    NoCacheError,
    available_models,
    cache_folder,
    locate,
    other_versions,
)
from imgcap.model.torchvision_compat import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor

    from imgcap.captioning.captioner import Captioner
    from imgcap.images.decoding import Pixels
    from imgcap.model.folder import Model

LEAST_FREE = 200_000_000
"""Bytes that should be free on the disk of the cache: the unpacked default model and some room."""
FEATURE_TOLERANCE = 0.01
"""Maximum distance of features from the reference; see `captioner.feature_distances`.

With the default model, folded and packed weights cause 0.00005, and the smallest mismatch of the input 0.4.
"""

EXPECTED_FILE = Path(__file__).with_name("doctor_expected.safetensors")
"""Features and caption of the bundled image of a cat, recorded when the model was packaged; see `write_expected`."""

_REINSTALL = f"Install {DISTRIBUTION} again, into a new virtual environment."
_OTHER_CACHE = "Set IMGCAP_CACHE_DIR to a folder that can be written."
_OTHER_MODEL = "Train, copy or import the model again."
_CAT, _CAT_COLOUR, _COLOUR_TOLERANCE = 1, (147.7, 111.4, 86.8), 3.0
"""Number of the bundled image of a cat, and its mean red, green and blue, 0-255."""

P = ParamSpec("P")


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    name: str
    ok: bool
    text: str
    remedy: str = ""
    """What to do; empty if nothing is wrong."""


def examine(model: str = DEFAULT_MODEL) -> Iterator[Finding]:
    """Run all checks in order. None of them raises or stops the others."""
    yield check_python()
    yield check_imgcap()
    for name, bounds in _requirements(DISTRIBUTION).items():
        yield check_torchvision(bounds) if name == "torchvision" else check_package(name, bounds)
    yield check_cache()
    yield check_disk()
    yield check_threads()
    yield check_processor()
    files = {name: check_files(name) for name in [*available_models(), model]}
    yield from files.values()
    if not files[model].ok:
        return
    captioners: list[Captioner] = []
    loading = check_loading(model, captioners)
    if not loading.ok:
        yield loading
    for captioner in captioners:
        yield check_encoder(captioner)
        yield check_features(captioner)
        yield check_captions(captioner)


def _check(name: str, remedy: str) -> Callable[[Callable[P, str]], Callable[P, Finding]]:
    """Make a function that returns a description, or raises, return a `Finding` instead.

    `{}` in `name` is replaced by the first argument. `remedy` is used for errors without a hint.
    """

    def decorate(check: Callable[P, str]) -> Callable[P, Finding]:
        @wraps(check)
        def run(*args: P.args, **kwargs: P.kwargs) -> Finding:
            title = name.format(*args)
            try:
                return Finding(title, True, check(*args, **kwargs))
            except ImgcapError as error:
                return Finding(title, False, str(error), error.hint or remedy)
            except OSError as error:
                return Finding(title, False, f"{error.filename or title} cannot be used: {reason(error)}.", remedy)
            except Exception as error:  # one check must not stop the others, and a broken torch can raise anything
                return Finding(title, False, f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)

        return run

    return decorate


@_check("Python", _REINSTALL)
def check_python() -> str:
    version = platform.python_version().rstrip("+")  # as of builds between two releases
    bounds = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if not _fits(version, bounds):
        raise ImgcapError(f"Python {version} is not {bounds}.", "Use another version of Python.")
    return f"{version} ({bounds})"


@_check("imgcap", _REINSTALL)
def check_imgcap() -> str:
    installed = metadata.version(DISTRIBUTION)
    if installed != __version__:
        raise ImgcapError(f"imgcap {__version__} is running, but {installed} is installed.")
    return f"{__version__}, {Path(__file__).parent}"


@_check("{}", _REINSTALL)
def check_package(name: str, bounds: str) -> str:
    """Check that a package is installed in a version within `bounds`, such as ">=2.6,<2.14"."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise ImgcapError(f"{name} is not installed.", f'Run: pip install "{name}{bounds}"') from None
    if not _fits(version, bounds):
        raise ImgcapError(f"{name} {version} is not {bounds}.", f'Run: pip install "{name}{bounds}"')
    return f"{version} ({bounds})"


@_check("torchvision", "Install torch and torchvision again, together.")
def check_torchvision(bounds: str) -> str:
    """Check torchvision: it declares the one version of torch that it fits. Only `--encoder imagenet` imports it."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return "not installed; only --encoder imagenet needs it"
    if not _fits(version, bounds):
        raise ImgcapError(f"torchvision {version} is not {bounds}.", f'Run: pip install "torchvision{bounds}"')
    torch, required = metadata.version("torch"), _requirements("torchvision").get("torch", "")
    if not _fits(torch, required):
        raise ImgcapError(f"torchvision {version} needs torch {required}, but torch {torch} is installed.")
    import_torchvision("torchvision.models")
    return f"{version} ({bounds}), can be imported with torch {torch}"


@_check("cache", _OTHER_CACHE)
def check_cache() -> str:
    folder = cache_folder()
    if not folder.exists():
        above = _existing(folder)
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise ImgcapError(f"The cache {folder} does not exist and cannot be created.")
        return f"{folder}, does not exist yet"
    if not folder.is_dir():
        raise ImgcapError(f"The cache {folder} is not a folder.")
    parts = [f"{part.name} {_size(part) / 1e6:,.0f} MB" for part in sorted(folder.iterdir()) if part.is_dir()]
    access = "writable" if os.access(folder, os.W_OK) else "read-only, so no model can be added"
    old = other_versions()
    more = (
        f"; {sum(map(_size, old)) / 1e6:,.0f} MB are of other versions: `imgcap model clean` removes them"
        if old
        else ""
    )
    return f"{folder}, {access}: {', '.join(parts) or 'empty'}{more}"


@_check("free disk", _OTHER_CACHE)
def check_disk() -> str:
    try:
        folder = _existing(cache_folder())
    except NoCacheError:
        return "not needed, because there is no cache"
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE and os.access(folder, os.W_OK):  # nothing is written to a read-only folder
        raise ImgcapError(
            f"Only {free / 1e6:,.0f} MB are free at {folder}; imgcap needs {LEAST_FREE / 1e6:,.0f}.",
            "Free some space, or set IMGCAP_CACHE_DIR to a folder on another disk.",
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
    from imgcap.model.encoder import automatic_precision, has_fast_bfloat16

    device = pick_device()
    precision, why = automatic_precision(device)
    bfloat16 = f"{'fast' if has_fast_bfloat16(device) else 'no fast'} bfloat16"
    return f"{device.type}, {bfloat16}; --precision auto chooses {precision}, because {why}"


@_check("model {}", _OTHER_MODEL)
def check_files(name: str) -> str:
    """Check the checksums of a model by name or folder. Damaged files of the default model are unpacked again."""
    return f"all files match the manifest, {locate(name)}"


@_check("loading", _REINSTALL)
def check_loading(name: str, captioners: list[Captioner]) -> str:
    """Load a model and append it to `captioners`."""
    from imgcap.captioning.captioner import load_model

    captioners.append(load_model(name))
    return f"{name} can be loaded"


@_check("encoder", _OTHER_MODEL)
def check_encoder(captioner: Captioner) -> str:
    from imgcap.model.encoder import fingerprint

    config = captioner.model.config
    if fingerprint(captioner.model.encoder_file) != config.encoder_fingerprint:
        raise ImgcapError(f"The decoder in {captioner.model.folder} was trained with another encoder.")
    return "the one that the decoder was trained with"


@_check("features", _REINSTALL)
def check_features(captioner: Captioner) -> str:
    """Compare the features of an image of a cat with a plain computation, recorded ones and the training images.

    All three are needed. With a mismatched input (swapped channels, another range) the features still look natural, but
    they differ from the plain computation. If that is wrong too, they differ from the recorded features, which exist
    only for the shipped encoder. With the statistics of another encoder, natural features seem far away.
    """
    import numpy as np

    from imgcap.captioning.captioner import MAX_DISTANCE, feature_distances
    from imgcap.model.quantization import calibration_images

    pixels = calibration_images(captioner.encoder.config.pixels)[_CAT]
    if np.abs(pixels.mean((0, 1)) - _CAT_COLOUR).max() > _COLOUR_TOLERANCE:
        raise ImgcapError("The bundled image of a cat is decoded to wrong colours.")
    decoder, features = captioner.model.decoder, captioner.encoder([pixels])
    if not features.isfinite().all():
        raise ImgcapError("The features of the bundled image of a cat are not numbers.")
    recorded, expected = _read_expected()
    origins = {"the reference": _reference_features(captioner.model.encoder_file, pixels)}
    if recorded["encoder"] == captioner.model.config.encoder_fingerprint:
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
            f"The features of the bundled image of a cat are {distance:.3g} standard deviations away from those of the "
            f"training images; {MAX_DISTANCE:.0f} are tolerated.",
            _OTHER_MODEL,
        )
    others = "".join(f", {difference:.1g} from {name}" for name, difference in differences.items())
    return f"{distance:.2f} standard deviations from the training images{others}"


@_check("captions", _OTHER_MODEL)
def check_captions(captioner: Captioner) -> str:
    from imgcap.model.quantization import calibration_images

    features = captioner.encoder(calibration_images(captioner.encoder.config.pixels))
    model = captioner.model
    captions = [model.text(hypotheses[0]) for hypotheses in model.search(features, model.config.search)]
    if not captions[_CAT]:
        raise ImgcapError("The bundled image of a cat gets an empty caption.")
    if len(set(captions)) == 1:
        raise ImgcapError(f"The {len(captions)} bundled images all get the same caption, {captions[0]!r}.")
    recorded, _ = _read_expected()
    if recorded["model"] == _identity(model) and captions[_CAT] != recorded["caption"]:
        raise ImgcapError(
            f"The bundled image of a cat gets the caption {captions[_CAT]!r} instead of {recorded['caption']!r}.",
            _REINSTALL,
        )
    return f"{len(set(captions))} different ones for {len(captions)} images; a cat: {captions[_CAT]}"


def write_expected(captioner: Captioner) -> None:
    """Record a model's features, float32 (1, 2048), and caption of the bundled image of a cat.

    The features apply to all models with this encoder, the caption to models with this configuration and decoder.
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
    """SHA-256 of the configuration and the decoder, which determine the captions; the model card does not."""
    return " ".join(sha256(model.folder / name) for name in (CONFIG_FILE, DECODER_FILE))


def _reference_features(encoder_file: Path, pixels: Pixels) -> Tensor:
    """Features (1, 2048) of RGB in [-1, 1] from the unmodified network: nothing is folded or packed."""
    import torch

    from imgcap.model.encoder import Encoder

    network = Encoder.load(encoder_file, torch.device("cpu"), fold=False).network
    x = torch.from_numpy(pixels).float() / 127.5 - 1
    with torch.inference_mode():
        return network(x.permute(2, 0, 1)[None])  # type: ignore[no-any-return]


def _requirements(package: str) -> dict[str, str]:
    """Requirements of an installed package without extras: name -> bounds. Empty if it is not installed."""
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        with suppress(InvalidRequirement):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                found[requirement.name] = str(requirement.specifier)
    return found


def _fits(version: str, bounds: str) -> bool:
    return SpecifierSet(bounds).contains(version, prereleases=True)


def _existing(path: Path) -> Path:
    """`path` if it exists, else its nearest parent that exists, as far as this user can see."""
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))  # noqa: PTH110 (never raises)


def _size(folder: Path) -> int:
    """Size of all files in a folder and its subfolders, in bytes."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(inside, name)).st_size  # noqa: PTH118 (`os.walk` gives strings)
    return total
