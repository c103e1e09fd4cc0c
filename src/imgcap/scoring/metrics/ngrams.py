"""Captions as numbers of words, and n-grams as integer keys without collisions, for captions of any length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

import numpy as np
import numpy.typing as npt

MAX_ORDER = 4
"""Length of the longest n-grams in BLEU and CIDEr-D."""

Tokens = Sequence[str]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_SHIFT = 32


class WordNumbers(defaultdict[str, int]):
    """Maps words to numbers; an unknown word gets the next number."""

    def __init__(self) -> None:
        super().__init__(count().__next__)


@dataclass(frozen=True)
class NumberedCaptions:
    """C captions with T words in total."""

    words: Integers
    """Numbers of the words of all captions, concatenated, (T,)."""
    lengths: Integers
    """Number of words in each caption, (C,)."""

    @classmethod
    def of(cls, captions: Sequence[Tokens], numbers: WordNumbers) -> NumberedCaptions:
        """Number the words of tokenised captions; new words are added to `numbers`."""
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        words = map(numbers.__getitem__, chain.from_iterable(captions))
        return cls(np.fromiter(words, np.int64, lengths.sum()), lengths)

    @cached_property
    def captions(self) -> Integers:
        """Index of the caption of each word, (T,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def ngrams(self, order: int, starts: Integers, prefixes: Integers) -> tuple[Integers, Integers]:
        """Starts and keys of the n-grams of `order` words that extend `prefixes`, n-grams with one word less.

        `starts` (G,) are the positions of the prefixes, and `prefixes` (G,) their numbers. Returns the starts of the
        n-grams that fit into their captions and the keys of these n-grams, both (H,), H <= G. Two keys are equal if
        and only if prefix and last word are equal; numbered, they are the prefixes of the next order.
        """
        ends = starts + (order - 1)
        inside = ends < np.cumsum(self.lengths)[self.captions[starts]]
        return starts[inside], pair(prefixes[inside], self.words[ends[inside]])


def encode_pairs(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> tuple[NumberedCaptions, NumberedCaptions, Integers]:
    """Hypotheses of N images, all references, and the number of references of each image, (N,).

    Raises `ValueError` if the numbers of hypotheses and images differ, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"There are {len(hypotheses)} captions for {len(references)} images with references.")
    numbers = WordNumbers()
    return NumberedCaptions.of(hypotheses, numbers), *encode_references(references, numbers)


def encode_references(
    references: Sequence[Sequence[Tokens]], numbers: WordNumbers
) -> tuple[NumberedCaptions, Integers]:
    """All references of N images, and the number of references of each image, (N,).

    Raises `ValueError` if an image has none.
    """
    counts = np.fromiter(map(len, references), np.int64, len(references))
    if not counts.all():
        raise ValueError(f"Image number {counts.argmin() + 1} has no reference.")
    return NumberedCaptions.of(list(chain.from_iterable(references)), numbers), counts


def firsts(counts: Integers) -> Integers:
    """Index of the first element of each group, for consecutive groups of sizes `counts` (N,): (N,)."""
    return np.cumsum(counts) - counts


def pair(high: Integers, low: Integers) -> Integers:
    """Two numbers below 2**31 as one, which sorts by `high` and then `low`."""
    # numpy 1 counts in 32 bits on Windows.
    return np.asarray(high, dtype=np.int64) << _SHIFT | low


def unpair(pairs: Integers) -> tuple[Integers, Integers]:
    """The inverse of `pair`."""
    return pairs >> _SHIFT, pairs & ((1 << _SHIFT) - 1)


def count_by_caption(ngrams: Integers, captions: Integers) -> tuple[Integers, Integers, Integers]:
    """N-gram, caption and count of each n-gram in each caption, sorted by n-gram and then caption."""
    occurrences, times = np.unique(pair(ngrams, captions), return_counts=True)
    return *unpair(occurrences), times


def find(keys: Integers, table: Integers) -> tuple[Integers, Flags]:
    """Indices of `keys` (K,) in the sorted `table`, and whether the table has them, both (K,)."""
    places = np.searchsorted(table, keys)
    found = places < len(table)
    found[found] = table[places[found]] == keys[found]
    return places, found
