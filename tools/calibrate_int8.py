"""Add to the encoder of a model what it needs to compute in 8-bit integers: see `imgcap.model.calibration`.

    python tools/calibrate_int8.py MODEL IMAGES... [--count 1280]

MODEL is a model folder with weights in half precision, as `assemble_general.py` and `package_model.py` write it;
IMAGES are folders and files, of which COUNT are drawn at random. The fingerprint of the encoder stays the same. Takes
minutes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgcap.images.decoding import load_batches
from imgcap.images.discovery import expand
from imgcap.images.errors import ImageError
from imgcap.model.calibration import calibrate
from imgcap.model.encoder import Encoder, read_encoder, save_encoder
from imgcap.model.store import ENCODER_FILE, MANIFEST_FILE, write_manifest

BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=1280)
    args = parser.parse_args()
    file = args.model / ENCODER_FILE
    weights, config = read_encoder(file)
    encoder = Encoder.load(file, torch.device("cpu"))
    images = sorted(path for path in expand(args.images) if isinstance(path, Path))
    if not images:
        parser.error("there are no images")
    drawn = random.Random(0).sample(images, min(args.count, len(images)))

    def batches() -> Iterator[Tensor]:
        for batch in load_batches(drawn, config.pixels, BATCH):
            pixels = [each for each in batch if not isinstance(each, ImageError)]
            if pixels:
                yield encoder.to_input(torch.from_numpy(np.stack(pixels)))

    integers = calibrate(encoder.network, batches(), thorough=True)
    (args.model / MANIFEST_FILE).unlink(missing_ok=True)
    save_encoder(file, weights, config, torch.float16, integers)
    write_manifest(args.model)
    print(f"{file}: integers from {len(drawn)} images")


if __name__ == "__main__":
    main()
