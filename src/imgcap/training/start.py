"""The model that a training starts from, and how its decoder takes over the words of other captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ImgcapError
from imgcap.model.folder import Model, check_encoder, load_model_folder
from imgcap.model.store import DEFAULT_MODEL, default_encoder_fingerprint, locate
from imgcap.text.tokenizer import words
from imgcap.text.vocabulary import SPECIAL_WORDS, UNKNOWN, Vocabulary
from imgcap.training.options import AUTO, SCRATCH, TrainingOptions

_FEW_FOR_A_START = 100
"""With fewer training images, a model was measured to become worse than the one that it started from."""
_WORD_WEIGHTS = ("embedding.weight", "output.weight", "output.bias")
"""Weights of a decoder that have a row for each word."""


def choose_start(options: TrainingOptions, prepared: PreparedFolder) -> str:
    """Name or folder of the model to start from, or "none"; decides what "auto" means for the features in `prepared`.

    Raises `ImgcapError` if self-critical training has no model to start from.
    """
    if options.start_from != AUTO:
        return options.start_from
    if wants_default(options) and prepared.metadata.encoder_fingerprint == default_encoder_fingerprint():
        return DEFAULT_MODEL
    if options.self_critical:
        raise ImgcapError("Self-critical training needs a trained model to start from.", "Add --start-from MODEL.")
    return SCRATCH


def wants_default(options: TrainingOptions) -> bool:
    """Whether the default model is the start if the features come from its encoder."""
    return options.start_from == AUTO and not (options.embedding_size or options.hidden_size)


def load_start(options: TrainingOptions, prepared: PreparedFolder, device: torch.device) -> Model | None:
    """The model that `options` start from, or None.

    Raises `ImgcapError` if there is no such model, or if the features in `prepared` come from another encoder.
    """
    if options.start_from == SCRATCH:
        return None
    start = load_model_folder(locate(options.start_from), device)
    if not options.fine_tune_encoder:
        check_encoder(start, prepared.metadata.encoder_fingerprint, prepared.root)
    return start


def adapted_vocabulary(start: Vocabulary, captions: Iterable[str], min_count: int, keep_words: bool) -> Vocabulary:
    """The words of `start` that `captions` have, or all of them, then those that occur `min_count` times.

    Words that the captions lack are left out, so that no search can say them.
    """
    counts = Counter(word for caption in captions for word in words(caption))
    old = [word for word in start.words[len(SPECIAL_WORDS) :] if keep_words or word in counts]
    new = sorted((w for w, n in counts.items() if n >= min_count and w not in start), key=lambda w: (-counts[w], w))
    return Vocabulary((*SPECIAL_WORDS, *old, *new))


def described(start: Model | None, vocabulary: Vocabulary, wanted_default: bool = False) -> str:
    """What a training with `vocabulary` starts from, in one sentence; `wanted_default` as from `wants_default`."""
    if not start:
        reason = (
            ", because the features come from another encoder than the default model's; prepare the images again to "
            "start from that model"
        )
        return f"Starts from random weights{reason if wanted_default else ''}."
    count, name = len(start.vocabulary) - len(SPECIAL_WORDS), start.config.name
    stay = sum(word in start.vocabulary for word in vocabulary.words[len(SPECIAL_WORDS) :])
    new = len(vocabulary) - len(SPECIAL_WORDS) - stay
    are = "is" if new == 1 else "are"
    return f"Starts from the model {name!r}: {stay:,} of its {count:,} words stay, {new:,} {are} new."


def doubts(start: Model | None, images: int, rare_words: int, min_count: int) -> list[str]:
    """What a person should know before the training: words that it leaves out, and that few images may do harm."""
    found = []
    if rare_words:
        words, occur, are = ("word", "occurs", "is") if rare_words == 1 else ("words", "occur", "are")
        found.append(
            f"{rare_words:,} {words} of the training captions that {occur} fewer than {min_count} times {are} left out "
            "(--min-count)."
        )
    if start and images < _FEW_FOR_A_START:
        found.append(
            f"So few images often make a model worse: compare its captions with those of {start.config.name!r} before "
            "you use it."
        )
    return found


def adapted_weights(start: Model, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The weights of the decoder of `start` for the words of `vocabulary`: known words keep theirs.

    A word that `start` does not know begins with the mean of the words that it knows.
    """
    known = torch.tensor(start.vocabulary.encode(vocabulary.words))
    new = known == UNKNOWN
    new[UNKNOWN] = False
    weights = start.decoder.state_dict()
    for name in _WORD_WEIGHTS:
        own = weights[name][known]
        own[new] = weights[name][len(SPECIAL_WORDS) :].mean(0)
        weights[name] = own
    return weights
