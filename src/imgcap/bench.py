"""Measure the speed of imgcap on this machine: encoder, start, and a folder of large photographs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from imgcap._version import __version__
from imgcap.captioning.captioner import Captioner, load_model
from imgcap.errors import ImgcapError
from imgcap.model.encoder import INT8, Encoder, read_encoder
from imgcap.model.inception import InceptionV3
from imgcap.model.quantization import is_supported
from imgcap.model.torchvision_compat import import_torchvision

BATCH_SIZES = (1, 8, 32)
SECONDS = 3.0
"""Duration of each encoder measurement. The fastest turn counts, because other programs only slow a turn down."""
MATRIX = 2048
"""Side of the square matrices whose product gives the processor's rate."""
STARTS = 3
PHOTOGRAPHS = 16
PHOTOGRAPH_SIZE = (4000, 3000)


@dataclass(frozen=True)
class Measured:
    """One figure with its name and unit."""

    name: str
    value: float
    unit: str


def machine(threads: int) -> str:
    """One line that describes the machine and the versions."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {threads} threads; imgcap {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}"
    )


def measure(model: str, device: str | None = None) -> Iterator[Measured]:
    """Measure one figure after another. Raises `ImgcapError` if the model is unknown or a measured command fails."""
    captioner = load_model(model, device)
    yield from measure_encoder(captioner)
    if captioner.encoder.device.type == "cpu" and is_supported():
        quantized = load_model(model, device, INT8)
        for size in BATCH_SIZES:
            yield Measured(f"encoder in int8, batches of {size}", encoder_rate(quantized.encoder, size), "images/s")
    with TemporaryDirectory() as folder:
        photographs = [draw_photograph(Path(folder) / f"{i}.jpg", seed=i) for i in range(PHOTOGRAPHS)]
        yield Measured("torch alone, import", _fastest([sys.executable, "-c", "import torch"]), "s")
        command = [sys.executable, "-m", "imgcap", "caption", str(photographs[0]), "--model", model]
        yield Measured("imgcap caption, one photograph", _fastest(command), "s")
        megapixels = PHOTOGRAPH_SIZE[0] * PHOTOGRAPH_SIZE[1] / 1e6
        name = f"folder of {PHOTOGRAPHS} photographs of {megapixels:.0f} megapixels"
        yield Measured(name, _rate(lambda: len(captioner.caption(photographs))), "images/s")


def measure_encoder(captioner: Captioner) -> Iterator[Measured]:
    """Rates of the encoder; on a CPU also compared with plain torchvision and with the rate of `torch.mm`."""
    encoder = captioner.encoder
    plain = plain_torchvision(captioner) if encoder.device.type == "cpu" else None
    work = multiply_adds(InceptionV3(encoder.config.count_padding), encoder.config.pixels)
    for size in BATCH_SIZES:
        name = f"batches of {size}"
        if plain is None:
            yield Measured(f"encoder, {name}", encoder_rate(encoder, size), "images/s")
            continue
        images = torch.rand(size, 3, *(encoder.config.pixels,) * 2).mul_(2).sub_(1)
        left, right = torch.rand(2, MATRIX, MATRIX)
        calls: dict[str, Callable[[], object]] = {
            "encoder": _encode_noise(encoder, size),
            "torchvision": lambda images=images: plain(images),  # type: ignore[misc]
            "torch.mm": lambda left=left, right=right: left @ right,  # type: ignore[misc]
        }
        with torch.inference_mode():
            seconds = fastest_in_turns(calls, len(calls) * SECONDS)
        rate, product_rate = size / seconds["encoder"], MATRIX**3 / seconds["torch.mm"]
        yield Measured(f"encoder, {name}", rate, "images/s")
        yield Measured(f"encoder / plain torchvision, {name}", rate * seconds["torchvision"] / size, "times")
        yield Measured(f"encoder / torch.mm, {name}", rate * work / product_rate, "of its multiply-adds/s")


def plain_torchvision(captioner: Captioner) -> nn.Module | None:
    """torchvision's Inception V3 with the encoder's weights and without classifiers; None without torchvision."""
    try:
        models = import_torchvision("torchvision.models")
    except ImportError:
        return None
    network: nn.Module = models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    network.fc = nn.Identity()
    weights, _ = read_encoder(captioner.model.encoder_file)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    return network.eval()


@torch.inference_mode()
def multiply_adds(network: nn.Module, pixels: int) -> int:
    """Multiply-adds of all convolutions of `network` for one image of `pixels` x `pixels`."""
    counts: list[int] = []

    def count(convolution: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        counts.append(output.numel() * convolution.weight[0].numel())

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.Conv2d)]
    network.eval()(torch.zeros(1, 3, pixels, pixels))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def fastest_in_turns(
    calls: dict[str, Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of each call, by `clock`, in its fastest turn; the calls take turns for about `seconds`.

    A short call is repeated until its turn is as long as that of the longest: short turns would more often be free of
    other programs and changes of the processor's clock.
    """

    def turn(call: Callable[[], object], repeats: int) -> float:
        begun = clock()
        for _ in range(repeats):
            call()
        return (clock() - begun) / repeats

    for call in calls.values():
        call()  # the first call allocates memory
    once = {name: max(turn(call, 1), 1e-6) for name, call in calls.items()}
    repeats = {name: max(1, round(max(once.values()) / own)) for name, own in once.items()}
    fastest = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    while True:
        for name, call in calls.items():
            fastest[name] = min(fastest[name], turn(call, repeats[name]))
        if time.perf_counter() >= end:
            return fastest


def encoder_rate(encoder: Encoder, batch_size: int, seconds: float | None = None) -> float:
    """Images that the encoder encodes per second in batches of `batch_size`, in its fastest batch."""
    call = _encode_noise(encoder, batch_size)
    return batch_size / fastest_in_turns({"encoder": call}, SECONDS if seconds is None else seconds)["encoder"]


def _encode_noise(encoder: Encoder, batch_size: int) -> Callable[[], object]:
    shape = (batch_size, *(encoder.config.pixels,) * 2, 3)
    pixels = list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return lambda: encoder(pixels)


def draw_photograph(file: Path, seed: int = 0, size: tuple[int, int] = PHOTOGRAPH_SIZE) -> Path:
    """Write a JPEG like that of a camera: smooth shapes with fine noise."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = random.integers(0, 24, (size[1], size[0], 1), np.uint8)
    Image.fromarray(np.asarray(shapes) // 8 * 7 + noise).save(file, quality=90)
    return file


def _rate(run: Callable[[], int]) -> float:
    begun = time.perf_counter()
    return run() / (time.perf_counter() - begun)


def _fastest(command: list[str]) -> float:
    """Seconds that the fastest of `STARTS` processes took."""
    return min(_seconds(command) for _ in range(STARTS))


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImgcapError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return time.perf_counter() - begun


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
