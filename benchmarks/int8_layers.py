"""Find which layers 8-bit integers change most: each convolution of the encoder alone computes in them.

    python benchmarks/int8_layers.py IMAGE... [--model default] [--figure FILE.svg]

Integers are simulated: weights and inputs are rounded to the values that integers stand for, with the integers of the
model (`imgcap.model.quantization`), and multiplied as float32, so any processor will do. The signal-to-noise ratio
compares the sum of squares of the float32 values with that of their changes. Features are standardised for it, as the
decoder reads them: less their mean, in standard deviations. Prints a row for each convolution, in the order in which
they run, also for those that `--precision int8` leaves in float32. Then follow rows for all convolutions together, for
all but those, and with only the weights or the inputs rounded. `--together` prints only these.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from caption_sensitivity import captions
from imgcap.captioning.captioner import Captioner, load_model
from imgcap.images.decoding import load_batches
from imgcap.images.errors import ImageError
from imgcap.model.encoder import read_encoder
from imgcap.model.inception import AveragePool, FoldedConv
from imgcap.model.quantization import COLOURS, FLOAT32_LAYERS, PIXEL_STEP, READS_TWICE, UINT8_MAX, ConvIntegers
from imgcap.pages.plots import Curve, plot_svg


class Layer:
    """A convolution, the module that reads its maps, its integers, and what it computes in float32."""

    def __init__(self, name: str, conv: FoldedConv, reader: nn.Module, integers: ConvIntegers) -> None:
        self.name, self.conv, self.reader = name, conv, reader
        self.steps = integers.steps[:, None, None]
        self.multiply_adds, self.output = 0, torch.empty(0)
        weight = conv.plain_weight()
        levels, scales = integers.levels(weight)
        self.weight = levels * scales[:, None, None, None] / self.steps
        self.reads_pixels = len(self.steps) == COLOURS
        self.copies = 2 if name == READS_TWICE else 1
        # Integer pixels are half a step too small, which the bias makes up for.
        self.bias = integers.bias - weight.sum((1, 2, 3)) * PIXEL_STEP / 2 if self.reads_pixels else integers.bias

    @contextmanager
    def rounded(self, weights: bool = True, inputs: bool = True, bias: bool = True) -> Iterator[None]:
        """Round weights (and correct the bias), inputs, or both. The first layer's inputs are integers anyway."""
        kept, layouts, kept_bias = self.conv.weight, self.conv.layouts, self.conv.bias
        if weights:
            self.conv.register_buffer("weight", self.weight)
            self.conv.layouts = {}
        if weights and bias:
            self.conv.register_buffer("bias", self.bias)

        def round_input(_: nn.Module, x: tuple[Tensor]) -> Tensor:
            steps = self.steps / self.copies
            return (x[0] / steps).round_().clamp_(0, self.copies * UINT8_MAX).mul_(steps)

        rounds = inputs and not self.reads_pixels
        hook = self.reader.register_forward_pre_hook(round_input) if rounds else None
        yield
        if hook:
            hook.remove()
        self.conv.register_buffer("weight", kept)
        self.conv.register_buffer("bias", kept_bias)
        self.conv.layouts = layouts


def find_layers(network: nn.Module, order: list[nn.Module], integers: dict[str, ConvIntegers]) -> list[Layer]:
    """All convolutions in the order in which they run. That of a pool branch reads what its pool reads."""
    parents = {part: (whole, name) for name, whole in network.named_modules() for part in whole.children()}
    names = {module: name for name, module in network.named_modules()}
    layers = []
    for conv in order:
        assert isinstance(conv, FoldedConv)
        pool = getattr(parents[conv][0], "pool", None)
        by_pool = names[conv].endswith("branch_pool") and isinstance(pool, AveragePool)
        reader = pool if by_pool and pool is not None else conv
        layers.append(Layer(names[conv], conv, reader, integers[names[conv]]))
    return layers


def observe(captioner: Captioner, images: Tensor) -> tuple[list[Layer], list[Tensor]]:
    """The layers, with outputs for `images`, and the input of each part."""
    network, to_input = captioner.encoder.network, captioner.encoder.to_input
    order: list[nn.Module] = []
    convs = [module for module in network.modules() if isinstance(module, FoldedConv)]
    hooks = [conv.register_forward_hook(lambda module, _x, _y: order.append(module)) for conv in convs]
    network(to_input(images[:1]))
    for hook in hooks:
        hook.remove()
    weights, _ = read_encoder(captioner.model.encoder_file)
    layers = find_layers(network, order, captioner.encoder.integers(weights))

    def note_output(layer: Layer, y: Tensor) -> None:
        layer.output = y
        layer.multiply_adds = y[0].numel() * layer.conv.plain_weight()[0].numel()

    hooks = [x.conv.register_forward_hook(lambda _m, _i, y, layer=x: note_output(layer, y)) for x in layers]
    inputs = [to_input(images)]
    for part in network.children():
        inputs.append(part(inputs[-1]))
    for hook in hooks:
        hook.remove()
    return layers, inputs


def decibels(signal: Tensor, noisy: Tensor) -> float:
    noise = (noisy - signal).square().sum().item()
    return 10 * math.log10(signal.square().sum().item() / noise) if noise else math.inf


def run(captioner: Captioner, inputs: list[Tensor], part: int) -> Tensor:
    """Features, from the input of a part of the network on."""
    x = inputs[part]
    for layer in islice(captioner.encoder.network.children(), part, None):
        x = layer(x)
    return x.mean((2, 3))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", help="images that the scales do not come from")
    parser.add_argument("--model", default="default")
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw the ratios of all layers")
    parser.add_argument("--together", action="store_true", help="print only the rows for all layers together")
    args = parser.parse_args()
    captioner = load_model(args.model, "cpu")
    [batch] = load_batches(args.images, captioner.encoder.config.pixels, len(args.images))
    images = torch.from_numpy(np.stack([pixels for pixels in batch if not isinstance(pixels, ImageError)]))
    layers, inputs = observe(captioner, images)
    features = run(captioner, inputs, 0)
    mean, std = captioner.model.decoder.feature_mean, captioner.model.decoder.feature_std
    plain = captions(captioner.model, features)
    parts = [name for name, _ in captioner.encoder.network.named_children()]
    work = sum(layer.multiply_adds for layer in layers)

    def row(name: str, share: float, output: str, found: Tensor) -> float:
        error = ((found - features).norm(dim=1) / features.norm(dim=1)).median().item()
        standardised = ((found - features) / std).square().mean(1).sqrt().median().item()
        differ = sum(a != b for a, b in zip(plain, captions(captioner.model, found), strict=True))
        ratio = decibels((features - mean) / std, (found - mean) / std)
        figures = f"{ratio:.1f} | {standardised:.4f} | {error:.2%} | {differ}"
        print(f"| {name} | {share:.1%} | {output} | {figures} |", flush=True)
        return ratio

    print(f"{len(images)} images, torch {torch.__version__}\n")
    errors = "standardised features, dB | median error | features, median error"
    print(f"| in integers | multiply-adds | output, dB | {errors} | other captions |\n{'| --- ' * 7}|")
    outputs, ratios = [], []
    for layer in layers if not args.together else []:
        noisy: list[Tensor] = []
        hook = layer.conv.register_forward_hook(lambda _m, _i, y, noisy=noisy: noisy.append(y))
        with layer.rounded():
            found = run(captioner, inputs, parts.index(layer.name.split(".")[0]))
        hook.remove()
        outputs.append(decibels(layer.output, noisy[0]))
        ratios.append(row(layer.name, layer.multiply_adds / work, f"{outputs[-1]:.1f}", found))
    as_used = [layer for layer in layers if layer.name not in FLOAT32_LAYERS]
    for name, chosen, how in (
        ("all", layers, (True, True)),
        ("as int8 computes", as_used, (True, True)),
        ("its weights", as_used, (True, False)),
        ("its weights, biases not corrected", as_used, (True, False, False)),
        ("its inputs", as_used, (False, True)),
    ):
        with ExitStack() as stack:
            for layer in chosen:
                stack.enter_context(layer.rounded(*how))
            share = sum(layer.multiply_adds for layer in chosen) / work
            row(name, share, "", run(captioner, inputs, 0))
    if args.figure and ratios:
        numbers = range(1, len(layers) + 1)
        both = {"Output, dB": outputs, "Standardised features, dB": ratios}
        panels = [(title, [Curve("dB", numbers, y)]) for title, y in both.items()]
        args.figure.write_text(plot_svg(panels, "layer in 8-bit integers"), encoding="utf-8")


if __name__ == "__main__":
    main()
