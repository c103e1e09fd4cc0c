"""Average the weights of decoders that continue the same training.

    python tools/average_decoders.py OUT.pt 0.5:A/decoder.pt 0.5:B/decoder.pt

The decoders come from `train_general.py` or `reinforce_general.py` and have the same vocabulary; the numbers are their
shares. Decoders with a common past can be averaged (Wortsman et al. 2022, "Model Soups").
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgcap.errors import ImgcapError
from imgcap.files import reason, replacing


def share(text: str) -> tuple[float, Path]:
    """A share and a file, from "0.5:decoder.pt"."""
    number, _, file = text.partition(":")
    return float(number), Path(file)


def read_decoder(file: Path) -> dict[str, Any]:
    """A decoder with its words, as `train_general.py` has saved it. Raises `ImgcapError`."""
    try:
        saved: Any = torch.load(file, weights_only=True)
    except OSError as error:
        raise ImgcapError(f"{file} cannot be read: {reason(error)}.") from None
    except Exception:  # on other files torch raises all kinds of exceptions
        saved = None
    match saved:
        case {"decoder": {"feature_mean": Tensor(), "feature_std": Tensor()}, "vocabulary": [*_]}:
            return {**saved, "vocabulary": tuple(saved["vocabulary"])}
    raise ImgcapError(f"{file} is not a decoder of train_general.py.")


def same_statistics(weights: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    """Whether two decoders standardise features alike. The statistics of an average are rounded."""
    names = ("feature_mean", "feature_std")
    return all(torch.allclose(weights[n].float(), others[n].float(), rtol=1e-4, atol=0) for n in names)


def average(shares: list[tuple[float, Path]]) -> dict[str, Any]:
    """The mean of decoders, in the form of each of them. Raises `ImgcapError` if they do not belong together."""
    saved = [read_decoder(file) for _, file in shares]
    first = saved[0]
    if any(own["vocabulary"] != first["vocabulary"] for own in saved):
        raise ImgcapError("The decoders have different words.")
    sizes = [{name: weight.shape for name, weight in own["decoder"].items()} for own in saved]
    if any(own != sizes[0] for own in sizes):
        raise ImgcapError("The decoders have different sizes.")
    if not all(same_statistics(own["decoder"], first["decoder"]) for own in saved):
        raise ImgcapError("The decoders standardise features differently: they belong to different trunks.")
    if not math.isclose(sum(part for part, _ in shares), 1):
        raise ImgcapError("The shares do not add up to 1.")
    parts = [part for part, _ in shares]
    weights = {
        name: sum(part * own["decoder"][name] for part, own in zip(parts, saved, strict=True))
        for name in first["decoder"]
    }
    return {**first, "decoder": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("decoders", type=share, nargs="+", metavar="SHARE:DECODER.pt")
    args = parser.parse_args()
    try:
        saved = average(args.decoders)
    except ImgcapError as error:
        parser.error(str(error))
    with replacing(args.out) as partial:
        torch.save(saved, partial)


if __name__ == "__main__":
    main()
