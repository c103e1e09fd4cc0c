"""Load and save the decoder, vocabulary and settings of a model folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from imgcap.errors import ImgcapError, UsageError
from imgcap.files import current_keys, read_json, sha256, write_json, write_tensors
from imgcap.images.decoding import batched
from imgcap.model.confidence import Calibration
from imgcap.model.decoder import DecoderConfig, LSTMDecoder
from imgcap.model.search import Hypothesis, SearchOptions, search
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, ENCODER_FILE, MANIFEST_FILE, VOCABULARY_FILE
from imgcap.text.tokenizer import KNOWN_TOKENIZERS, TOKENIZER, detokenize
from imgcap.text.vocabulary import SPECIAL_WORDS, Vocabulary

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelConfig:
    """Content of `config.json`."""

    name: str
    encoder_fingerprint: str
    """Fingerprint of the encoder whose features the decoder was trained on."""
    decoder: DecoderConfig
    search: SearchOptions
    """Default search options."""
    training: dict[str, Any] = field(default_factory=dict)
    """Training options, data, and val scores of the chosen epoch."""
    confidence: Calibration | None = None
    """Calibration for captions found with `search`; None if there were too few val images to fit it."""
    tokenizer: str = TOKENIZER
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Model:
    """A decoder with its vocabulary and settings, loaded from `folder`."""

    folder: Path
    config: ModelConfig
    vocabulary: Vocabulary
    decoder: LSTMDecoder

    @property
    def encoder_file(self) -> Path:
        return self.folder / ENCODER_FILE

    @cached_property
    def hash(self) -> str:
        """The first 16 digits of the manifest's SHA-256, which identify the model."""
        return sha256(self.folder / MANIFEST_FILE)[:16]

    def text(self, hypothesis: Hypothesis) -> str:
        """The caption of `hypothesis` as readable text."""
        return detokenize(self.vocabulary.decode(hypothesis.ids))

    def search(
        self, features: Iterable[Tensor], options: SearchOptions, image_seeds: Iterable[int] | None = None
    ) -> Iterator[list[Hypothesis]]:
        """Yield the hypotheses, best first, for each vector (2048,) of `features`.

        The samples of an image depend on its entry in `image_seeds`, integers from 0; None numbers the images from 0.

        Raises `UsageError` if every word is banned, and `ImgcapError` if the probabilities are not numbers.
        """
        banned = self.vocabulary.encode(options.ban)
        if set(banned).issuperset(range(len(SPECIAL_WORDS), len(self.vocabulary))):
            raise UsageError(f"Every word that the model {self.config.name!r} knows is banned.")
        device = self.decoder.feature_mean.device
        seeds = count() if image_seeds is None else image_seeds
        for batch in batched(zip(features, seeds, strict=image_seeds is not None), 128):
            vectors, batch_seeds = zip(*batch, strict=True)
            stacked = torch.stack(vectors).to(device)
            for found in search(self.decoder, stacked, options, banned_ids=banned, image_seeds=batch_seeds):
                if not found or not math.isfinite(found[0].log_probability):
                    raise ImgcapError(
                        f"The model {self.folder} computes no probabilities: weights or features are too large.",
                        "Import or train it again.",
                    )
                yield found


def load_model_folder(folder: Path, device: torch.device) -> Model:
    """Load the decoder of a verified model folder. Raises `ImgcapError` if its files do not fit together."""
    data = read_json(folder / CONFIG_FILE)
    try:
        if data["format_version"] != FORMAT_VERSION or data["tokenizer"] not in KNOWN_TOKENIZERS:
            raise ImgcapError(f"The model {folder} was made by another version of imgcap.", "Train it again.")
        config = _read_config(data, folder / CONFIG_FILE)
        vocabulary = _read_vocabulary(folder / VOCABULARY_FILE)
    except (KeyError, TypeError, RecursionError):
        raise ImgcapError(f"The settings of the model {folder} are damaged.", "Import or train it again.") from None
    if len(vocabulary) != (size := config.decoder.vocabulary_size):
        raise ImgcapError(f"The vocabulary of {folder} has {len(vocabulary):,} words, but its decoder has {size:,}.")
    try:
        with torch.device("meta"):
            decoder = LSTMDecoder(config.decoder).requires_grad_(False)
        weights = load_file(folder / DECODER_FILE)  # memory-mapped: takes memory only where it is read
        decoder.load_state_dict(weights, assign=True)  # checks names and sizes before reading anything
        decoder.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    except (SafetensorError, OSError, RuntimeError, TypeError) as error:
        raise ImgcapError(f"The decoder of {folder} does not fit its settings: {_last_line(error)}") from None
    if not all(tensor.isfinite().all() for tensor in decoder.state_dict().values()):
        raise ImgcapError(f"The decoder of {folder} holds weights that are not numbers.")
    return Model(folder, config, vocabulary, decoder.to(device).eval().requires_grad_(False))


def _read_config(data: dict[str, Any], file: Path) -> ModelConfig:
    try:
        parts: dict[str, object] = {
            "decoder": DecoderConfig(**data["decoder"]),
            "search": SearchOptions(**data["search"]),
        }
        if data.get("confidence") is not None:
            parts["confidence"] = Calibration(**current_keys(data["confidence"]))
    except ImgcapError as error:
        raise ImgcapError(f"{file} is damaged. {error}", "Import or train the model again.") from None
    return ModelConfig(**{**data, **parts})


def _read_vocabulary(file: Path) -> Vocabulary:
    words = tuple(read_json(file)["words"])
    try:
        return Vocabulary(words)
    except ImgcapError as error:
        raise ImgcapError(f"{file} is damaged. {error}", "Import or train the model again.") from None


def _last_line(error: Exception) -> str:
    """The particular fault; the lines before it repeat what torch was doing."""
    return str(error).strip().rpartition("\n")[2].strip()


def save_decoder(folder: Path, weights: dict[str, Tensor], vocabulary: Vocabulary, config: ModelConfig) -> None:
    """Write the files of a model folder, except the encoder and the manifest."""
    write_tensors(folder / DECODER_FILE, weights)
    write_json(folder / VOCABULARY_FILE, {"words": vocabulary.words})
    write_json(folder / CONFIG_FILE, asdict(config))


def check_encoder(model: Model, encoder_fingerprint: str, prepared: Path) -> None:
    """Raise `ImgcapError` if the features in `prepared` come from another encoder than that of `model`."""
    if model.config.encoder_fingerprint != encoder_fingerprint:
        raise ImgcapError(
            f"The features in {prepared} come from another encoder than the model {model.config.name!r} needs.",
            f"Prepare the images with `--encoder {model.folder}` into another folder.",
        )
