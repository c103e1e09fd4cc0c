"""Inception V3 in 8-bit integers, for processors that multiply them several times as fast as float32.

Weights are int8 with a scale per output channel, activations uint8 with a scale per map. Both scales come from the
largest values (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference"). Sums are 32-bit integers. Average pools, biases and the last maps are float32. Biases make up for what
rounding the weights changes in the mean of a channel (Nagel et al. 2019, "Data-Free Quantization Through Weight
Equalization and Bias Correction").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from imgcap.images.decoding import Pixels, squash
from imgcap.model import one_dnn
from imgcap.model.inception import AveragePool, FoldedConv, InceptionV3

_CALIBRATION_FILE = Path(__file__).with_name("calibration.jpg")
"""Four images side by side, in the public domain or CC0: astronaut, cat, coffee and rocket of `examples/`."""

_UINT8_MAX = 255
"""Quantized activations use 0 to 255, and 0 means 0, because activations are never negative."""
_WEIGHT_MAX = 127
_MIN_RANGE = 1e-6
"""Range of a map that is zero everywhere in the calibration images."""
_PIXEL_SCALE, _PIXEL_ZERO = 1 / 127.5, 128
"""Scale of a pixel's value, and the value that means zero. It should be 127.5: inputs are half a unit too small, which
the bias of the first convolution compensates."""


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
    """The four images that the scales are taken from, uint8 (`size`, `size`, 3) each."""
    with Image.open(_CALIBRATION_FILE) as sheet:
        side = sheet.height
        return [squash(sheet.crop((x, 0, x + side, side)), size) for x in range(0, sheet.width, side)]


def rounded_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (out, in, height, width) -> integers from -127 to 127, as float32, and the scale of each channel."""
    scales = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / _WEIGHT_MAX
    return (weight / scales[:, None, None, None]).round().clamp(-_WEIGHT_MAX, _WEIGHT_MAX), scales


def corrected_bias(folded: FoldedConv, maps: Tensor) -> Tensor:
    """The bias, float32 (out,), with which rounded weights give each channel of `maps` (B, in, H, W) its mean."""
    weight = folded.plain_weight()
    levels, scales = rounded_weights(weight)
    lost = weight - levels * scales[:, None, None, None]
    return folded.bias + lost.sum((2, 3)) @ maps.mean((0, 2, 3))


class QuantizedConv(nn.Module):
    """A `FoldedConv` on 8-bit integers: uint8 (B, in, H, W) -> uint8 (B, out, H', W'), or float32 without `out_scale`.

    An input value means (value - `zero`) * `scale`. Without `activated`, bias and ReLU are left out.
    """

    def __init__(self, folded: FoldedConv, scale: float, zero: int, out_scale: float | None, activated: bool) -> None:
        super().__init__()
        weight = folded.plain_weight()
        levels, scales = rounded_weights(weight)
        self.levels = levels.to(torch.int8)
        self.layouts: one_dnn.Layouts = {}
        bias: Tensor = folded.bias
        if zero:
            bias = bias + weight.sum((1, 2, 3)) * scale * (zero - _UINT8_MAX / 2)
        self.scale, self.zero = scale, zero
        self.weight_scales, self.weight_zeros = scales, torch.zeros_like(scales, dtype=torch.int64)
        self.bias = bias if activated else None
        output = (1.0, 0, torch.float32) if out_scale is None else (out_scale, 0, torch.uint8)
        self.geometry: tuple[Any, ...] = (folded.stride, folded.padding, (1, 1), 1)
        self.output: tuple[Any, ...] = (*output, "relu" if activated else "none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        operators, scale, zero, scales = torch.ops.onednn, self.scale, self.zero, self.weight_scales

        def pack() -> Tensor:
            weights: Tensor = operators.qconv_prepack(self.levels, scales, scale, zero, *self.geometry, x.shape)
            return weights

        weights = (one_dnn.packed(self.layouts, x, pack), scales, self.weight_zeros)
        output: Tensor = operators.qconv2d_pointwise(x, scale, zero, *weights, self.bias, *self.geometry, *self.output)
        return output


class QuantizedPoolConv(nn.Module):
    """Average pool, then a 1 x 1 `FoldedConv`: uint8 (B, in, H, W) -> uint8 or float32 (B, out, H, W).

    Both are linear, so the pool is applied after the convolution, where there are fewer channels.
    """

    def __init__(self, pool: AveragePool, folded: FoldedConv, scale: float, out_scale: float | None) -> None:
        super().__init__()
        self.conv = QuantizedConv(folded, scale, 0, None, activated=False)
        self.pool, self.bias, self.out_scale = pool, folded.bias[:, None, None], out_scale

    def forward(self, x: Tensor) -> Tensor:
        output = self.pool(self.conv(x)).add_(self.bias).relu_()
        return output if self.out_scale is None else _levels(output.div_(self.out_scale))


class QuantizedMaxPool(nn.Module):
    """3 x 3 max pool at stride 2, from values of `scale` to values of `out_scale`."""

    def __init__(self, scale: float, out_scale: float) -> None:
        super().__init__()
        self.factor = scale / out_scale

    def forward(self, x: Tensor) -> Tensor:
        for dim in (2, 3):
            end = x.shape[dim] - 2
            first, second, third = (x[(slice(None),) * dim + (slice(i, end + i, 2),)] for i in range(3))
            x = torch.maximum(first, second).maximum(third)
        return x if self.factor == 1 else _levels(x.float().mul_(self.factor))


def _levels(x: Tensor) -> Tensor:
    """Round float32 values from 0 on to uint8; `x` is overwritten."""
    return x.round_().clamp_(max=_UINT8_MAX).to(torch.uint8)


@torch.inference_mode()
def quantize(network: InceptionV3, samples: Tensor) -> None:
    """Make a `network` with folded batch norms compute in 8-bit integers, in place, on a CPU.

    Its input is then the pixels themselves, uint8 (B, 3, S, S). `samples` are images in its present format, float32
    (B, 3, S, S); scales and biases are taken from the values that they cause.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: seen.__setitem__(module, (inputs[0], output)))
        for module in network.modules()
    ]
    network(samples)
    for hook in hooks:
        hook.remove()
    scales = {id(samples): _PIXEL_SCALE}
    """Scale of every map that was seen, by the `id` of its tensor."""

    def replace_parts(whole: nn.Module, out_scale: float | None) -> None:
        """Replace the parts of the network or of a block, whose last maps are concatenated and so share a scale."""
        read = {id(seen[part][0]) for part in whole.children()}
        pools: dict[int, AveragePool] = {}
        for name, part in whole.named_children():
            x, y = seen[part]
            scale, is_last = scales[id(x)], id(y) not in read
            own_scale = out_scale if is_last else max(y.max().item(), _MIN_RANGE) / _UINT8_MAX
            if isinstance(part, FoldedConv):
                part.register_buffer("bias", corrected_bias(part, x))
                zero = _PIXEL_ZERO if x is samples else 0
                if id(x) in pools:
                    setattr(whole, name, QuantizedPoolConv(pools[id(x)], part, scale, own_scale))
                else:
                    setattr(whole, name, QuantizedConv(part, scale, zero, own_scale, activated=True))
            elif isinstance(part, AveragePool):
                own_scale, pools[id(y)] = scale, part
                setattr(whole, name, nn.Identity())
            elif isinstance(part, nn.MaxPool2d):
                own_scale = scale if own_scale is None or not is_last else own_scale
                setattr(whole, name, QuantizedMaxPool(scale, own_scale))
            else:
                replace_parts(part, own_scale)
            if own_scale is not None:
                scales[id(y)] = own_scale

    replace_parts(network, None)
