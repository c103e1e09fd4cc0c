"""The val score: the model captions the val split on its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.distributed import World
from imgcap.images.decoding import batched
from imgcap.model.encoder import Encoder
from imgcap.model.search import search
from imgcap.model.search_options import SearchOptions
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.sharding import Shard, interleave
from imgcap.text.tokenizer import tokenize
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.networks import Networks

_SHARD_BATCH = 32
"""Processes take turns at this many val images."""


class Validation:
    """The val split and its references, ready to score a model after every epoch."""

    def __init__(
        self, prepared: PreparedFolder, rows: Rows, vocabulary: Vocabulary, options: SearchOptions, world: World
    ) -> None:
        self.prepared = prepared
        self.rows = rows
        self.vocabulary = vocabulary
        self.options = options
        self.world = world
        self.references = [[tokenize(caption) for caption in prepared.records[row].captions] for row in rows]
        self.cider = CiderD(self.references)

    def score(self, networks: Networks) -> tuple[float, tuple[float, float, float, float]]:
        """CIDEr-D and BLEU-1 to BLEU-4 of the captions that the kept weights of `networks` write.

        Features are the prepared ones, or come from the encoder if it is trained. Every process captions its share.
        """
        decoder = networks.kept_decoder
        own = [
            self.vocabulary.decode(hypotheses[0].ids)
            for features in self._features(networks.kept_encoder)
            for hypotheses in search(decoder, features.to(self.world.device), self.options)
        ]
        hypotheses = interleave(self.world.gather(own), _SHARD_BATCH)
        return float(self.cider.score(hypotheses).mean()), corpus_bleu(hypotheses, self.references).scores

    def _features(self, encoder: Encoder | None) -> Iterator[Tensor]:
        """Features (B, 2048) of this process's share of the val images, batch by batch."""
        own = list(Shard(self.world.rank, self.world.size).items(self.rows, _SHARD_BATCH))
        if not encoder:
            for rows in batched(own, 128):
                yield torch.from_numpy(self.prepared.features[rows])
            return
        for pixels in batched(self.prepared.decode(own, encoder.config.pixels), 32):
            yield encoder(pixels)
