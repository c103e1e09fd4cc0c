"""Make a model folder from a concept layer and a decoder, ready for `tools/package_model.py`.

    python tools/assemble_general.py CONCEPTS.pt DECODER.pt OUT [--encoder TRUNK.safetensors]

CONCEPTS.pt comes from `concepts.py`, DECODER.pt from `train_general.py`. `package_model.py` then adds the calibrated
confidence and the index of training images.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from imgcap.files import make_folder
from imgcap.model.decoder import DecoderConfig
from imgcap.model.encoder import find_encoder, fingerprint
from imgcap.model.folder import ModelConfig, save_decoder
from imgcap.model.search import SearchOptions
from imgcap.model.store import ENCODER_FILE, write_manifest
from imgcap.text.vocabulary import Vocabulary


def assemble(concepts: Path, decoder: Path, out: Path, encoder: Path, options: SearchOptions) -> None:
    """Write the model folder `out`. Raises `SystemExit` if the decoder has other concepts."""
    fitted = torch.load(concepts, weights_only=True)
    trained = torch.load(decoder, weights_only=True)
    if fitted["words"] != trained["concepts"]:
        raise SystemExit("The decoder was trained with different concepts.")
    layer = fitted["layer"]
    weights = dict(trained["decoder"])
    weights["feature_mean"], weights["feature_std"] = layer["mean"], layer["std"]
    weights["concepts.weight"], weights["concepts.bias"] = layer["weight"], layer["bias"]
    make_folder(out)
    shutil.copyfile(encoder, out / ENCODER_FILE)
    vocabulary = Vocabulary(tuple(trained["vocabulary"]))
    sizes = DecoderConfig(len(vocabulary), dropout=0.3, concepts=len(fitted["words"]))
    training = {"concepts": fitted["words"]}
    save_decoder(out, weights, vocabulary, ModelConfig(out.name, fingerprint(encoder), sizes, options, training))
    write_manifest(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", type=Path)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", default="default", help="the trunk, by name or file")
    parser.add_argument("--beam-size", type=int, default=3)
    parser.add_argument("--length-penalty", type=float, default=0.8)
    args = parser.parse_args()
    options = SearchOptions(beam_size=args.beam_size, length_penalty=args.length_penalty)
    assemble(args.concepts, args.decoder, args.out, find_encoder(args.encoder), options)


if __name__ == "__main__":
    main()
