"""A finished training in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from imgcap.files import read_json_lines
from imgcap.model.store import CONFIG_FILE, METRICS_FILE, default_encoder_fingerprint, start_model
from imgcap.text.vocabulary import SPECIAL_WORDS
from imgcap.training.options import DEFAULTS

if TYPE_CHECKING:
    from imgcap.model.folder import Model

_TOLD = {
    *("epochs", "patience", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "dropout", "min_count"),
    *("embedding_size", "hidden_size", "fine_tune_encoder", "encoder_learning_rate", "self_critical", "samples"),
    *("start_from", "seed", "beam_size", "length_penalty", "keep_words"),
}
"""Options that the sentences name; others are listed if they differ from their defaults."""


def describe_model(model: Model) -> list[tuple[str, str]]:
    """What the folder of a model tells: the model, its training and its scores, as names and values."""
    config, search = model.config, model.config.search
    shared = config.encoder_fingerprint == default_encoder_fingerprint()
    facts = [
        ("model", config.name),
        ("folder", str(model.folder)),
        ("vocabulary", f"{len(model.vocabulary) - len(SPECIAL_WORDS):,} words"),
        ("sizes", _sizes(asdict(config.decoder))),
        ("encoder", f"{config.encoder_fingerprint[:16]}, {'the' if shared else 'not the'} default model's"),
        (
            "search",
            f"beam {search.beam_size}, length penalty {search.length_penalty:g}, at most {search.max_length} words",
        ),
        ("confidence", f"calibrated on {config.confidence.images:,} val images" if config.confidence else "none"),
    ]
    try:
        facts += [(f"training: {name}", text) for name, text in describe_training(model) if name != "search"]
        if config.training.get("val_bleu"):
            cider_d, bleu_4 = config.training["val_cider_d"], config.training["val_bleu"][3]
            facts.append(("val scores", f"CIDEr-D {cider_d:.4f}, BLEU-4 {bleu_4:.4f}"))
    except (AttributeError, LookupError, TypeError, ValueError):  # nothing checks what a folder says of its training
        facts.append(("training", f"what {CONFIG_FILE} or {METRICS_FILE} says of it cannot be read"))
    return facts


def describe_training(model: Model) -> list[tuple[str, str]]:
    """How a model was trained, see `describe`; empty if its folder does not tell."""
    if not model.config.training.get("options"):
        return []
    file = model.folder / METRICS_FILE
    seconds = sum(float(row["seconds"]) for _, row in read_json_lines(file)) if file.is_file() else 0.0
    return describe(model.config.training, seconds)


def describe(training: Mapping[str, Any], seconds: float) -> list[tuple[str, str]]:
    """What was trained, on what and how, as names and values.

    `training` is that of a `ModelConfig`, with complete options (see `settings.complete`). `seconds` is how long the
    epochs took.
    """
    options = {**asdict(DEFAULTS), **training.get("options", {})}
    start = start_model(training)
    others = [
        name.replace("_", " ") + ("" if value is True else f" {value}")
        for name, value in options.items()
        if name not in _TOLD and value != getattr(DEFAULTS, name, None)
    ]
    described = [
        ("start", f"the weights of {start}" if start else f"random weights, {_sizes(options)}"),
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


def _sizes(options: Mapping[str, Any]) -> str:
    return f"embeddings of {options['embedding_size']} numbers and an LSTM of {options['hidden_size']}"


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
