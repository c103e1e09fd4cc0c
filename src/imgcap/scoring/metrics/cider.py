"""CIDEr-D (Vedantam et al. 2015, section 6), which coco-caption calls CIDEr."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgcap.scoring.metrics.ngrams import (
    MAX_ORDER,
    Integers,
    NumberedCaptions,
    Tokens,
    WordNumbers,
    count_by_caption,
    encode_references,
    find,
    firsts,
    pair,
)

Values = npt.NDArray[np.float64]


class CiderD:
    """CIDEr-D against fixed references, whose weights are computed once.

    The cosine similarity of n-gram vectors weighted by inverse document frequency over the images, clipped to the
    counts of the reference, times a Gaussian penalty on the difference in length; averaged over n = 1..4 and over the
    references, times 10. Raises `ValueError` if an image has no reference.
    """

    SIGMA = 6.0
    """Standard deviation of the penalty, in words."""
    SCALE = 10.0

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        self._words = WordNumbers()
        captions, self._counts = encode_references(references, self._words)
        self._lengths = captions.lengths
        images = np.repeat(np.arange(len(references)), self._counts)
        self._orders: list[_Order] = []
        starts, ngrams = np.arange(len(captions.words)), np.zeros_like(captions.words)
        for n in range(1, MAX_ORDER + 1):
            starts, all_keys = captions.ngrams(n, starts, ngrams)
            keys, ngrams = np.unique(all_keys, return_inverse=True)
            entries, owners, times = count_by_caption(ngrams, captions.captions[starts])
            first = np.diff(pair(entries, images[owners]), prepend=-1) > 0  # occurrence in the image
            frequency = np.bincount(entries[first], minlength=len(keys))
            rarity = math.log(len(references)) - np.log(np.append(frequency, 1))
            weights = times * rarity[entries]
            norms = _norms(weights, owners, len(captions.lengths))
            self._orders.append(_Order(keys, rarity, pair(entries, owners), weights, norms))

    def score(self, hypotheses: Sequence[Tokens], images: Sequence[int] | None = None) -> Values:
        """CIDEr-D of one caption for each image, or for each of `images`: float64 (N,), 0.0-10.0.

        A caption's score does not depend, to the last bit, on the captions scored with it. Raises `ValueError` if the
        numbers of captions and images differ.
        """
        numbers = np.arange(len(self._counts)) if images is None else np.array(images, dtype=np.int64)
        if len(hypotheses) != len(numbers):
            raise ValueError(f"There are {len(hypotheses)} captions for {len(numbers)} images.")
        captions = NumberedCaptions.of(hypotheses, self._words)
        # One comparison for each reference of a hypothesis.
        counts = self._counts[numbers]
        hypothesis = np.repeat(np.arange(len(counts)), counts)
        reference = _ranges(firsts(self._counts)[numbers], counts)
        cosines = np.zeros(len(hypothesis))
        starts, ngrams = np.arange(len(captions.words)), np.zeros_like(captions.words)
        for n, order in enumerate(self._orders, 1):
            starts, keys = captions.ngrams(n, starts, ngrams)
            ngrams = order.number(keys)
            entries, owners, times = count_by_caption(ngrams, captions.captions[starts])
            weights = times * order.rarity[np.minimum(entries, len(order.keys))]
            norms = _norms(weights, owners, len(counts))
            # Pair each entry of a hypothesis' vector with the references that have the n-gram too.
            comparison = _ranges(firsts(counts)[owners], counts[owners])
            entry = np.repeat(np.arange(len(entries)), counts[owners])
            places, shared = find(pair(entries[entry], reference[comparison]), order.occurrences)
            ours, theirs = weights[entry[shared]], order.weights[places[shared]]
            dots = np.bincount(comparison[shared], np.minimum(ours, theirs) * theirs, minlength=len(cosines))
            scale = norms[hypothesis] * order.norms[reference]
            cosines += np.divide(dots, scale, out=np.zeros_like(scale), where=scale > 0)
        # coco-caption measures length in bigrams.
        apart = np.maximum(captions.lengths[hypothesis] - 1, 0) - np.maximum(self._lengths[reference] - 1, 0)
        similarities = cosines / MAX_ORDER * np.exp(-(apart**2) / (2 * self.SIGMA**2))
        return np.bincount(hypothesis, similarities, minlength=len(counts)) / counts * self.SCALE


@dataclass(frozen=True)
class _Order:
    """The G n-grams of one order in R references."""

    keys: Integers
    """(G,), sorted; the number of an n-gram is its index here."""
    rarity: Values
    """Inverse document frequency, (G + 1,); the last one is for n-grams that no reference has."""
    occurrences: Integers
    """Pairs of n-gram and reference, (P,), sorted."""
    weights: Values
    """Weight of each occurrence, (P,)."""
    norms: Values
    """Norm of each reference's vector, (R,)."""

    def number(self, keys: Integers) -> Integers:
        """Numbers of n-grams; those that no reference has get numbers from G on."""
        distinct, inverse = np.unique(keys, return_inverse=True)
        places, known = find(distinct, self.keys)
        numbers: Integers = np.where(known, places, len(self.keys) + np.arange(len(distinct)))[inverse]
        return numbers


def _norms(weights: Values, owners: Integers, captions: int) -> Values:
    norms: Values = np.sqrt(np.bincount(owners, weights**2, minlength=captions))
    return norms


def _ranges(begins: Integers, counts: Integers) -> Integers:
    """Concatenated ranges that begin at `begins` (N,) and have `counts` (N,) numbers."""
    ranges: Integers = np.arange(counts.sum()) + np.repeat(begins - firsts(counts), counts)
    return ranges
