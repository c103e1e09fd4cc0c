"""Captions as word numbers, and the n-grams in them as integer keys: exact, for any words and any length of caption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

import numpy as np
import numpy.typing as npt

MAX_ORDER = 4
"""Longest n-grams that BLEU and CIDEr-D count."""

Tokens = Sequence[str]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_SHIFT = 32


class Vocabulary(defaultdict[str, int]):
    """The number of each word; words get the next number when they are first asked for."""

    def __init__(self) -> None:
        super().__init__(count().__next__)


@dataclass(frozen=True)
class WordNumbers:
    """C captions, their T words one after the other."""

    words: Integers
    """(T,)"""
    lengths: Integers
    """Words in each caption, (C,)."""

    @classmethod
    def of(cls, captions: Sequence[Tokens], vocabulary: Vocabulary) -> WordNumbers:
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        numbers = map(vocabulary.__getitem__, chain.from_iterable(captions))
        return cls(np.fromiter(numbers, np.int64, lengths.sum()), lengths)

    @cached_property
    def captions(self) -> Integers:
        """The caption that each word stands in, (T,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def ngrams(self, order: int, starts: Integers, prefixes: Integers) -> tuple[Integers, Integers]:
        """The n-grams of `order` words that begin at `starts` (G,) with the n-grams `prefixes` (G,), one word shorter.

        Returns where they begin and a key of each, both (H,), H <= G: some would end beyond their caption. Keys are
        equal where prefix and last word are, so that by numbering the keys of one order to be the prefixes of the next,
        one gets from words to n-grams of any order.
        """
        ends = starts + (order - 1)
        inside = ends < np.cumsum(self.lengths)[self.captions[starts]]
        return starts[inside], pair(prefixes[inside], self.words[ends[inside]])


def encode_pairs(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> tuple[WordNumbers, WordNumbers, Integers]:
    """One hypothesis for each of N images, all their references, and the number of references of each, (N,).

    Raises `ValueError` if the numbers differ, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"There are {len(hypotheses)} captions for {len(references)} images with references.")
    vocabulary = Vocabulary()
    return WordNumbers.of(hypotheses, vocabulary), *encode_references(references, vocabulary)


def encode_references(references: Sequence[Sequence[Tokens]], vocabulary: Vocabulary) -> tuple[WordNumbers, Integers]:
    """The references of all of N images, and the number of references of each, (N,).

    Raises `ValueError` if an image has none.
    """
    counts = np.fromiter(map(len, references), np.int64, len(references))
    if not counts.all():
        raise ValueError(f"Image number {counts.argmin() + 1} has no reference.")
    return WordNumbers.of(list(chain.from_iterable(references)), vocabulary), counts


def firsts(counts: Integers) -> Integers:
    """Where each group begins, if groups of `counts` (N,) follow each other, (N,)."""
    return np.cumsum(counts) - counts


def pair(high: Integers, low: Integers) -> Integers:
    """Two numbers below 2**31 in one, ordered by `high` and then `low`."""
    # numpy 1 counts in 32 bits on Windows.
    return np.asarray(high, dtype=np.int64) << _SHIFT | low


def unpair(pairs: Integers) -> tuple[Integers, Integers]:
    return pairs >> _SHIFT, pairs & ((1 << _SHIFT) - 1)


def count_by_caption(ngrams: Integers, captions: Integers) -> tuple[Integers, Integers, Integers]:
    """Which n-gram occurs in which caption how many times, sorted by n-gram and then caption."""
    occurrences, times = np.unique(pair(ngrams, captions), return_counts=True)
    return *unpair(occurrences), times


def find(keys: Integers, table: Integers) -> tuple[Integers, Flags]:
    """The places of `keys` (K,) in the sorted `table`, and whether they stand there at all, both (K,)."""
    places = np.searchsorted(table, keys)
    found = places < len(table)
    found[found] = table[places[found]] == keys[found]
    return places, found
