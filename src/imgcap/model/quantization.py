"""Inception V3 in 8-bit integers, for processors that multiply them several times as fast as float32.

Weights are int8 with a scale per output channel, activations uint8 with a step per channel. Sums are 32-bit integers
(Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference").
Average pools, the last maps and the layers that suffer most are float32.

A kernel knows one scale per map, so the steps of the channels are part of the weights that read them (Nagel et al.
2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"; Xiao et al. 2023, "SmoothQuant"). Biases
make up for what rounding the weights changes in the mean of a channel (Nagel et al.). Each weight is rounded up or down
so that the errors of an output cancel (Frantar et al. 2023, "GPTQ", as the nearest plane of Babai 1986).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from imgcap.images.decoding import Pixels, squash
from imgcap.model import one_dnn
from imgcap.model.inception import AveragePool, FoldedConv, InceptionV3

_CALIBRATION_FILE = Path(__file__).with_name("calibration.jpg")
"""Four images side by side, in the public domain or CC0: astronaut, cat, coffee and rocket of `examples/`."""

PREFIX = "int8."
"""Prefix of the names of `ConvIntegers` in the file of the weights."""
UINT8_MAX = 255
"""Quantized activations use 0 to 255, and 0 means 0, because activations are never negative."""
_WEIGHT_MAX = 127
COLOURS = 3
"""Channels of the image; no other map has so few."""
PIXEL_STEP, PIXEL_ZERO = 1 / 127.5, 128
"""Step of a pixel's value, and the value that means zero. It should be 127.5: inputs are half a unit too small, which
the bias of the first convolution compensates."""
FLOAT32_LAYERS = frozenset(
    f"Mixed_7c.branch{part}" for part in ("3x3_2a", "3x3_2b", "3x3dbl_2", "3x3dbl_3a", "3x3dbl_3b")
)
"""Convolutions that stay in float32. They have 4 % of the multiply-adds. Integers in them would disturb the features,
measured in the features' standard deviations, more than integers in all other layers together."""
_BEFORE_FLOAT32 = ("Mixed_7c.branch3x3_1", "Mixed_7c.branch3x3dbl_1")
"""The convolutions that `FLOAT32_LAYERS` read. No other layer reads them."""
_WRITES_TWICE, READS_TWICE = "Conv2d_1a_3x3", "Conv2d_2a_3x3"
"""The convolution that writes two copies of each channel, whose sum has one more bit, and the one that reads them. Of
all maps, this one's rounding errors would disturb the features most: in a flat area of an image they are all equal."""
_FAST_INTEGERS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Capabilities of a processor; with any of them it multiplies 8-bit integers fast."""


def is_supported() -> bool:
    """Whether 8-bit integers are fast here: an x86 processor with VNNI or AMX, and a torch with oneDNN's operators."""
    if not one_dnn.has("onednn", "qconv_prepack", "qconv2d_pointwise"):
        return False
    get_capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)  # missing in older versions
    capabilities: dict[str, Any] = get_capabilities()
    return any(capabilities.get(name) for name in _FAST_INTEGERS)


def calibration_images(size: int) -> list[Pixels]:
    """The four bundled images, uint8 (`size`, `size`, 3) each."""
    with Image.open(_CALIBRATION_FILE) as sheet:
        side = sheet.height
        return [squash(sheet.crop((x, 0, x + side, side)), size) for x in range(0, sheet.width, side)]


@dataclass(frozen=True)
class ConvIntegers:
    """What a convolution needs to compute in integers, besides its weights."""

    steps: Tensor
    """Step of each input channel, float32 (in,): what a difference of 1 means."""
    out_steps: Tensor
    """Step of each output channel, float32 (out,); empty if the output is float32."""
    bias: Tensor
    """float32 (out,)"""
    rounded_up: Tensor
    """Whether each weight is rounded up, eight to a byte, uint8 (out * in * height * width / 8,)."""

    def levels(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`weight` (out, in, height, width) as integers from -127 to 127, as float32, and their scales, (out,)."""
        lower, _, scales = split_levels(weight, self.steps)
        bits = np.unpackbits(self.rounded_up.numpy(), count=weight.numel())
        return lower.add_(torch.from_numpy(bits).view(weight.shape)), scales

    def fit(self, weight: Tensor) -> bool:
        """Whether these are numbers for a convolution with this `weight`."""
        out_channels, in_channels = weight.shape[:2]
        numbers = torch.cat([each.flatten().float() for each in (self.steps, self.out_steps, self.bias)])
        return (
            self.steps.shape == (in_channels,)
            and self.out_steps.shape in {(out_channels,), (0,)}
            and self.bias.shape == (out_channels,)
            and (self.rounded_up.dtype, *self.rounded_up.shape) == (torch.uint8, -(-weight.numel() // 8))
            and bool(numbers.isfinite().all() and (self.steps > 0).all() and (self.out_steps > 0).all())
        )


def pack_bits(bits: Tensor) -> Tensor:
    """Truth values as uint8, eight to a byte."""
    return torch.from_numpy(np.packbits(bits.numpy()))


def split_levels(weight: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The integers below the weights, what is missing to the weights (0 to 1), and the scale of each output channel."""
    weight = weight * steps[:, None, None]
    scales = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / _WEIGHT_MAX
    exact = (weight / scales[:, None, None, None]).clamp_(-_WEIGHT_MAX, _WEIGHT_MAX)
    lower = exact.floor().clamp_(max=_WEIGHT_MAX - 1)
    return lower, exact.sub_(lower), scales


def to_tensors(integers: Mapping[str, ConvIntegers]) -> dict[str, Tensor]:
    """The integers as tensors for the file of the weights."""
    return {
        f"{PREFIX}{name}.{field}": tensor for name, each in integers.items() for field, tensor in vars(each).items()
    }


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, ConvIntegers]:
    """The integers among the tensors of a file. Raises `TypeError` if one is missing or unknown."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(PREFIX):
            conv, _, field = name.removeprefix(PREFIX).rpartition(".")
            found.setdefault(conv, {})[field] = tensor
    return {conv: ConvIntegers(**fields) for conv, fields in found.items()}


class QuantizedConv(nn.Module):
    """A `FoldedConv` on 8-bit integers: uint8 (B, in, H, W) -> uint8 (B, out, H', W'), or float32 without `out_steps`.

    Without `activated`, the output is float32, and bias and ReLU are left out.
    """

    def __init__(self, folded: FoldedConv, integers: ConvIntegers, activated: bool = True) -> None:
        super().__init__()
        levels, scales = integers.levels(folded.plain_weight())
        self.levels = levels.to(torch.int8)
        self.layouts: one_dnn.Layouts = {}
        self.zero = PIXEL_ZERO if len(integers.steps) == COLOURS else 0
        rounds = activated and len(integers.out_steps) > 0
        self.weight_scales = scales / integers.out_steps if rounds else scales
        self.weight_zeros = torch.zeros_like(scales, dtype=torch.int64)
        bias = integers.bias / integers.out_steps if rounds else integers.bias
        self.bias = bias if activated else None
        self.geometry: tuple[Any, ...] = (folded.stride, folded.padding, (1, 1), 1)
        dtype = torch.uint8 if rounds else torch.float32
        self.output: tuple[Any, ...] = (1.0, 0, dtype, "relu" if activated else "none", [], "")

    def write_twice(self) -> None:
        """Write two copies of all channels, which round values a quarter of a step lower and higher: their sum is twice
        the value, rounded."""
        assert self.bias is not None
        self.levels = torch.cat([self.levels, self.levels])
        self.weight_scales = self.weight_scales.repeat(2)
        self.weight_zeros = self.weight_zeros.repeat(2)
        self.bias = torch.cat([self.bias - 0.25, self.bias + 0.25])

    def read_twice(self) -> None:
        """Read two copies of all channels, and take the mean of both."""
        self.levels = torch.cat([self.levels, self.levels], 1)
        self.weight_scales = self.weight_scales / 2

    def forward(self, x: Tensor) -> Tensor:
        zero, scales = self.zero, self.weight_scales

        def convolve(weights: Tensor) -> Tensor:
            packed = (weights, scales, self.weight_zeros)
            output: Tensor = torch.ops.onednn.qconv2d_pointwise(
                x, 1.0, zero, *packed, self.bias, *self.geometry, *self.output
            )
            return output

        def pack() -> Tensor:
            # oneDNN packs for a kernel with another output, and the two do not always read the same layout. The plain
            # weights, reordered at every call, are then faster than packed ones, reordered from layout to layout.
            weights: Tensor = torch.ops.onednn.qconv_prepack(self.levels, scales, 1.0, zero, *self.geometry, x.shape)
            return one_dnn.fastest((weights, self.levels.to_mkldnn()), convolve)

        return convolve(one_dnn.packed(self.layouts, x, pack))


class QuantizedPoolConv(nn.Module):
    """Average pool, then a 1 x 1 `FoldedConv`: uint8 (B, in, H, W) -> uint8 or float32 (B, out, H, W).

    Both are linear, so the pool is applied after the convolution, where there are fewer channels.
    """

    def __init__(self, pool: AveragePool, folded: FoldedConv, integers: ConvIntegers) -> None:
        super().__init__()
        self.conv = QuantizedConv(folded, integers, activated=False)
        self.pool, self.bias = pool, integers.bias[:, None, None]
        self.out_steps = integers.out_steps[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        output = self.pool(self.conv(x)).add_(self.bias).relu_()
        if not len(self.out_steps):
            return output  # type: ignore[no-any-return]
        levels: Tensor = output.div_(self.out_steps).round_().clamp_(max=UINT8_MAX)
        return levels.to(torch.uint8)


class QuantizedMaxPool(nn.Module):
    """3 x 3 max pool at stride 2 on uint8; torch's own is slow for integers."""

    def forward(self, x: Tensor) -> Tensor:
        for dim in (2, 3):
            end = x.shape[dim] - 2
            first, second, third = (x[(slice(None),) * dim + (slice(i, end + i, 2),)] for i in range(3))
            x = torch.maximum(first, second).maximum(third)
        return x


def quantize(network: InceptionV3, integers: Mapping[str, ConvIntegers]) -> None:
    """Make a `network` with folded batch norms compute in 8-bit integers, in place, on a CPU.

    Its input is then the pixels themselves, uint8 (B, 3, S, S). `integers` are those of each convolution, by name;
    those of `FLOAT32_LAYERS` are not used. Raises `ValueError` if they do not fit.
    """
    for path, whole in list(network.named_modules()):
        pool = next((part for part in whole.children() if isinstance(part, AveragePool)), None)
        for name, part in list(whole.named_children()):
            full_name = f"{path}.{name}".lstrip(".")
            if isinstance(part, FoldedConv) and full_name not in FLOAT32_LAYERS:
                own = integers.get(full_name)
                if own is None or not own.fit(part.plain_weight()):
                    raise ValueError(full_name)
                if full_name in _BEFORE_FLOAT32:
                    own = replace(own, out_steps=torch.empty(0))
                by_pool = pool if name == "branch_pool" else None
                setattr(whole, name, QuantizedPoolConv(by_pool, part, own) if by_pool else QuantizedConv(part, own))
            elif isinstance(part, AveragePool):
                setattr(whole, name, nn.Identity())
            elif isinstance(part, nn.MaxPool2d):
                setattr(whole, name, QuantizedMaxPool())
    network.get_submodule(_WRITES_TWICE).write_twice()  # type: ignore[operator]
    network.get_submodule(READS_TWICE).read_twice()  # type: ignore[operator]
