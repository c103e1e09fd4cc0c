"""Pictures in, captions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from os import PathLike, fspath
from pathlib import Path
from typing import overload

import torch
from PIL import Image

from imgcap.encoder import Encoder, pick_device
from imgcap.errors import ImgcapError
from imgcap.images import load_batches
from imgcap.model import Model, load_model_folder
from imgcap.model_store import DEFAULT_MODEL, ENCODER_FILE, locate
from imgcap.search import SearchOptions

Picture = str | PathLike[str] | Image.Image

BATCH_SIZE = 8
"""Pictures captioned together: small enough that the first captions come soon."""


@dataclass(frozen=True)
class Caption:
    """The caption of one picture, or why it has none."""

    path: str | None
    """The file as it was named; None for a picture that was given as pixels."""
    text: str
    log_probability: float
    """Natural logarithm of the probability that the model gives to this caption."""
    error: ImgcapError | None = None


class Captioner:
    """A model ready to caption pictures; made by `load_model`."""

    def __init__(self, model: Model, encoder: Encoder) -> None:
        self.model = model
        self.encoder = encoder

    @overload
    def caption(  # type: ignore[overload-overlap]  # a str is one path, not a sequence of them
        self, pictures: Picture, options: SearchOptions | None = None
    ) -> Caption: ...
    @overload
    def caption(self, pictures: Sequence[Picture], options: SearchOptions | None = None) -> list[Caption]: ...

    def caption(
        self, pictures: Picture | Sequence[Picture], options: SearchOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption one picture, a path or a `PIL.Image`, or a list of them.

        A single picture that cannot be read raises `ImgcapError`; in a list it gets a `Caption` with an `error`.
        """
        if not isinstance(pictures, (str, PathLike, Image.Image)):
            return list(self.stream(pictures, options))
        [caption] = self.stream([pictures], options)
        if caption.error:
            raise caption.error
        return caption

    def stream(self, pictures: Iterable[Picture], options: SearchOptions | None = None) -> Iterator[Caption]:
        """Caption any number of pictures in order, in constant memory; one bad file never stops the rest."""
        named, opened = tee(pictures)
        sources = (picture if isinstance(picture, Image.Image) else Path(picture) for picture in opened)
        names = (None if isinstance(picture, Image.Image) else fspath(picture) for picture in named)
        for batch in load_batches(sources, self.encoder.config.pixels, BATCH_SIZE):
            decoded = [pixels for pixels in batch if not isinstance(pixels, ImgcapError)]
            features = self.encoder(decoded) if decoded else torch.empty(0)
            found = self.model.search(features, options or self.model.config.search)
            for pixels in batch:
                if isinstance(pixels, ImgcapError):
                    yield Caption(next(names), "", -torch.inf, pixels)
                else:
                    best = next(found)[0]
                    yield Caption(next(names), self.model.text(best), best.log_probability)


def load_model(name_or_path: str | PathLike[str] = DEFAULT_MODEL, device: str | None = None) -> Captioner:
    """Load a model by name (see `available_models`) or folder; `device` None takes a GPU if there is one.

    Raises `ImgcapError` if the model is unknown or damaged.
    """
    where = pick_device(device)
    folder = locate(fspath(name_or_path))
    return Captioner(load_model_folder(folder, where), Encoder.load(folder / ENCODER_FILE, where))
