"""A finished training in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from imgcap.training.options import AUTO, DEFAULTS, SCRATCH

_TOLD = {
    *("epochs", "patience", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "dropout", "min_count"),
    *("embedding_size", "hidden_size", "fine_tune_encoder", "encoder_learning_rate", "self_critical", "samples"),
    *("start_from", "seed", "beam_size", "length_penalty", "keep_words"),
}
"""Options that the sentences name; others are listed if they differ from their defaults."""


def start_model(training: Mapping[str, Any]) -> str | None:
    """Name or folder of the model that a training started from, as the user gave it; None for random weights.

    `training` is that of a `ModelConfig`, here and in `describe`.
    """
    name = training.get("options", {}).get("start_from")
    return None if name in (None, AUTO, SCRATCH) else str(name)


def describe(training: Mapping[str, Any], seconds: float) -> list[tuple[str, str]]:
    """What was trained, on what and how, as names and values.

    The options of the training are complete (see `settings.complete`). `seconds` is how long the epochs took.
    """
    options = {**asdict(DEFAULTS), **training.get("options", {})}
    start = start_model(training)
    sizes = f"embeddings of {options['embedding_size']} numbers and an LSTM of {options['hidden_size']}"
    others = [
        name.replace("_", " ") + ("" if value is True else f" {value}")
        for name, value in options.items()
        if name not in _TOLD and value != getattr(DEFAULTS, name, None)
    ]
    described = [
        ("start", f"the weights of {start}" if start else f"random weights, {sizes}"),
        ("data", _data(training)),
        ("words", _words(start, options)),
        ("epochs", _epochs(training, options, seconds)),
        ("loss", _loss(options)),
        ("optimiser", _optimiser(options)),
        ("encoder", "trained too" if options["fine_tune_encoder"] else "not trained"),
        ("search", f"beam {options['beam_size']}, length penalty {options['length_penalty']:g}"),
        ("seed", str(options["seed"])),
        ("other options", ", ".join(others)),
        ("made by", f"imgcap {training.get('imgcap', '')}, torch {training.get('torch', '')}"),
    ]
    return [(name, value) for name, value in described if value]


def _data(training: Mapping[str, Any]) -> str:
    images = training.get("images", {})
    val = f", and {images['val']:,} val images" if images.get("val") else ""
    return f"{images.get('train', 0):,} images with {training.get('captions', 0):,} captions{val}"


def _words(start: str | None, options: Mapping[str, Any]) -> str:
    count = options["min_count"]
    frequent = "all" if count == 1 else f"those that occur {count} times or more"
    if not start:
        return frequent
    if options["self_critical"]:
        return f"those of {start}"
    kept = f"those of {start}" + ("" if options["keep_words"] else " that the captions have")
    return f"{kept}, and of the others {frequent}"


def _epochs(training: Mapping[str, Any], options: Mapping[str, Any], seconds: float) -> str:
    run, best, patience = training.get("epochs", 0), training.get("best_epoch", 0), options["patience"]
    which = "the last one was kept" if best == run else f"number {best} was kept"
    if patience:
        which += ", which has the highest CIDEr-D on the val images"
        if run < (options["epochs"] or 0):
            which += f"; stopped after {patience} epochs without a better one, of at most {options['epochs']}"
    return f"{run} in {_duration(seconds)}; {which}"


def _loss(options: Mapping[str, Any]) -> str:
    if options["self_critical"]:
        return f"CIDEr-D of {options['samples']} sampled captions of each image (self-critical training)"
    return f"next word, label smoothing {options['label_smoothing']:g}, dropout {options['dropout']:g}"


def _optimiser(options: Mapping[str, Any]) -> str:
    by_image = options["fine_tune_encoder"] or options["self_critical"]
    encoder = f", {options['encoder_learning_rate']:g} for the encoder" if options["fine_tune_encoder"] else ""
    return (
        f"AdamW with a peak learning rate of {options['learning_rate']:g}{encoder} and a weight decay of "
        f"{options['weight_decay']:g}, on batches of {options['batch_size']} {'images' if by_image else 'captions'}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
