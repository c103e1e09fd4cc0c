"""The image encoder: Inception V3 without its classifier, and the settings that its features depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imgcap.device import pick_device
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import make_folder, sha256, write_tensors
from imgcap.images.decoding import RESIZE, Pixels
from imgcap.model.calibration import calibrate
from imgcap.model.inception import InceptionV3, fold_batch_norms
from imgcap.model.quantization import (
    PREFIX,
    ConvIntegers,
    calibration_images,
    from_tensors,
    is_supported,
    quantize,
    to_tensors,
)
from imgcap.model.store import ENCODER_FILE, cache_folder, locate
from imgcap.model.torchvision_compat import import_torchvision
from imgcap.model.workers import workers

IMAGENET = "imagenet"
PRECISIONS = FLOAT32, INT8 = "float32", "int8"
"""Precisions that an encoder can compute in."""
AUTO = "auto"
"""The precision that `automatic_precision` chooses."""

_MIN_PIXELS, _MAX_PIXELS = 75, 2048
_NOT_USED = ("fc.", "AuxLogits.", PREFIX)
"""Prefixes of the weights in torchvision's Inception V3 that an encoder does not need, and of `ConvIntegers`."""

_AT_ONCE = {FLOAT32: (4,), INT8: (8, 4)}
"""Images that a thread encodes at once, while there are enough: calling a layer takes as long for four images as for
one. Integers are computed so fast that it counts up to eight."""


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `UsageError` if `device` cannot compute in `precision`."""
    if precision not in PRECISIONS:
        raise UsageError(f"There is no precision {precision!r}.", f"Give {', '.join(PRECISIONS)} or {AUTO}.")
    if precision == INT8 and device.type != "cpu":
        raise UsageError("The precision int8 needs a CPU.", "Add --device cpu.")
    if precision == INT8 and not is_supported():
        raise UsageError(
            "This processor or this version of torch does not support fast 8-bit integers (VNNI).",
            "Leave out --precision int8.",
        )


def automatic_precision(device: torch.device) -> tuple[str, str]:
    """The precision to use on `device` if captions may depend on the machine, and why: int8 where it is fast."""
    if device.type != "cpu":
        return FLOAT32, "int8 needs a CPU"
    if not is_supported():
        return FLOAT32, "this processor or this version of torch does not support fast 8-bit integers (VNNI)"
    return INT8, "this processor supports fast 8-bit integers (VNNI)"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware: a GPU or a CPU with AMX."""
    if device.type == "cpu":
        get_capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)  # missing in older versions
        return bool(get_capabilities().get("amx_bf16"))
    return device.type == "cuda"


@dataclass(frozen=True)
class EncoderConfig:
    """Settings that the features depend on besides the weights; stored in the header of the weights file."""

    pixels: int = 299
    """Side of the square input image."""
    resize: str = RESIZE
    """Name of the resize method; see `images.decoding.squash`."""
    count_padding: bool = True
    """Whether average pools count the zero padding; true for torchvision's weights."""

    @classmethod
    def from_header(cls, header: dict[str, str], file: Path) -> EncoderConfig:
        """Read the `imgcap` entry of a safetensors header; without one, the settings are torchvision's.

        Raises `ImgcapError` if this version does not support the settings.
        """
        try:
            config = cls(**json.loads(header.get("imgcap", "{}")))
        except (TypeError, ValueError, RecursionError):
            raise ImgcapError(f"The header of {file} does not describe a known encoder.") from None
        if config.resize != RESIZE:
            raise ImgcapError(
                f"{file} needs images resized with {config.resize!r}, which this version does not support."
            )
        if type(config.count_padding) is not bool:
            raise ImgcapError(f"In the header of {file}, count_padding is neither true nor false.")
        if type(config.pixels) is not int or not _MIN_PIXELS <= config.pixels <= _MAX_PIXELS:
            raise ImgcapError(
                f"{file} needs images of {config.pixels!r} pixels; supported are {_MIN_PIXELS} to {_MAX_PIXELS}."
            )
        return config


class Encoder:
    """Turns images into features: uint8 (B, S, S, 3) -> float32 (B, 2048), where S is `config.pixels`."""

    def __init__(self, network: InceptionV3, config: EncoderConfig, device: torch.device) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        self.device = device
        self.precision = FLOAT32

    @classmethod
    def load(
        cls, file: Path, device: torch.device | None = None, fold: bool = True, precision: str = FLOAT32
    ) -> Encoder:
        """Load a .safetensors file with torchvision's names; `fold=False` keeps the batch norms for training.

        `precision` is the precision of the computation, or "auto"; see `quantize` and `automatic_precision`.

        Raises `ImgcapError` if the file cannot be read or its weights do not fit, and `UsageError` if the device does
        not support the precision.
        """
        device = device or pick_device()
        precision = automatic_precision(device)[0] if precision == AUTO else precision
        check_precision(precision, device)
        weights, config = read_encoder(file)
        with torch.device("meta"):
            network = InceptionV3(config.count_padding)
        wanted = network.state_dict()
        for name, tensor in wanted.items():
            if name.endswith("num_batches_tracked"):
                weights.setdefault(name, torch.zeros((), dtype=tensor.dtype))
            if name not in weights or weights[name].shape != tensor.shape:
                raise ImgcapError(
                    f"{file} does not hold the weights of an Inception V3: {name} is missing or misshapen."
                )
        if strange := [name for name in weights if name not in wanted and not name.startswith(_NOT_USED)]:
            raise ImgcapError(f"{file} does not hold the weights of an Inception V3: it has no {strange[0][:80]}.")
        network.load_state_dict({name: weights[name].to(wanted[name].dtype) for name in wanted}, assign=True)
        # A NaN is both minimum and maximum; testing every value takes six times as long.
        if not all(torch.stack(tensor.aminmax()).isfinite().all() for tensor in network.state_dict().values()):
            raise ImgcapError(f"{file} holds weights that are not numbers.")
        network.eval().requires_grad_(not fold)
        if fold:
            fold_batch_norms(network)
        encoder = cls(network, config, device)
        if precision == INT8:
            encoder.quantize(weights, file)
        return encoder

    def quantize(self, weights: dict[str, Tensor], file: Path) -> None:
        """Switch to 8-bit integers: faster, but features change by up to a per cent. See `quantization`.

        The `weights`, all that `file` holds, may include `ConvIntegers`. Without them, four bundled images serve to
        compute less exact ones. Raises `ImgcapError` if they do not fit the network.
        """
        try:
            quantize(self.network, self.integers(weights))
        except (TypeError, ValueError):
            raise ImgcapError(
                f"{file} holds integers that do not fit its weights.", "Leave out --precision int8."
            ) from None
        self.precision = INT8

    def integers(self, weights: dict[str, Tensor]) -> dict[str, ConvIntegers]:
        """The integers of each convolution, from a file's `weights` or from four bundled images."""
        if stored := from_tensors(weights):
            return stored
        images = torch.from_numpy(np.stack(calibration_images(self.config.pixels)))
        return calibrate(self.network, [self.to_input(images)], thorough=False)

    @torch.inference_mode()
    def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
        """Encode a batch of decoded images. The features are on the CPU."""
        images = torch.from_numpy(np.stack(pixels))
        if self.device.type == "cpu":
            return self._encode_in_threads(images)
        # By default a GPU rounds factors to 10 bits (TF32), but features must not depend on the device.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features: Tensor = self.network(self.to_input(images))
            return features.float().cpu()

    def _encode_in_threads(self, images: Tensor) -> Tensor:
        """Encode images with a thread for each, while there are enough: threads that share an image wait for each other
        a hundred times."""
        threads = torch.get_num_threads()
        count = min(threads, len(images))
        sizes: list[int] = []
        for size in _AT_ONCE[self.precision]:
            rounds = (len(images) - sum(sizes)) // (count * size)
            sizes += [size] * (count * rounds)
        sizes += [1] * (len(images) - sum(sizes))
        pool = workers(count, threads // count) if count > 1 else None
        return torch.cat(list((pool.map if pool else map)(self._encode_part, torch.split(images, sizes))))

    @torch.inference_mode()
    def _encode_part(self, images: Tensor) -> Tensor:
        """Encode a few images on a CPU, the large maps one image at a time: they stay in the processor's caches, and
        below the 32 MB above which glibc returns memory to the system."""
        maps = [self.network.to_small_maps(self.to_input(image)) for image in torch.split(images, 1)]
        features: Tensor = self.network.to_features(torch.cat(maps) if len(maps) > 1 else maps[0])
        return features

    def to_input(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) -> the network's input, (B, 3, S, S), channels last, on the encoder's device.

        The input is float32 in [-1, 1], or the unchanged pixels if the network computes in integers.
        """
        x = pixels.to(self.device).permute(0, 3, 1, 2)
        return x if self.precision == INT8 else x.float().div_(127.5).sub_(1)


def read_encoder(file: Path) -> tuple[dict[str, Tensor], EncoderConfig]:
    """Read the weights in their stored precision, and the settings. Raises `ImgcapError`."""
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return weights, EncoderConfig.from_header(dict(opened.metadata() or {}), file)
    except FileNotFoundError:
        raise ImgcapError(f"The encoder {file} does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise ImgcapError(f"{file} is not a readable .safetensors file: {error}.") from None


def fingerprint(file: Path) -> str:
    """SHA-256 of the weights as float32 and the settings: equal fingerprints mean equal features."""
    weights, config = read_encoder(file)
    digest = hashlib.sha256(json.dumps(asdict(config)).encode())
    for name in sorted(weights):
        if not name.endswith("num_batches_tracked") and not name.startswith(_NOT_USED):
            digest.update(name.encode())
            digest.update(weights[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_encoder(
    file: Path,
    weights: dict[str, Tensor],
    config: EncoderConfig,
    dtype: torch.dtype,
    integers: Mapping[str, ConvIntegers] | None = None,
) -> None:
    """Write `weights` (torchvision's names) and `config` to a .safetensors file, floating-point values as `dtype`.

    `integers` are those of `calibrate` for exactly these weights; any among the weights are left out.
    """
    kept = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in weights.items()
        if not name.startswith(_NOT_USED)
    }
    write_tensors(file, kept | to_tensors(integers or {}), {"imgcap": json.dumps(asdict(config))})


def find_encoder(name_or_path: str) -> Path:
    """Find the weights file of a model (by name or folder) or of `imagenet`; the path of a file is returned as it is.

    Raises `ImgcapError` if there is no such encoder, or if `imagenet` cannot be downloaded.
    """
    if name_or_path == IMAGENET:
        return _imagenet()
    if os.path.isfile(name_or_path):  # noqa: PTH113 (a Path raises for names that are too long)
        return Path(name_or_path)
    return locate(name_or_path) / ENCODER_FILE


def _imagenet() -> Path:
    """torchvision's IMAGENET1K_V1 weights, downloaded once and stored as .safetensors in the user cache."""
    folder = cache_folder() / "encoders"
    kept = folder / "inception_v3_imagenet1k_v1.safetensors"
    if kept.exists():
        return kept
    make_folder(folder)
    weights: Any = import_torchvision("torchvision.models").Inception_V3_Weights.IMAGENET1K_V1
    file = folder / weights.url.rsplit("/", 1)[-1]
    # The name ends in the first digits of the SHA-256, which torch checks only for its own downloads.
    if file.exists() and not sha256(file).startswith(file.stem.rsplit("-", 1)[-1]):
        raise ImgcapError(
            f"{file} is damaged or does not hold the ImageNet weights.", f"Download it again from {weights.url}."
        )
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, model_dir=str(folder), weights_only=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise ImgcapError(
            f"The ImageNet weights could not be downloaded from {weights.url}: {error}.",
            f"Without a network, save that file as {folder / file.name} and run the command again.",
        ) from None
    save_encoder(kept, state, EncoderConfig(), torch.float32)
    file.unlink(missing_ok=True)
    return kept
