"""Find the layers of a trunk that see little of the image.

    python tools/frames.py IMAGES... [--trunk default]

A layer can draw the same frame around every image (`distill_networks.MeanFilter`). For each convolution, prints the
median over its channels of the image's share: the variance between images at the same place, divided by this variance
plus that between places of the mean map. It is about 0.9 in a sound layer and 0 in one that only draws a frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgcap.images.decoding import load_batches
from imgcap.images.errors import ImageError
from imgcap.model.encoder import Encoder, find_encoder
from imgcap.model.inception import FoldedConv

BATCH = 8


class Moments:
    """Sums of a layer's maps and of their squares, float32 (C, H, W)."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, _layer: nn.Module, _inputs: Any, maps: Tensor) -> None:
        self.count += len(maps)
        self.total = self.total + maps.float().sum(0)
        self.squares = self.squares + maps.float().square().sum(0)

    def image_share(self) -> Tensor:
        """float32 (C,): the image's share of each channel."""
        mean = self.total / self.count
        between_images = (self.squares / self.count - mean**2).clamp(min=0).mean((1, 2))
        return between_images / (between_images + mean.var((1, 2)) + 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", help="at least 30 different images")
    parser.add_argument("--trunk", default="default", help="by name or file")
    args = parser.parse_args()
    encoder = Encoder.load(find_encoder(args.trunk), torch.device("cpu"))
    layers = {name: Moments() for name, part in encoder.network.named_modules() if isinstance(part, FoldedConv)}
    for name, moments in layers.items():
        encoder.network.get_submodule(name).register_forward_hook(moments.add)
    for batch in load_batches(args.images, encoder.config.pixels, BATCH):
        encoder([image for image in batch if not isinstance(image, ImageError)])
    for name, moments in layers.items():
        print(f"{name:24} {moments.image_share().median():.2f}")


if __name__ == "__main__":
    main()
