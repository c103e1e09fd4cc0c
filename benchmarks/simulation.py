"""8-bit integers on any processor: the network of `imgcap.model.quantization`, computed in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from imgcap.model.encoder import Encoder, find_encoder, read_encoder
from imgcap.model.quantization import UINT8_MAX, QuantizedConv


def integer_encoder(model: str) -> Encoder:
    """The encoder of `model` in 8-bit integers, whether or not they are fast here."""
    file = find_encoder(model)
    encoder = Encoder.load(file, torch.device("cpu"))
    encoder.quantize(read_encoder(file)[0], file)
    return encoder


@contextmanager
def simulated_integers() -> Iterator[None]:
    """Let all `QuantizedConv` multiply their integers as float32, with the same levels, scales and biases."""
    fast = QuantizedConv.forward
    QuantizedConv.forward = _forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        QuantizedConv.forward = fast  # type: ignore[method-assign]


def _forward(self: QuantizedConv, x: Tensor) -> Tensor:
    stride, padding, *_ = self.geometry
    weight = self.levels.float() * self.weight_scales[:, None, None, None]
    y = F.conv2d(x.float() - self.zero, weight, self.bias, stride, padding)
    if self.bias is not None:
        y = y.relu_()
    is_rounded = self.output[2] == torch.uint8
    return y.round_().clamp_(max=UINT8_MAX).to(torch.uint8) if is_rounded else y
