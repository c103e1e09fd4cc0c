"""Compare the speed of Inception V3 in images per second: plain torchvision, the training network, and the encoder.

    python benchmarks/encoder_speed.py [--threads 2] [--batches 1 8 32] [--seconds 30]

Uses random weights and images of 299 x 299 in float32. The encoder's time includes stacking
and scaling its images. The networks and a large `torch.mm` take turns of equal length, and the fastest turn counts:
wall time, or with one thread CPU time, which other programs disturb less. Prints a table, with the share of the
multiply-adds per second of `torch.mm`, and a line of JSON. The exit code is 1 if the features differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from imgcap.bench import BATCH_SIZES, MATRIX, fastest_in_turns, multiply_adds
from imgcap.model.encoder import Encoder, EncoderConfig
from imgcap.model.inception import InceptionV3, fold_batch_norms
from imgcap.model.torchvision_compat import import_torchvision

TOLERANCE = 1e-4


def networks() -> tuple[nn.Module, InceptionV3, Encoder]:
    """torchvision's network without classifiers, the training network, and the encoder, with equal weights."""
    torch.manual_seed(0)
    models = import_torchvision("torchvision.models")
    plain: nn.Module = models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    plain.fc = nn.Identity()
    trained, folded = InceptionV3(count_padding=True), InceptionV3(count_padding=True)
    for network in (trained, folded):
        network.load_state_dict(plain.state_dict())
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fold_batch_norms(folded)
    return plain.eval(), trained, Encoder(folded, EncoderConfig(), torch.device("cpu"))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--seconds", type=float, default=30, help="about how long to measure each batch size")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    plain, trained, encoder = networks()
    source = np.random.default_rng(0)
    pixels = [source.integers(0, 256, (299, 299, 3), np.uint8) for _ in range(max(args.batches))]
    images = encoder.to_input(torch.from_numpy(np.stack(pixels)))
    work = multiply_adds(trained, 299)
    left, right = torch.rand(2, MATRIX, MATRIX)

    print(f"torch {torch.__version__}, {args.threads} threads, {work / 1e9:.3f} G multiply-adds an image; images/s")
    print("| batch | side | images/s | ratio to torchvision | share of the `torch.mm` rate |")
    print("| --- | --- | --- | --- | --- |")
    rates: dict[str, dict[str, float]] = {}
    for batch in args.batches:
        channels_last = images[:batch]
        plain_input = channels_last.contiguous()
        calls: dict[str, Callable[[], Tensor]] = {
            "torchvision": lambda x=plain_input: plain(x),  # type: ignore[misc]
            "as trained": lambda x=channels_last: trained(x),  # type: ignore[misc]
            "encoder": lambda n=batch: encoder(pixels[:n]),  # type: ignore[misc]
        }
        expected, *others = [call() for call in calls.values()]
        difference = max(((other - expected).abs().max() / expected.abs().max()).item() for other in others)
        seconds = fastest_in_turns({**calls, "torch.mm": lambda: left @ right}, args.seconds, clock)
        product_rate = MATRIX**3 / seconds.pop("torch.mm")
        rates[str(batch)] = {name: batch / taken for name, taken in seconds.items()}
        for name, rate in rates[str(batch)].items():
            ratio, share = rate / rates[str(batch)]["torchvision"], rate * work / product_rate
            print(f"| {batch} | {name} | {rate:.2f} | {ratio:.2f} | {share:.2f} |", flush=True)
        rates[str(batch)]["torch.mm"] = product_rate / work
        if difference > TOLERANCE:
            sys.exit(f"In batches of {batch}, the features differ by {difference:.1e} of the largest value.")
    print(
        json.dumps(
            {
                "threads": args.threads,
                "multiply_adds": work,
                "images_per_second": {
                    batch: {name: round(rate, 3) for name, rate in own.items()} for batch, own in rates.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()
