"""ROUGE-L: equal to coco-caption's on the same tokens, and to what can be worked out by hand."""

from __future__ import annotations

import random
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.rouge.rouge import Rouge

from helpers.caption_sets import (
    ODD_SETS,
    Caption,
    Set,
    captions_of_four_words,
    coco_dicts,
    properties,
    reordered,
    sets_of,
)
from helpers.caption_sets import captions as any_caption
from imgcap.scoring.metrics.rouge import rouge_l


def without_words_on_both_sides(hypotheses: list[Caption], references: list[list[Caption]]) -> npt.NDArray[np.bool_]:
    return np.array([not tokens and [] in texts for tokens, texts in zip(hypotheses, references, strict=True)])


def compare_with_coco_caption(hypotheses: list[Caption], references: list[list[Caption]]) -> None:
    found = rouge_l(hypotheses, references)
    assert found.shape == (len(hypotheses),)
    assert found.dtype == np.float64
    expected = Rouge().compute_score(*coco_dicts(hypotheses, references))[1]
    # coco-caption reads an empty text as one empty word, which an empty reference has too.
    both_empty = without_words_on_both_sides(hypotheses, references)
    np.testing.assert_allclose(found[~both_empty], expected[~both_empty], atol=1e-12)
    assert (found[both_empty] == 0).all()
    assert (expected[both_empty] == 1).all()


def test_rouge_l_of_random_captions_is_coco_captions() -> None:
    source = random.Random(2)
    alphabet = ["a", "dog", "runs", "dogs", "ünïcödé", "犬", "собака", "\U0001f436", "'s", "3,000"]

    def caption(words: list[str]) -> Caption:
        return source.choices(words, k=source.choice([0, 1, 1, 2, 5, 10, 14, 70]))

    hypotheses, references = [], []
    for _ in range(2000):
        words = source.sample(alphabet, source.randint(1, len(alphabet)))
        hypotheses.append(caption(words))
        references.append([caption(words) for _ in range(source.randint(1, 10))])
    compare_with_coco_caption(hypotheses, references)
    assert without_words_on_both_sides(hypotheses, references).sum() > 10


@pytest.mark.parametrize("name", ODD_SETS)
def test_rouge_l_of_odd_captions_is_coco_captions(name: str) -> None:
    compare_with_coco_caption(*ODD_SETS[name])


def test_rouge_l_by_hand() -> None:
    """Two of three words in order; the best precision and the best recall come from different references."""
    references = [[["a", "cat", "sat", "dog"], ["dog"]]]
    precision, recall = 2 / 3, 1.0
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([["a", "big", "dog"]], references)[0] == pytest.approx(expected)
    assert rouge_l([["zebra"]], references)[0] == 0
    assert rouge_l([[]], references)[0] == 0
    assert rouge_l([[]], [[[]]])[0] == 0
    assert rouge_l([["dog"]], [[[], ["dog"]]])[0] == pytest.approx(1)
    assert rouge_l([["a", "a", "b"]], [[["b", "a", "a"]]])[0] == pytest.approx(2 / 3)
    long = [str(i) for i in range(200)]
    assert rouge_l([long, long], [[long[::-1]], [long]]) == pytest.approx([1 / 200, 1])


@properties
@given(sets_of(any_caption), st.randoms(use_true_random=False))
def test_the_order_of_images_and_references_never_changes_a_score(captions: Set, source: Random) -> None:
    others, order = reordered(captions, source)
    np.testing.assert_array_equal(rouge_l(*others), rouge_l(*captions)[order])


@properties
@given(sets_of(captions_of_four_words), st.randoms(use_true_random=False))
def test_a_caption_equal_to_a_reference_scores_highest(captions: Set, source: Random) -> None:
    hypotheses, references = captions
    best = rouge_l([source.choice(texts) for texts in references], references)
    np.testing.assert_allclose(best, 1, atol=1e-12)
    assert (best >= rouge_l(hypotheses, references) - 1e-12).all()


def test_more_images_than_are_compared_at_a_time_keep_their_order() -> None:
    source = random.Random(3)
    hypotheses = [[str(source.randint(0, 3)) for _ in range(source.randint(1, 8))] for _ in range(6000)]
    references = [[[str(source.randint(0, 3)) for _ in range(source.randint(1, 8))]] for _ in hypotheses]
    found = rouge_l(hypotheses, references)
    some = source.sample(range(6000), 50)
    alone = [rouge_l([hypotheses[i]], [references[i]])[0] for i in some]
    np.testing.assert_array_equal(found[some], alone)
