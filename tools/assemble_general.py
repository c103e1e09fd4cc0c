"""Make a model folder from a decoder, ready for `tools/package_model.py`.

    python tools/assemble_general.py DECODER.pt OUT [--encoder TRUNK.safetensors]

DECODER.pt comes from `train_general.py`. `package_model.py` then adds the calibrated
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
from imgcap.model.store import ENCODER_FILE, METRICS_FILE, write_manifest
from imgcap.text.vocabulary import Vocabulary


def assemble(decoder: Path, out: Path, encoder: Path, options: SearchOptions) -> None:
    """Write the model folder `out`."""
    trained = torch.load(decoder, weights_only=True)
    make_folder(out)
    shutil.copyfile(encoder, out / ENCODER_FILE)
    vocabulary = Vocabulary(tuple(trained["vocabulary"]))
    config = ModelConfig(out.name, fingerprint(encoder), DecoderConfig(len(vocabulary), dropout=0.3), options, {})
    save_decoder(out, trained["decoder"], vocabulary, config)
    if (decoder.with_name(METRICS_FILE)).exists():
        shutil.copyfile(decoder.with_name(METRICS_FILE), out / METRICS_FILE)
    write_manifest(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", default="default", help="the trunk, by name or file")
    parser.add_argument("--beam-size", type=int, default=3)
    parser.add_argument("--length-penalty", type=float, default=0.8)
    args = parser.parse_args()
    options = SearchOptions(beam_size=args.beam_size, length_penalty=args.length_penalty)
    assemble(args.decoder, args.out, find_encoder(args.encoder), options)


if __name__ == "__main__":
    main()
