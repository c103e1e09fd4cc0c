"""Turn a trained model into the one that ships in the package: half precision, model card, manifest.

    python tools/package_model.py MODEL CARD.md

writes src/imgcap/models/default. Rounding changes the scores a little: score the packaged model, not the trained one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from imgcap.encoder import fingerprint, read_encoder, save_encoder
from imgcap.files import make_folder, read_text, write_text
from imgcap.model import load_model_folder, save_decoder
from imgcap.model_store import DEFAULT_MODEL, ENCODER_FILE, MODEL_CARD_FILE, MODEL_FILES, locate, write_manifest

TARGET = Path(__file__).parents[1] / "src" / "imgcap" / "models" / DEFAULT_MODEL


def main(source: str, card: Path) -> None:
    folder = locate(source)
    make_folder(TARGET)
    weights, config = read_encoder(folder / ENCODER_FILE)
    save_encoder(TARGET / ENCODER_FILE, weights, config, torch.float16)
    model = load_model_folder(folder, torch.device("cpu"))
    decoder = {name: tensor.half() for name, tensor in model.decoder.state_dict().items()}
    named = replace(model.config, name=DEFAULT_MODEL, encoder_fingerprint=fingerprint(TARGET / ENCODER_FILE))
    save_decoder(TARGET, decoder, model.vocabulary, named)
    write_text(TARGET / MODEL_CARD_FILE, read_text(card))
    write_manifest(TARGET, (*MODEL_FILES, MODEL_CARD_FILE))
    total = sum(file.stat().st_size for file in TARGET.iterdir())
    print(f"{TARGET}: {total:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
