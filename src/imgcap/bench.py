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

from imgcap._version import __version__
from imgcap.captioning.captioner import Captioner, load_model
from imgcap.errors import ImgcapError
from imgcap.model.encoder import INT8
from imgcap.model.quantization import is_supported

BATCH_SIZES = (1, 8, 32)
SECONDS = 3.0
"""Duration of each encoder measurement. The fastest batch counts, because other programs only slow a batch down."""
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
    for size in BATCH_SIZES:
        yield Measured(f"encoder, batches of {size}", encoder_rate(captioner, size), "images/s")
    if captioner.encoder.device.type == "cpu" and is_supported():
        quantized = load_model(model, device, INT8)
        yield Measured(f"encoder in int8, batches of {size}", encoder_rate(quantized, size), "images/s")
    with TemporaryDirectory() as folder:
        photographs = [draw_photograph(Path(folder) / f"{i}.jpg", seed=i) for i in range(PHOTOGRAPHS)]
        yield Measured("torch alone, import", _fastest([sys.executable, "-c", "import torch"]), "s")
        command = [sys.executable, "-m", "imgcap", "caption", str(photographs[0]), "--model", model]
        yield Measured("imgcap caption, one photograph", _fastest(command), "s")
        megapixels = PHOTOGRAPH_SIZE[0] * PHOTOGRAPH_SIZE[1] / 1e6
        name = f"folder of {PHOTOGRAPHS} photographs of {megapixels:.0f} megapixels"
        yield Measured(name, _rate(lambda: len(captioner.caption(photographs))), "images/s")


def encoder_rate(captioner: Captioner, batch_size: int, seconds: float = SECONDS) -> float:
    """Images that the encoder encodes per second in batches of `batch_size`, in its fastest batch."""
    pixels = [np.zeros((captioner.encoder.config.pixels,) * 2 + (3,), np.uint8)] * batch_size
    captioner.encoder(pixels)  # the first call allocates memory
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while not rates or time.perf_counter() < end:
        rates.append(_rate(lambda: len(captioner.encoder(pixels))))
    return max(rates)


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
