"""The model folder that a training ends with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from imgcap._version import __version__
from imgcap.captioning.explain import TrainingIndex, indexed_rows
from imgcap.dataset.prepared import Features, MappedFeatures, PreparedFolder
from imgcap.files import replacing, write_json, write_json_lines, write_text
from imgcap.images.decoding import batched
from imgcap.model.confidence import FEWEST_IMAGES, Calibration, agreement, fit
from imgcap.model.decoder import DecoderConfig
from imgcap.model.encoder import Encoder, EncoderConfig, fingerprint, save_encoder
from imgcap.model.folder import Model, ModelConfig, load_model_folder, save_decoder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.search_options import SearchOptions
from imgcap.model.store import CONFIG_FILE, ENCODER_FILE, INDEX_FILE, MANIFEST_FILE, METRICS_FILE, write_manifest
from imgcap.text.tokenizer import tokenize
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.curves import CURVES_FILE, draw_curves
from imgcap.training.networks import under
from imgcap.training.options import TrainingOptions
from imgcap.training.progress import EpochResult, best_epoch


@dataclass(frozen=True)
class TrainedModel:
    """What a training has learned so far."""

    weights: Mapping[str, Tensor]
    """Weights of the best epoch, named decoder.PARAMETER, and encoder.PARAMETER if the encoder was trained."""
    decoder: DecoderConfig
    encoder: EncoderConfig | None
    """None if the encoder was not trained."""
    vocabulary: Vocabulary
    options: TrainingOptions
    search: SearchOptions
    """The search that scored the val captions."""
    log: Sequence[EpochResult]
    images: Mapping[str, int]
    """Number of images in the train and val splits."""
    captions: int
    """Number of training captions."""
    start_hash: str | None = None
    """Hash of the model that the training started from."""


def save_model(model: TrainedModel, prepared: PreparedFolder, out: Path) -> None:
    """Write the model folder `out`, its manifest last. Raises `OSError`."""
    (out / MANIFEST_FILE).unlink(missing_ok=True)
    if model.encoder:
        save_encoder(out / ENCODER_FILE, under("encoder.", model.weights), model.encoder, torch.float32)
    else:
        with replacing(out / ENCODER_FILE) as partial:
            shutil.copyfile(prepared.encoder_file, partial)
    best = best_epoch(model.log)
    training = {
        "imgcap": __version__,
        "torch": torch.__version__,
        "options": asdict(model.options),
        "images": dict(model.images),
        "captions": model.captions,
        "prepared": prepared.metadata.digest,
        "start_hash": model.start_hash,
        "epochs": len(model.log),
        "best_epoch": best.epoch,
        "val_cider_d": best.val_cider_d,
        "val_bleu": best.val_bleu,
    }
    config = ModelConfig(
        name=out.resolve().name,
        encoder_fingerprint=fingerprint(out / ENCODER_FILE),
        decoder=model.decoder,
        search=model.search,
        training=training,
    )
    save_decoder(out, under("decoder.", model.weights), model.vocabulary, config)
    write_json_lines(out / METRICS_FILE, map(asdict, model.log))
    write_text(out / CURVES_FILE, draw_curves(model.log))
    write_manifest(out)


def finish(prepared: PreparedFolder, folder: Path, device: torch.device) -> None:
    """Add the calibration of the confidence and the index of the training images to the model in `folder`.

    `prepared` is the folder that the model was trained on. If the model has an encoder of its own, its images are
    encoded again. Raises `ImgcapError`.
    """
    model = load_model_folder(folder, device)
    options = model.config.training.get("options", {})
    prepared = prepared.with_val_share(options.get("val_share", 0.0), options.get("seed", 0))
    with _features_for(model, prepared) as features:
        confidence = _calibrate(model, prepared, features)
        index = TrainingIndex.build(prepared, model.decoder, features)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    index.save(folder / INDEX_FILE)
    write_json(folder / CONFIG_FILE, asdict(replace(model.config, confidence=confidence)))
    write_manifest(folder)


@contextmanager
def _features_for(model: Model, prepared: PreparedFolder) -> Iterator[MappedFeatures | Features]:
    """Features (N, 2048) by the model's encoder: the prepared ones, or new ones of the indexed and val images alone."""
    if model.config.encoder_fingerprint == prepared.metadata.encoder_fingerprint:
        yield prepared.features
        return
    encoder = Encoder.load(model.encoder_file, model.decoder.feature_mean.device)
    with TemporaryDirectory() as folder:
        shape = (len(prepared.records), FEATURE_SIZE)
        features = np.lib.format.open_memmap(Path(folder) / "features.npy", "w+", np.float32, shape)
        for rows in batched(np.concatenate([indexed_rows(prepared), prepared.rows("val", may_be_empty=True)]), 32):
            features[rows] = encoder(list(prepared.decode(rows, encoder.config.pixels))).numpy()
        yield features


def _calibrate(model: Model, prepared: PreparedFolder, features: MappedFeatures | Features) -> Calibration | None:
    """Fit the confidence on the val images that have two references or more; None if there are too few."""
    rows = [row for row in prepared.rows("val", may_be_empty=True) if len(prepared.records[row].captions) > 1]
    if len(rows) < FEWEST_IMAGES:
        return None
    vectors = (vector for part in batched(rows, 128) for vector in torch.from_numpy(features[part]))
    hypotheses = [found[0] for found in model.search(vectors, model.config.search)]
    references = [[tokenize(caption) for caption in prepared.records[row].captions] for row in rows]
    return fit(hypotheses, agreement([model.vocabulary.decode(h.ids) for h in hypotheses], references))
