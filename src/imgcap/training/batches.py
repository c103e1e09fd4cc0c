"""Batches of captions and their images, and the parts of each batch that one process computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import tee

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.distributed import World
from imgcap.images.decoding import Pixels
from imgcap.text.vocabulary import END, PAD, START, UNKNOWN
from imgcap.training.encoded_captions import EncodedCaptions
from imgcap.training.options import TrainingOptions
from imgcap.training.settings import Settings

_POOL_BATCHES = 50
"""Captions are sorted by length within pools of this many batches: little padding, and still a random order."""


@dataclass(frozen=True)
class Batch:
    """Captions and their images: R images, C captions, T words."""

    rows: list[int]
    """Rows of the R images in the prepared folder."""
    mirrored: npt.NDArray[np.bool_]
    """Which of the images are mirrored, (R,)."""
    image: Tensor
    """int64 (C,): the index in `rows` of each caption's image."""
    ids: Tensor
    """int64 (C, 1 + T): `<start>`, words, padding; with word dropout, `<unk>` instead of some words."""
    targets: Tensor
    """int64 (C, 1 + T): words, `<end>`, padding."""
    lengths: Tensor
    """int64 (C,): number of words, and one for `<start>`."""

    @property
    def words(self) -> int:
        """Number of words to predict, including `<end>`."""
        return int(self.lengths.sum())

    def part(self, number: int, parts: int) -> Batch:
        """Every `parts`-th image, starting with image `number`, and its captions."""
        own = self.image % parts == number
        return Batch(
            self.rows[number::parts],
            self.mirrored[number::parts],
            self.image[own] // parts,
            self.ids[own],
            self.targets[own],
            self.lengths[own],
        )


@dataclass(frozen=True)
class Part:
    """The part of a batch that a process computes at once."""

    batch: Batch
    weight: float
    """Fraction of the loss of the whole batch, 0-1."""
    images: list[Pixels] | None = None
    """The R decoded images, if the encoder is trained."""


class Batches:
    """The batches of a training: the same in every process, and different in every epoch."""

    def __init__(
        self, prepared: PreparedFolder, rows: Rows, captions: EncodedCaptions, options: TrainingOptions, world: World
    ) -> None:
        """Make batches of the training images `rows` and their `captions`."""
        self.prepared = prepared
        self.rows = rows
        self.captions = captions
        self.options = options
        self.size = Settings.of(options).batch_size
        self.world = world

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        items = self.rows if self.options.by_image else self.captions
        return -(-len(items) // self.size)

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch: every image with all its captions, or every caption on its own."""
        rng = np.random.default_rng([self.options.seed, epoch])
        grouped = self._by_image(rng) if self.options.by_image else self._by_caption(rng)
        return (self._batch(images, rng) for images in grouped)

    def _by_image(self, rng: np.random.Generator) -> Iterator[list[tuple[int, list[list[int]]]]]:
        """Images in random order, each with all its captions, so that the encoder sees it once."""
        size = self.size
        order = rng.permutation(self.rows)
        for begin in range(0, len(order), size):
            yield [(row, self.captions.of(row)) for row in order[begin : begin + size].tolist()]

    def _by_caption(self, rng: np.random.Generator) -> Iterator[list[tuple[int, list[list[int]]]]]:
        """Captions in random order, those of a batch similar in length, each with its image."""
        size = self.size
        order = rng.permutation(len(self.captions))
        for begin in range(0, len(order), _POOL_BATCHES * size):
            pool = order[begin : begin + _POOL_BATCHES * size]
            pool[:] = pool[np.argsort(self.captions.lengths(pool), kind="stable")]
        for number in rng.permutation(len(self)).tolist():
            chosen = order[number * size : (number + 1) * size].tolist()
            yield [(int(self.captions.rows[caption]), [self.captions[caption]]) for caption in chosen]

    def _batch(self, images: list[tuple[int, list[list[int]]]], rng: np.random.Generator) -> Batch:
        """The batch of these rows and their captions; `rng` chooses mirrored images and hidden words."""
        captions = [(place, ids) for place, (_, several) in enumerate(images) for ids in several]
        ids = torch.full((len(captions), max(len(ids) for _, ids in captions) + 1), PAD)
        targets = ids.clone()
        for i, (_, caption) in enumerate(captions):
            ids[i, : len(caption) + 1] = torch.tensor([START, *caption])
            targets[i, : len(caption) + 1] = torch.tensor([*caption, END])
        if self.options.word_dropout:
            hidden = torch.from_numpy(rng.random(ids.shape) < self.options.word_dropout)
            ids[hidden & (ids > UNKNOWN)] = UNKNOWN
        return Batch(
            rows=[row for row, _ in images],
            mirrored=rng.random(len(images)) < 0.5,
            image=torch.tensor([place for place, _ in captions]),
            ids=ids,
            targets=targets,
            lengths=torch.tensor([len(caption) + 1 for _, caption in captions]),
        )

    def with_parts(self, batches: Iterator[Batch], pixels: int | None = None) -> Iterator[tuple[Batch, list[Part]]]:
        """Each batch with the parts that this process computes; with images of `pixels` x `pixels`, if given."""
        pairs = ((batch, self.parts(batch)) for batch in batches)
        if pixels is None:
            yield from pairs
            return
        current, ahead = tee(pairs)  # images are decoded a few batches ahead
        rows = (row for _, parts in ahead for part in parts for row in part.batch.rows)
        images = self.prepared.decode(rows, pixels)
        for batch, parts in current:
            yield batch, [replace(part, images=[next(images) for _ in part.batch.rows]) for part in parts]

    def parts(self, batch: Batch) -> list[Part]:
        """The parts of `batch` that this process computes, at least one."""
        count = self.world.size * self.options.accumulation
        own = range(self.world.rank, min(count, len(batch.rows)), self.world.size)
        if not own:  # it still takes part in the exchange of gradients, with some of weight zero
            return [Part(batch.part(0, len(batch.rows)), 0.0)]
        parts = [batch.part(number, count) for number in own]
        return [Part(part, self._weight(part) / self._weight(batch)) for part in parts]

    def _weight(self, batch: Batch) -> int:
        """Number of items that the mean loss of a batch is over: images in self-critical training, else words."""
        return len(batch.rows) if self.options.self_critical else batch.words
