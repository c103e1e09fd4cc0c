"""The networks that a training changes, and how it builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imgcap.captioning.explain import evenly_spaced
from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.distributed import World
from imgcap.errors import ImgcapError
from imgcap.images.decoding import batched
from imgcap.model.decoder import DecoderConfig, LSTMDecoder
from imgcap.model.encoder import Encoder
from imgcap.model.folder import Model
from imgcap.model.inception import FEATURE_SIZE, InceptionV3
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.options import TrainingOptions
from imgcap.training.settings import SIZE, Settings
from imgcap.training.start import adapted_weights

_MAX_STATISTICS_IMAGES = 2**18
"""Maximum sample for the feature statistics: enough for 0.2 % of a standard deviation; ten million images would take
minutes."""


class Networks:
    """The decoder, the encoder if it is trained, and their moving averages if the options ask for them."""

    def __init__(self, decoder: LSTMDecoder, encoder: Encoder | None, options: TrainingOptions, world: World) -> None:
        self.decoder = decoder
        self.encoder = encoder
        self.modules: dict[str, nn.Module] = {"decoder": decoder}
        if encoder:
            self.modules["encoder"] = encoder.network
        self.parallel = {name: world.parallel(module) for name, module in self.modules.items()}
        """The modules to call in training: these exchange gradients between processes."""
        self.averages: dict[str, AveragedModel] = {}
        if options.average:
            average = get_ema_multi_avg_fn(options.average)  # type: ignore[no-untyped-call]
            self.averages = {name: AveragedModel(m, multi_avg_fn=average) for name, m in self.modules.items()}

    def update_averages(self) -> None:
        """Add the current weights to the moving averages."""
        for name, average in self.averages.items():
            average.update_parameters(self.modules[name])

    @property
    def kept(self) -> dict[str, nn.Module]:
        """The modules that are scored and saved: the averages, if there are any."""
        return {name: self.averages[name].module if self.averages else m for name, m in self.modules.items()}

    @property
    def kept_decoder(self) -> LSTMDecoder:
        return cast(LSTMDecoder, self.kept["decoder"])

    @property
    def kept_encoder(self) -> Encoder | None:
        """The encoder to score with; None if it is not trained."""
        if not self.encoder:
            return None
        return Encoder(cast(InceptionV3, self.kept["encoder"]), self.encoder.config, self.encoder.device)

    def copy_kept(self) -> dict[str, Tensor]:
        """A copy of the weights of `kept`, named MODULE.PARAMETER."""
        return {name: tensor.detach().clone() for name, tensor in _weights(self.kept).items()}

    def state(self) -> dict[str, Tensor]:
        """All weights and averages, for a checkpoint."""
        current = {f"now.{name}": tensor for name, tensor in _weights(self.modules).items()}
        return current | {f"average.{name}": tensor for name, tensor in _weights(self.averages).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights and averages that `state` returned."""
        for name, module in self.modules.items():
            module.load_state_dict(under(f"now.{name}.", state))
        for name, average in self.averages.items():
            average.load_state_dict(under(f"average.{name}.", state))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}


def build_networks(
    prepared: PreparedFolder,
    train_rows: Rows,
    vocabulary: Vocabulary,
    options: TrainingOptions,
    world: World,
    start: Model | None,
) -> Networks:
    """New networks for `vocabulary`, or those of the model `start`, adapted to it.

    Raises `ImgcapError` if the encoder is to be trained and does not fit the prepared folder, or its images are gone.
    """
    torch.manual_seed(options.seed)
    dropout = Settings.of(options).dropout
    if start:
        config = replace(start.config.decoder, vocabulary_size=len(vocabulary), dropout=dropout)
    else:
        config = DecoderConfig(len(vocabulary), options.embedding_size or SIZE, options.hidden_size or SIZE, dropout)
    decoder = LSTMDecoder(config).to(world.device)
    encoder = _load_encoder(prepared, world.device, start) if options.fine_tune_encoder else None
    if start:
        decoder.load_state_dict(adapted_weights(start, vocabulary))
    else:
        decoder.standardize_features(*_feature_statistics(prepared, train_rows))
    return Networks(decoder, encoder, options, world)


def _load_encoder(prepared: PreparedFolder, device: torch.device, start: Model | None) -> Encoder:
    file = start.encoder_file if start else prepared.encoder_file
    encoder = Encoder.load(file, device, fold=False)
    if encoder.config != prepared.metadata.encoder_config:
        raise ImgcapError(f"The encoder {file} and the one of {prepared.root} take different images.")
    if not (prepared.metadata.archives or prepared.image_root.is_dir()):
        raise ImgcapError(f"The image folder {prepared.image_root} no longer exists.", "Prepare the images again.")
    return encoder


def _feature_statistics(prepared: PreparedFolder, train_rows: Rows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (2048,) of the features of the training images, or of a sample of them."""
    chosen = evenly_spaced(train_rows, _MAX_STATISTICS_IMAGES)
    total, squares = np.zeros(FEATURE_SIZE), np.zeros(FEATURE_SIZE)
    for rows in batched(chosen, 4096):
        part = prepared.features[rows].astype(np.float64)
        total += part.sum(0)
        squares += (part**2).sum(0)
    mean = total / len(chosen)
    std = np.sqrt(np.maximum(squares / len(chosen) - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
