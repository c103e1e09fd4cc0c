"""Fit the image layer of a decoder to the features of another trunk, so that its other weights can stay.

    python tools/refit_image_layer.py DECODER OLD_FEATURES NEW_FEATURES OUT.pt

DECODER is a model, by name or folder, or the decoder.pt of `train_general.py` or `reinforce_general.py`. Both FEATURES
are folders of `encode_sets.py` or `distill_top.py`, with the same images. A ridge regression predicts the LSTM's first
input, as the old features give it, from the new ones. `train_general.py --start-from OUT.pt` goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from average_decoders import read_decoder
from data_sets import TRAIN_SETS, done_rows, read_rows
from imgcap.errors import ImgcapError
from imgcap.files import replacing
from imgcap.model.decoder import MIN_STD, standardize
from imgcap.model.folder import load_model_folder
from imgcap.model.store import locate
from probe import ridge

PENALTY = 100.0


def read_features(folder: Path, other: Path) -> list[Tensor]:
    """float32 (N, 2048) of each set: the images that both folders have."""
    return [read_rows(folder / name, "features", done_rows(folder / name, other / name)) for name in TRAIN_SETS]


def read_weights(decoder: str) -> dict[str, Any]:
    """A decoder and its words, in the form of decoder.pt. Raises `ImgcapError`."""
    if decoder.endswith(".pt"):
        return read_decoder(Path(decoder))
    model = load_model_folder(locate(decoder), torch.device("cpu"))
    return {"decoder": model.decoder.state_dict(), "vocabulary": model.vocabulary.words}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoder", help="model, or decoder.pt of train_general.py")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        saved = read_weights(args.decoder)
    except ImgcapError as error:
        parser.error(str(error))
    weights = saved["decoder"]
    old, new = read_features(args.old, args.new), read_features(args.new, args.old)
    seen = standardize(torch.cat(old), weights["feature_mean"], weights["feature_std"])
    goal = seen @ weights["image.weight"].T
    middle = goal.mean(0)
    mean, std = new[0].mean(0), new[0].std(0).clamp(min=MIN_STD)
    values = standardize(torch.cat(new), mean, std)
    [slopes] = ridge(values, goal, [PENALTY])
    left = (values @ slopes - (goal - middle)).square().sum() / (goal - middle).square().sum()
    print(f"{len(values):,} images; {1 - left:.1%} of the variance explained")
    weights |= {"image.weight": slopes.T.contiguous(), "feature_mean": mean, "feature_std": std}
    weights["image.bias"] = weights["image.bias"] + middle
    with replacing(args.out) as partial:
        torch.save(saved, partial)


if __name__ == "__main__":
    main()
