"""The Inception V3 network without its classifier (Szegedy et al. 2016, "Rethinking the Inception Architecture").

Layers and parameters have torchvision's names, so that its weights load unchanged. The network is defined here for two
reasons: importing torchvision takes longer than importing torch, and the average pools of the original network exclude
the padding, which torchvision's cannot.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgcap.model import one_dnn

FEATURE_SIZE = 2048
"""Length of the feature vector of an image."""

STRIDE_16_LAYER, STRIDE_32_LAYER = "Mixed_6e", "Mixed_7c"
"""The last layers whose maps have 1/16 and 1/32 of the image's side."""

STEM_PREFIXES = ("Conv2d", "Mixed_5")
"""Prefixes of the layers up to stride 8. They are general, so that a short training can leave them alone."""

_LARGE_MAPS = 7
"""Number of layers before the stride-8 blocks: few weights and large maps."""

_OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise", "_get_mkldnn_serialized_md")
"""Operators of oneDNN that `FoldedConv` calls."""


class ConvNorm(nn.Module):
    """Convolution, batch norm and ReLU: (B, in, H, W) -> (B, out, H', W')."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], **conv: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False, **conv)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class AveragePool(nn.AvgPool2d):
    """3 x 3 mean at stride 1; it depends on the weights whether the zero padding counts."""

    def __init__(self, count_padding: bool) -> None:
        super().__init__(3, stride=1, padding=1, count_include_pad=count_padding)


class InceptionA(nn.Module):
    """Stride-8 block: (B, in, H, W) -> (B, 224 + pool_features, H, W)."""

    def __init__(self, in_channels: int, pool_features: int, count_padding: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(in_channels, 64, 1)
        self.branch5x5_1 = ConvNorm(in_channels, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.pool = AveragePool(count_padding)
        self.branch_pool = ConvNorm(in_channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(self.pool(x)),
        )
        return torch.cat(branches, 1)


class InceptionB(nn.Module):
    """Grid reduction to stride 16: (B, in, H, W) -> (B, 480 + in, H / 2, W / 2)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.pool(x),
        )
        return torch.cat(branches, 1)


class InceptionC(nn.Module):
    """Stride-16 block of factorised 7 x 7 convolutions, c channels inside: (B, in, H, W) -> (B, 768, H, W)."""

    def __init__(self, in_channels: int, c: int, count_padding: bool) -> None:
        super().__init__()
        row: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = ConvNorm(in_channels, 192, 1)
        self.branch7x7_1 = ConvNorm(in_channels, c, 1)
        self.branch7x7_2 = ConvNorm(c, c, **row)
        self.branch7x7_3 = ConvNorm(c, 192, **column)
        self.branch7x7dbl_1 = ConvNorm(in_channels, c, 1)
        self.branch7x7dbl_2 = ConvNorm(c, c, **column)
        self.branch7x7dbl_3 = ConvNorm(c, c, **row)
        self.branch7x7dbl_4 = ConvNorm(c, c, **column)
        self.branch7x7dbl_5 = ConvNorm(c, 192, **row)
        self.pool = AveragePool(count_padding)
        self.branch_pool = ConvNorm(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = (
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(self.pool(x)),
        )
        return torch.cat(branches, 1)


class InceptionD(nn.Module):
    """Grid reduction to stride 32: (B, in, H, W) -> (B, 512 + in, H / 2, W / 2)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(in_channels, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(in_channels, 192, 1)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))),
            self.pool(x),
        )
        return torch.cat(branches, 1)


class InceptionE(nn.Module):
    """Stride-32 block with widened filter banks: (B, in, H, W) -> (B, 2048, H, W)."""

    def __init__(self, in_channels: int, count_padding: bool) -> None:
        super().__init__()
        row: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1)}
        column: dict[str, Any] = {"kernel_size": (3, 1), "padding": (1, 0)}
        self.branch1x1 = ConvNorm(in_channels, 320, 1)
        self.branch3x3_1 = ConvNorm(in_channels, 384, 1)
        self.branch3x3_2a = ConvNorm(384, 384, **row)
        self.branch3x3_2b = ConvNorm(384, 384, **column)
        self.branch3x3dbl_1 = ConvNorm(in_channels, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, **row)
        self.branch3x3dbl_3b = ConvNorm(384, 384, **column)
        self.pool = AveragePool(count_padding)
        self.branch_pool = ConvNorm(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        )
        return torch.cat(branches, 1)


class InceptionV3(nn.Module):
    """RGB scaled to [-1, 1], float32 (B, 3, S, S) with S >= 75 -> features after global pooling, float32 (B, 2048).

    With `count_padding`, the 3 x 3 average pools count the zero padding. It is true for torchvision's weights and false
    for weights from the original framework.
    """

    def __init__(self, count_padding: bool) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, 32, count_padding)
        self.Mixed_5c = InceptionA(256, 64, count_padding)
        self.Mixed_5d = InceptionA(288, 64, count_padding)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128, count_padding)
        self.Mixed_6c = InceptionC(768, 160, count_padding)
        self.Mixed_6d = InceptionC(768, 160, count_padding)
        self.Mixed_6e = InceptionC(768, 192, count_padding)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, count_padding)
        self.Mixed_7c = InceptionE(2048, count_padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_features(self.to_small_maps(x))

    def to_small_maps(self, x: Tensor) -> Tensor:
        """The first layers: (B, 3, 299, 299) -> (B, 192, 35, 35), or smaller maps of smaller images."""
        for layer in islice(self.children(), _LARGE_MAPS):
            x = layer(x)
        return x

    def to_features(self, x: Tensor) -> Tensor:
        """The other layers: maps from `to_small_maps` -> float32 (B, 2048)."""
        for layer in islice(self.children(), _LARGE_MAPS, None):
            x = layer(x)  # of a 299 x 299 image (B, 768, 17, 17) after Mixed_6e, (B, 2048, 8, 8) at the end
        # Features can differ by less than the precision of bfloat16; their means over many positions do not.
        return x.mean((2, 3), dtype=torch.float32)  # (B, 2048)


class FoldedConv(nn.Module):
    """A `ConvNorm` in evaluation mode with the batch norm folded into weights and bias: fewer passes over memory.

    On a CPU with oneDNN, the first call for maps of some shape packs the weights into the layout of its kernel.
    """

    def __init__(self, trained: ConvNorm) -> None:
        super().__init__()
        conv, norm = trained.conv, trained.bn
        factor = norm.weight / (norm.get_buffer("running_var") + norm.eps).sqrt()
        self.weight = nn.Buffer(conv.weight.contiguous(memory_format=torch.channels_last) * factor[:, None, None, None])
        self.bias = nn.Buffer(norm.bias - norm.get_buffer("running_mean") * factor)
        self.stride, self.padding = conv.stride, conv.padding
        self.layouts: one_dnn.Layouts = {}

    def plain_weight(self) -> Tensor:
        """The weights as (out, in, height, width), in no particular layout."""
        return self.weight.to_dense() if self.weight.is_mkldnn else self.weight

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not one_dnn.has("mkldnn", *_OPERATORS):
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()
        operators, geometry = torch.ops.mkldnn, (self.padding, self.stride, (1, 1), 1)

        def pack() -> Tensor:
            weight: Tensor = operators._reorder_convolution_weight(self.plain_weight(), *geometry, x.shape)
            return weight

        weight = one_dnn.packed(self.layouts, x, pack)
        if not self.weight.is_mkldnn:  # the plain copy would only take memory
            self.register_buffer("weight", weight)
        output: Tensor = operators._convolution_pointwise(x, weight, self.bias, *geometry, "relu", [], "")
        return output


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> None:
    """Replace every `ConvNorm` of `network` by a `FoldedConv`, in place. The network can no longer be trained."""
    for name, child in network.named_children():
        if isinstance(child, ConvNorm):
            setattr(network, name, FoldedConv(child))
        else:
            fold_batch_norms(child)
