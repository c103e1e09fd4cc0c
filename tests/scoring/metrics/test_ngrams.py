"""Keys are equal where n-grams are, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.caption_sets import Caption, captions, properties
from imgcap.scoring.metrics.ngrams import MAX_ORDER, NumberedCaptions, WordNumbers, count_by_caption, find, pair, unpair


@properties
@given(st.lists(captions, max_size=5))
def test_keys_are_equal_where_ngrams_are(texts: list[Caption]) -> None:
    words = NumberedCaptions.of(texts, WordNumbers())
    starts, numbers = np.arange(len(words.words)), np.zeros_like(words.words)
    for n in range(1, MAX_ORDER + 1):
        starts, keys = words.ngrams(n, starts, numbers)
        numbers = np.unique(keys, return_inverse=True)[1]
        places = [(i, j) for i, tokens in enumerate(texts) for j in range(len(tokens) - n + 1)]
        expected = [(i, tuple(texts[i][j : j + n])) for i, j in places]
        assert words.captions[starts].tolist() == [i for i, _ in expected]
        assert len(set(zip(keys.tolist(), (ngram for _, ngram in expected), strict=True))) == len(set(keys.tolist()))
        assert len(set(keys.tolist())) == len({ngram for _, ngram in expected})


def test_words_are_numbered_in_the_order_they_come() -> None:
    vocabulary = WordNumbers()
    assert NumberedCaptions.of([["b", "a"], [], ["a"]], vocabulary).words.tolist() == [0, 1, 1]
    assert NumberedCaptions.of([["c", "b"]], vocabulary).words.tolist() == [2, 0]


def test_pairs_are_ordered_and_come_apart_again() -> None:
    largest = 2**31 - 1
    high, low = np.array([0, 0, 1, largest]), np.array([0, largest, 0, largest])
    pairs = pair(high, low)
    assert (np.diff(pairs) > 0).all()
    assert [part.tolist() for part in unpair(pairs)] == [high.tolist(), low.tolist()]


def test_occurrences_are_counted_in_each_caption() -> None:
    found = count_by_caption(np.array([7, 3, 7, 7]), np.array([0, 0, 0, 1]))
    assert [part.tolist() for part in found] == [[3, 7, 7], [0, 0, 1], [1, 2, 1]]


def test_keys_are_found_in_a_table() -> None:
    places, found = find(np.array([5, 1, 9, 4]), np.array([1, 5, 7]))
    assert found.tolist() == [True, True, False, False]
    assert places[found].tolist() == [1, 0]
    assert find(np.array([5]), np.array([], dtype=np.int64))[1].tolist() == [False]
