"""Turn a trained model into the default model of the package: half precision, model card, curves, index, manifest.

    python tools/package_model.py MODEL PREPARED CARD.md [--beam-size 5] [--length-penalty 0.8]

writes src/imgcap/model/default, with the search options that were chosen on dev. For `imgcap doctor` it also writes the
features and caption of a bundled image, to src/imgcap/doctor_expected.safetensors. PREPARED is the folder that the
model was trained on: calibration and training index are computed again for these options. Rounding changes the
scores slightly, so score the packaged model, not the trained one.

What the encoder needs to compute in 8-bit integers is kept if MODEL or the default model so far has it for the same
trunk. For another trunk, run `calibrate_int8.py` on MODEL before, or on the default model afterwards.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from imgcap.captioning.captioner import load_model
from imgcap.dataset.prepared import PreparedFolder
from imgcap.doctor import write_expected
from imgcap.files import make_folder, read_text, write_text
from imgcap.model.encoder import fingerprint, read_encoder, save_encoder
from imgcap.model.folder import load_model_folder, save_decoder
from imgcap.model.quantization import from_tensors
from imgcap.model.store import DEFAULT_MODEL, ENCODER_FILE, METRICS_FILE, MODEL_CARD_FILE, locate
from imgcap.training.export import finish

FEATURE_STATISTICS = ("feature_mean", "feature_std")
TARGET = Path(__file__).parents[1] / "src" / "imgcap" / "model" / DEFAULT_MODEL


def package(source: str, prepared: Path, card: Path, search: dict[str, Any]) -> None:
    folder = locate(source)
    make_folder(TARGET)
    package_encoder(folder / ENCODER_FILE, TARGET / ENCODER_FILE)
    model = load_model_folder(folder, torch.device("cpu"))
    decoder = {
        # Half precision would shift feature means by a large part of a standard deviation.
        name: tensor if name in FEATURE_STATISTICS else tensor.half()
        for name, tensor in model.decoder.state_dict().items()
    }
    named = replace(
        model.config,
        name=DEFAULT_MODEL,
        encoder_fingerprint=fingerprint(TARGET / ENCODER_FILE),
        search=replace(model.config.search, **search),
    )
    save_decoder(TARGET, decoder, model.vocabulary, named)
    write_text(TARGET / MODEL_CARD_FILE, read_text(card))
    if (folder / METRICS_FILE).is_file():
        write_text(TARGET / METRICS_FILE, read_text(folder / METRICS_FILE))
    finish(PreparedFolder(prepared), TARGET, torch.device("cpu"))
    write_expected(load_model(TARGET, device="cpu"))
    total = sum(file.stat().st_size for file in TARGET.iterdir())
    print(f"{TARGET}: {total:,} bytes")


def package_encoder(source: Path, target: Path) -> None:
    """Write an encoder in half precision, with the integers that `source` or `target` has for exactly these weights."""
    known = {}
    for file in (source, target):
        if file.is_file() and (integers := from_tensors(read_encoder(file)[0])):
            known[fingerprint(file)] = integers
    weights, config = read_encoder(source)
    save_encoder(target, weights, config, torch.float16)
    if kept := known.get(fingerprint(target)):
        save_encoder(target, weights, config, torch.float16, kept)
        print("The integers of the encoder are kept.")
    else:
        print("The encoder has no integers for this trunk: run calibrate_int8.py.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder, or the name of an imported model")
    parser.add_argument("prepared", type=Path, help="prepared folder that the model was trained on")
    parser.add_argument("card", type=Path, help="model card")
    parser.add_argument("--beam-size", type=int)
    parser.add_argument("--length-penalty", type=float)
    args = parser.parse_args()
    chosen = {"beam_size": args.beam_size, "length_penalty": args.length_penalty}
    package(args.model, args.prepared, args.card, {name: value for name, value in chosen.items() if value is not None})


if __name__ == "__main__":
    main()
