"""Rewards of sampled captions, for self-critical training on images with and without captions of their own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from concept_words import Concepts
from imgcap.scoring.metrics.bleu import bleu_statistics, sentence_bleu
from imgcap.scoring.metrics.ngrams import Tokens
from imgcap.text.vocabulary import END, START, Vocabulary

DOUBTFUL = 0.15
"""A caption gains by a concept that the image shows with at least this target, and loses by any other."""
SUBJECT_WEIGHT = 3.0
"""Weight of naming the subject. With 1, "an animal" is as good as "a cat" where the cat is half certain."""
SEEN = 2
"""Three words in a row are usual if this many captions have them."""


class BleuReward:
    """`sentence_bleu` of sampled captions against the captions of their images, 0 to 1."""

    def __init__(self, references: Sequence[Sequence[Tokens]], vocabulary: Vocabulary) -> None:
        self.references, self.vocabulary = references, vocabulary

    def __call__(self, ids: Tensor, images: Sequence[int]) -> Tensor:
        """Rewards, float32 (B,), of captions `ids`, int64 (B, T) as from `sample`; `images` number `references`."""
        captions = [self.vocabulary.decode(row) for row in ids.tolist()]
        statistics = bleu_statistics(captions, [self.references[image] for image in images])
        return torch.from_numpy(sentence_bleu(statistics).astype(np.float32))


class ConceptReward:
    """How well a caption fits what the teachers see in an image that has no captions.

    The reward is the sum of three parts: the targets of the concepts that the caption names, each less `DOUBTFUL`;
    `SUBJECT_WEIGHT` times the largest product of a target and a specificity among its subjects; and, negative, the
    share of its word triples that are not usual in human captions.

    Args:
        specificity: float32 (K,), how specific each subject is; 0 for concepts that are never a subject.
        captions: word ids of human captions.
    """

    def __init__(
        self,
        concepts: Concepts,
        vocabulary: Vocabulary,
        specificity: Tensor,
        captions: Iterable[Sequence[int]],
    ) -> None:
        self.concepts, self.vocabulary, self.specificity = concepts, vocabulary, specificity
        counts = Counter(itertools.chain.from_iterable(triples(words) for words in captions))
        self.usual = {triple for triple, count in counts.items() if count >= SEEN}

    def __call__(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Rewards, float32 (B,), of captions `ids`, int64 (B, T) as from `sample`.

        `targets`, float32 (B, K), is how much the image of each probably shows each concept, 0 to 1.
        """
        return torch.tensor([self._one(row, shown) for row, shown in zip(ids.tolist(), targets, strict=True)])

    def _one(self, ids: list[int], targets: Tensor) -> float:
        named = self.concepts.of_tokens(self.vocabulary.decode(ids))
        shown = targets[named]
        subject = float((shown * self.specificity[named]).max()) if named else 0.0
        words = ids[: ids.index(END)] if END in ids else ids
        own = triples(words, ended=END in ids)
        unusual = sum(triple not in self.usual for triple in own) / len(own)
        return float((shown - DOUBTFUL).sum()) + SUBJECT_WEIGHT * subject - unusual


def triples(words: Sequence[int], ended: bool = True) -> list[tuple[int, ...]]:
    """Each three words in a row, with START before the first word and END after the last one."""
    marked = [START, *words, END] if ended else [START, *words]
    return [tuple(marked[i : i + 3]) for i in range(max(1, len(marked) - 2))]
