"""Images in, captions out."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import tee
from os import PathLike, fspath
from pathlib import Path
from typing import overload

from PIL import Image
from torch import Tensor

from imgcap.captioning.explain import Explanation, TrainingIndex
from imgcap.captioning.options import BATCH_SIZE
from imgcap.device import pick_device
from imgcap.images.archived import ArchivedFile
from imgcap.images.decoding import Pixels, load_batches
from imgcap.images.errors import ImageError
from imgcap.model.decoder import MIN_STD, LSTMDecoder
from imgcap.model.encoder import FLOAT32, Encoder
from imgcap.model.folder import Model, load_model_folder
from imgcap.model.search import Hypothesis, SearchOptions
from imgcap.model.store import DEFAULT_MODEL, ENCODER_FILE, INDEX_FILE, locate

ImageSource = str | PathLike[str] | ArchivedFile | bytes | Image.Image
"""A file by its path or in an archive, the bytes of a file, or an open image."""

MAX_DISTANCE = 10.0
"""Feature distance above which captions mean little, see `feature_distances`.

With a model trained on photographs, images of any kind stay below 2: photographs, drawings, noise, plain black. Pixels
that are not scaled to [-1, 1] have distances of 20 to 50, features of another encoder 3 to 50.
"""
_MIN_CHECKED = 4
"""Number of images that must all be far away, since a single one may be unusual."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wording:
    """One caption of an image, with its probabilities."""

    text: str
    log_probability: float
    """Natural logarithm of the probability that the model gives to the caption."""
    confidence: float | None
    """Calibrated, 0 to 1, see `confidence.Calibration`; None if the model is not calibrated."""
    words: tuple[tuple[str, float], ...]
    """Each word with the probability, 0 to 1, that the model gives it after the words before."""


@dataclass(frozen=True)
class Caption:
    """The captions of one image, or the error that prevented them."""

    path: str | None
    """The file as it was named; None for an image given as pixels or bytes."""
    wordings: tuple[Wording, ...] = ()
    """Best first, at most `SearchOptions.num_captions`; empty if there is an error."""
    explanation: Explanation | None = None
    """How the caption relates to the training images; None unless requested."""
    error: ImageError | None = None

    @property
    def text(self) -> str:
        return self.wordings[0].text if self.wordings else ""

    @property
    def log_probability(self) -> float:
        return self.wordings[0].log_probability if self.wordings else -math.inf

    @property
    def confidence(self) -> float | None:
        return self.wordings[0].confidence if self.wordings else None


class Captioner:
    """A model ready to caption images; made by `load_model`."""

    def __init__(self, model: Model, encoder: Encoder) -> None:
        self.model = model
        self.encoder = encoder
        self._checked_features = False

    @overload
    def caption(  # type: ignore[overload-overlap]  # a str is one path, not a sequence of them
        self, images: ImageSource, options: SearchOptions | None = None
    ) -> Caption: ...
    @overload
    def caption(self, images: Sequence[ImageSource], options: SearchOptions | None = None) -> list[Caption]: ...

    def caption(
        self, images: ImageSource | Sequence[ImageSource], options: SearchOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption one image (a path or a `PIL.Image`) or a list of images.

        Raises `ImgcapError` if a single image cannot be read; in a list, its `Caption` has an `error` instead.
        """
        if not isinstance(images, (str, PathLike, ArchivedFile, bytes, Image.Image)):
            return list(self.stream(images, options))
        [caption] = self.stream([images], options)
        if caption.error:
            raise caption.error
        return caption

    def stream(self, images: Iterable[ImageSource], options: SearchOptions | None = None) -> Iterator[Caption]:
        """Caption any number of images in order, in constant memory; one bad file never stops the rest."""
        for batch in self.batches(images, options):
            yield from batch

    def batches(
        self,
        images: Iterable[ImageSource | ImageError],
        options: SearchOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        max_pixels: int | None = None,
        explain: bool = False,
    ) -> Iterator[list[Caption]]:
        """Caption `batch_size` images at a time, which does not change the captions.

        An `ImageError` among the images, as a search of folders yields it, becomes a `Caption` with that error. For
        `max_pixels` see `open_image`. With `explain`, captions have an explanation. Raises `ImgcapError` if the model
        cannot explain.
        """
        index = self.training_index if explain else None
        named, opened = tee(images)
        names = map(image_name, named)
        sources = (Path(p) if isinstance(p, (str, PathLike)) else p for p in opened)
        for batch in load_batches(sources, self.encoder.config.pixels, batch_size, max_pixels=max_pixels):
            found = self._captions([p for p in batch if not isinstance(p, ImageError)], options, index)
            captions = [Caption(None, error=p) if isinstance(p, ImageError) else next(found) for p in batch]
            yield [replace(caption, path=name) for caption, name in zip(captions, names)]  # noqa: B905 (names continue)

    def _captions(
        self, pixels: list[Pixels], options: SearchOptions | None, index: TrainingIndex | None
    ) -> Iterator[Caption]:
        """A caption for each of `pixels`, without the name of the image."""
        if not pixels:
            return
        features = self.encoder(pixels)
        self._check_features(features)
        seeds = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") for image in pixels]
        found = self.model.search(features, options or self.model.config.search, image_seeds=seeds)
        wordings = [tuple(map(self._wording, hypotheses)) for hypotheses in found]
        explanations = index.explain(features, [own[0].text for own in wordings]) if index else [None] * len(wordings)
        for own, explanation in zip(wordings, explanations, strict=True):
            yield Caption(None, own, explanation)

    def _check_features(self, features: Tensor) -> None:
        """Warn once if all of the first images are unlike anything that the model was trained on."""
        if self._checked_features or len(features) < _MIN_CHECKED:
            return
        self._checked_features = True
        nearest = feature_distances(self.model.decoder, features).min().item()
        if nearest > MAX_DISTANCE:
            # Python writes this line to stderr unless the caller handles it.
            _log.warning(
                "The features of these images are %.3g standard deviations or more from those that the model was "
                "trained on, so captions will mean little: imgcap doctor finds out what is wrong.",
                nearest,
            )

    def _wording(self, hypothesis: Hypothesis) -> Wording:
        calibration = self.model.config.confidence
        words = self.model.vocabulary.decode(hypothesis.ids)
        probabilities = map(math.exp, hypothesis.word_log_probabilities)
        return Wording(
            self.model.text(hypothesis),
            hypothesis.log_probability,
            calibration.probability(hypothesis) if calibration else None,
            tuple(zip(words, probabilities)),  # noqa: B905 (the last probability is that of `<end>`)
        )

    @cached_property
    def training_index(self) -> TrainingIndex:
        """The index of the training images. Raises `ImgcapError` if the model folder has none."""
        return TrainingIndex.load(self.model.folder / INDEX_FILE)


def image_name(image: ImageSource | ImageError) -> str | None:
    """The path of an image; None for pixels and bytes."""
    if isinstance(image, ImageError):
        return image.path
    if isinstance(image, ArchivedFile):
        return image.name
    return None if isinstance(image, (bytes, Image.Image)) else fspath(image)


def feature_distances(decoder: LSTMDecoder, features: Tensor, origin: Tensor | None = None) -> Tensor:
    """Distance of features (B, 2048) from `origin`, by default the mean of the training features: float32 (B,).

    It is the root mean square, in standard deviations of the training features, over the features that varied in
    training; about 1 for a training image. All tensors except the decoder's are on the CPU.
    """
    std = decoder.feature_std.cpu()
    offsets = (features - (decoder.feature_mean.cpu() if origin is None else origin)) / std
    return offsets[:, std > MIN_STD].square().mean(1).sqrt()


def load_model(
    name_or_path: str | PathLike[str] = DEFAULT_MODEL, device: str | None = None, precision: str = FLOAT32
) -> Captioner:
    """Load a model by name (see `available_models`) or folder; without `device`, use a GPU if there is one.

    With `precision` "int8" the encoder computes in 8-bit integers, with "auto" where they are fast; see
    `automatic_precision`. Raises `ImgcapError` if the model is unknown or damaged, and `UsageError` if the device or
    the precision is not available.
    """
    where = pick_device(device)
    folder = locate(fspath(name_or_path))
    return Captioner(load_model_folder(folder, where), Encoder.load(folder / ENCODER_FILE, where, precision=precision))
