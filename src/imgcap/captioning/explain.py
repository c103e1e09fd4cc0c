"""An index of a model's training images and captions, small enough to ship with the model.

Images are stored as codes, captions as hashes: neither can be recovered. The code of an image is its feature as the
decoder sees it, standardised and clamped, projected onto the principal components of the training images and scaled to
a fixed length.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imgcap.dataset.prepared import Features, MappedFeatures, PreparedFolder, Rows
from imgcap.errors import ImgcapError
from imgcap.files import write_tensors
from imgcap.images.decoding import batched
from imgcap.model.decoder import LSTMDecoder, standardize
from imgcap.model.inception import FEATURE_SIZE
from imgcap.text.tokenizer import words

COMPONENTS = 128
NEAREST = 3
"""Number of training images that an explanation names."""
WARNING_PERCENTILE = 0.95
"""An image farther from the training images than this fraction of the val images gets a warning."""
FEWEST_VAL_IMAGES = 20
"""With fewer val images, one of them is more than the 5 % that the warning is about: images then get no percentile."""
MAX_IMAGES = 2**17
"""Maximum number of training images in an index: enough for COCO, at 16 MiB of codes, about the size of a decoder."""

_PCA_IMAGES = 8192
_CODE_SCALE = 127
_LEAST_VARIANCE = 1e-3
"""Share of all variance below which a component is not amplified further, because codes are rounded."""
_BEYOND_ALL = torch.tensor([1e9])
"""A distance that no image has."""


@dataclass(frozen=True)
class Explanation:
    """How an image and its caption relate to the training images and captions."""

    nearest: tuple[tuple[str, float], ...]
    """The most similar training images, best first: name and similarity, see `TrainingIndex.similarities`."""
    verbatim: bool
    """Whether the caption is, word for word, a training caption."""
    distance: float
    """Distance of the image from the training images as a whole; 1 for a typical training image."""
    percentile: float | None
    """Fraction of the val images, 0 to 1, that are nearer to the training images; None if there were too few."""
    warning: str
    """A warning as a sentence; empty if there is none."""


@dataclass(frozen=True, eq=False)
class TrainingIndex:
    """N training images in D components, and C different captions."""

    names: tuple[str, ...]
    codes: Tensor
    """int8 (N, D)"""
    mean: Tensor
    """float32 (2048,), like `std`: the decoder standardises features with them."""
    std: Tensor
    projection: Tensor
    """float16 (2048, D): leading principal components, in order."""
    variances: Tensor
    """float32 (D,): variance of the training images along each of them."""
    caption_hashes: Tensor
    """int64 (C,), ascending."""
    percentiles: Tensor
    """float32 (101,): percentiles 0 to 100 of the distances of the val images; `_BEYOND_ALL` if they were too few."""

    @classmethod
    def build(
        cls, prepared: PreparedFolder, decoder: LSTMDecoder, features: MappedFeatures | Features | None = None
    ) -> TrainingIndex:
        """Index the training images of `prepared`, in constant memory plus 8 bytes a caption.

        The index has the images of `indexed_rows`, and all captions. `features`, float32 (N, 2048), one row for each
        record, replace the prepared ones if the model has its own encoder; only those of `indexed_rows` and of val
        images are read. With too few val images, nothing tells how far unseen images are: no image gets a percentile.
        Raises `ImgcapError` if there are no training images.
        """
        features = prepared.features if features is None else features
        rows, val_rows = indexed_rows(prepared), prepared.rows("val", may_be_empty=True)
        mean, std = decoder.feature_mean.cpu(), decoder.feature_std.cpu()
        projection, variances = _principal_components(features, rows, mean, std)
        codes = [
            (_CODE_SCALE * F.normalize(_project(features[part], mean, std, projection))).round().to(torch.int8)
            for part in batched(rows, 4096)
        ]
        compared = val_rows if len(val_rows) >= FEWEST_VAL_IMAGES else ()
        distances = [
            _distances(_project(features[part], mean, std, projection), variances) for part in batched(compared, 4096)
        ]
        captions = (caption for row in prepared.rows("train") for caption in prepared.records[row].captions)
        hashes = np.fromiter(map(_hash, captions), np.int64)
        hashes.sort()  # np.unique may build a set, which takes several times the memory
        return cls(
            names=tuple(prepared.records[row].path for row in rows),
            codes=torch.cat(codes),
            mean=mean,
            std=std,
            projection=projection,
            variances=variances,
            caption_hashes=torch.unique_consecutive(torch.from_numpy(hashes)),
            percentiles=torch.cat(distances or [_BEYOND_ALL]).quantile(torch.linspace(0, 1, 101)),
        )

    def save(self, file: Path) -> None:
        """Write the index as a safetensors file."""
        write_tensors(file, {name: getattr(self, name) for name in _TENSORS}, {"names": json.dumps(self.names)})

    @classmethod
    def load(cls, file: Path) -> TrainingIndex:
        """Read an index. Raises `ImgcapError` if it is missing or damaged."""
        if not file.is_file():
            raise ImgcapError(f"The model {file.parent} has no index of its training images.", "Train it again.")
        try:
            with safe_open(file, framework="pt") as opened:
                names = tuple(json.loads(opened.metadata()["names"]))
                index = cls(names, **{name: opened.get_tensor(name) for name in _TENSORS})
            whole = index._is_whole()
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
            whole = False
        if not whole:
            raise ImgcapError(f"{file} is damaged: it is not an index of training images.", "Train the model again.")
        return index

    def _is_whole(self) -> bool:
        count, size = len(self.names), self.variances.numel()
        wanted = {
            "codes": (torch.int8, (count, size)),
            "mean": (torch.float32, (FEATURE_SIZE,)),
            "std": (torch.float32, (FEATURE_SIZE,)),
            "projection": (torch.float16, (FEATURE_SIZE, size)),
            "variances": (torch.float32, (size,)),
            "caption_hashes": (torch.int64, (self.caption_hashes.numel(),)),
            "percentiles": (torch.float32, (101,)),
        }
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return (
            count > 0
            and 0 < size <= COMPONENTS
            and all(isinstance(name, str) for name in self.names)
            and {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} == wanted
            and all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
            and bool((self.std > 0).all() and (self.variances > 0).all())
        )

    def explain(self, features: Tensor, texts: Sequence[str]) -> list[Explanation]:
        """Explain images from their features, float32 (B, 2048), and their captions."""
        projected = self._components(features)
        best, indices = self._similarities(projected).topk(min(NEAREST, len(self.names)))
        distances = _distances(projected, self.variances).tolist()
        percentiles: list[float | None] = [None] * len(distances)
        if self.percentiles[-1] < _BEYOND_ALL:
            percentiles = np.interp(distances, self.percentiles.numpy(), np.linspace(0, 1, 101)).tolist()
        return [
            Explanation(
                nearest=tuple((self.names[index], similarity) for index, similarity in zip(*near, strict=True)),
                verbatim=self.knows(text),
                distance=distance,
                percentile=percentile,
                warning=_warning(percentile),
            )
            for near, text, distance, percentile in zip(
                zip(indices.tolist(), best.tolist(), strict=True), texts, distances, percentiles, strict=True
            )
        ]

    def similarities(self, features: Tensor) -> Tensor:
        """Similarity of images, from their features, float32 (B, 2048), to each training image: (B, N), -1 to 1.

        It is the cosine after each component is divided by the root of its `variances`: otherwise two images that are
        strong in the first component, such as two of surfers, would seem to be one.
        """
        return self._similarities(self._components(features))

    def _similarities(self, projected: Tensor) -> Tensor:
        return F.normalize(projected * self._weights) @ self._directions.T

    @cached_property
    def _weights(self) -> Tensor:
        """float32 (D,): what each component is multiplied by before the cosine."""
        least = _LEAST_VARIANCE * self.variances.sum()
        return self.variances.clamp(min=float(least)).rsqrt()

    @cached_property
    def _directions(self) -> Tensor:
        """float32 (N, D): the training images in the space of `similarities`, each of length 1."""
        return F.normalize(self.codes.float() * self._weights)

    def _components(self, features: Tensor) -> Tensor:
        return _project(features.cpu(), self.mean, self.std, self.projection)

    def knows(self, caption: str) -> bool:
        """Whether `caption` is, word for word, a training caption."""
        digest = torch.tensor(_hash(caption))
        index = int(torch.searchsorted(self.caption_hashes, digest))
        return index < len(self.caption_hashes) and bool(self.caption_hashes[index] == digest)


def indexed_rows(prepared: PreparedFolder) -> Rows:
    """Rows of the training images in an index, ascending: all, or `MAX_IMAGES` evenly spaced ones."""
    return evenly_spaced(prepared.rows("train"), MAX_IMAGES)


def evenly_spaced(rows: Rows, limit: int) -> Rows:
    """At most `limit` of `rows`, including the first and the last."""
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), limit)).astype(int)]
    return chosen


_TENSORS = tuple(field.name for field in fields(TrainingIndex) if field.name != "names")


def _project(features: Tensor | Features, mean: Tensor, std: Tensor, projection: Tensor) -> Tensor:
    """Features (B, 2048) -> components (B, D)."""
    return standardize(torch.as_tensor(features), mean, std) @ projection.float()


def _principal_components(
    features: MappedFeatures | Features, rows: Rows, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """Leading components, float16 (2048, D), and their variances, float32 (D,), from at most 8,192 of `rows`."""
    images = standardize(torch.as_tensor(features[evenly_spaced(rows, _PCA_IMAGES)]), mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the method is randomised (Halko et al. 2011)
        _, scales, components = torch.pca_lowrank(images, min(COMPONENTS, len(rows)), center=False, niter=4)
    return components.half(), (scales**2 / len(images)).clamp(min=1e-6)


def _distances(projected: Tensor, variances: Tensor) -> Tensor:
    """Distance of images (B, D) from the training images, float32 (B,): 1 for a typical training image.

    It is the Mahalanobis distance (Lee et al. 2018) as a mean over the components without the leading quarter, which
    tells training images apart; the other components tell unlike images better (Kamoi and Kobayashi 2020).
    """
    skipped = len(variances) // 4
    return (projected**2 / variances)[:, skipped:].mean(1).sqrt()


def _hash(caption: str) -> int:
    """A signed 64-bit hash of the words of `caption`."""
    text = " ".join(words(caption)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _warning(percentile: float | None) -> str:
    if percentile is None or percentile < WARNING_PERCENTILE:
        return ""
    return (
        "This image is unlike those that the model was trained on: farther from them than "
        f"{math.floor(100 * percentile)} % of its val images."
    )
