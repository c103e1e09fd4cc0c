"""Seconds per image of an Inception V3 training step in float32 and bfloat16, at three image sizes.

    python benchmarks/encoder_training_step.py [--batch 32] [--repeats 3]

Prints a table. Each figure is the fastest of the repeats, forward and backward, on random images.
"""

from __future__ import annotations

import argparse
import time

import torch

from imgcap.model.inception import STEM_PREFIXES, InceptionV3

SIZES = (144, 192, 299)


def freeze_stem(network: InceptionV3, frozen: bool) -> None:
    for name, layer in network.named_children():
        stem = frozen and name.startswith(STEM_PREFIXES)
        layer.train(not stem).requires_grad_(not stem)


def seconds_per_image(network: InceptionV3, pixels: torch.Tensor, bfloat16: bool, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # the first one warms up
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = network(pixels)
        features.float().square().mean().backward()
        times.append(time.perf_counter() - begun)
    return min(times[1:]) / len(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    network = InceptionV3(count_padding=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {args.batch}; seconds per image")
    print("| size | trained | float32 | bfloat16 | ratio |\n| --- | --- | --- | --- | --- |")
    for size in SIZES:
        pixels = torch.randn(args.batch, 3, size, size).contiguous(memory_format=torch.channels_last)
        for frozen in (True, False):
            freeze_stem(network, frozen)
            full, half = (seconds_per_image(network, pixels, bf16, args.repeats) for bf16 in (False, True))
            trained = "from Mixed_6a on" if frozen else "everything"
            print(f"| {size} | {trained} | {full:.4f} | {half:.4f} | {full / half:.1f} |", flush=True)


if __name__ == "__main__":
    main()
