"""Compare the time of the search with that of the encoder, in float32 and in 8-bit integers.

    python benchmarks/search_speed.py IMAGES... [--count 32] [--beam-size 5] [--threads 2] [--repeats 5]

The first `--count` images, repeated if there are fewer, form one batch. The fastest of the repeats counts: wall time,
or with one thread CPU time, which other programs disturb less. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from imgcap.captioning.captioner import load_model
from imgcap.images.decoding import open_image, squash
from imgcap.model.quantization import is_supported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--model", default="default")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter

    def fastest(call: Callable[[], object]) -> float:
        seconds = []
        for _ in range(args.repeats + 1):  # the first one warms up
            begun = clock()
            call()
            seconds.append(clock() - begun)
        return min(seconds[1:])

    captioner = load_model(args.model, "cpu")
    size = captioner.encoder.config.pixels
    pixels = [squash(open_image(file), size) for file in itertools.islice(itertools.cycle(args.images), args.count)]
    features = captioner.encoder(pixels)
    options = replace(captioner.model.config.search, beam_size=args.beam_size)
    search = fastest(lambda: list(captioner.model.search(features, options)))
    encoders = {"float32": captioner.encoder}
    if is_supported():
        encoders["int8"] = load_model(args.model, "cpu", "int8").encoder
    encoding = {name: fastest(lambda encoder=encoder: encoder(pixels)) for name, encoder in encoders.items()}  # type: ignore[misc]
    print(f"{args.count} images, beam {args.beam_size}, {args.threads} threads, torch {torch.__version__}\n")
    print("| encoder | encoding, s | search, s | share |\n| --- | --- | --- | --- |")
    for name, seconds in encoding.items():
        print(f"| {name} | {seconds:.3f} | {search:.3f} | {search / seconds:.1%} |")
    print("\n" + json.dumps({"count": args.count, "threads": args.threads, "search": search, "encoding": encoding}))


if __name__ == "__main__":
    main()
