"""CIDEr-D: equal to coco-caption's on the same tokens, and to what can be worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from helpers.caption_sets import (
    ODD_SETS,
    Caption,
    Set,
    captions,
    coco_dicts,
    properties,
    random_sets,
    reordered,
    sets_of,
)
from imgcap.scoring.metrics.cider import CiderD


def coco_cider(hypotheses: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> list[float]:
    """CIDEr-D of each image; what coco-caption calls CIDEr clips and has the Gaussian penalty of CIDEr-D."""
    scores: list[float] = Cider().compute_score(*coco_dicts(hypotheses, references))[1]
    return scores


def test_cider_d_of_random_captions_is_coco_captions() -> None:
    compared = 0
    for hypotheses, references in random_sets(150):
        expected = coco_cider(hypotheses, references)
        found = CiderD(references).score(hypotheses)
        assert found.shape == (len(hypotheses),)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
        compared += max(expected) > 0.1
    assert compared > 100


@pytest.mark.parametrize("name", ODD_SETS)
def test_cider_d_of_odd_captions_is_coco_captions(name: str) -> None:
    hypotheses, references = ODD_SETS[name]
    np.testing.assert_allclose(CiderD(references).score(hypotheses), coco_cider(hypotheses, references), atol=1e-6)


def test_captions_of_some_images_score_as_among_all() -> None:
    source = random.Random(4)
    for hypotheses, references in random_sets(15):
        cider = CiderD(references)
        images = source.choices(range(len(references)), k=30)
        guesses = [[*source.choice(hypotheses), source.choice(["dog", "unseen"])] for _ in images]
        found = cider.score(guesses, images)
        for guess, image, value in zip(guesses, images, found, strict=True):
            alone = [guess if i == image else ["a"] for i in range(len(references))]
            assert value == pytest.approx(coco_cider(alone, references)[image], abs=1e-6)
            assert cider.score([guess], [image])[0] == value  # to the bit


def test_no_captions_have_no_scores() -> None:
    assert CiderD([[["a"]]]).score([], []).shape == (0,)


@pytest.mark.parametrize("images", [None, [0], [0, 1, 1]])
def test_captions_that_do_not_fit_the_images_are_refused(images: list[int] | None) -> None:
    with pytest.raises(ValueError, match="There are 2 captions for"):
        CiderD([[["a"]], [["b"]], [["c"]]]).score([["a"], ["b"]], images)


def test_an_image_without_references_is_refused() -> None:
    with pytest.raises(ValueError, match="Image number 2 has no reference"):
        CiderD([[["a"]], []])


def test_cider_d_by_hand() -> None:
    # All words of the first image are in no other: each weighs log 2. Of its single words the caption has one of two
    # (cosine 1/2), and the Gaussian sees as many bigrams in both.
    found = CiderD([[["a", "b"]], [["c", "d"]]]).score([["a", "x"], ["c", "d"]])
    assert found == pytest.approx([10 / 4 * 0.5, 10 * 2 / 4])
    # Four bigrams more than the reference: cosine 1 / sqrt(17) of words, and the penalty of 4 bigrams.
    longer = CiderD([[["a"]], [["b"]]]).score([["a", "x", "x", "x", "x"], ["b"]])
    penalty = math.exp(-(4**2) / (2 * 6**2))
    assert longer == pytest.approx([10 / 4 * penalty / math.sqrt(1 + 4**2), 10 / 4])
    # The mean over references: one fits, one does not.
    assert CiderD([[["a"], ["z"]], [["b"]]]).score([["a"], ["b"]]) == pytest.approx([10 / 4 / 2, 10 / 4])


def test_words_that_every_image_has_are_worth_nothing() -> None:
    assert CiderD([[["a", "b"]], [["a", "c"]]]).score([["a"], ["a"]]).tolist() == [0, 0]
    caption = ["a", "dog", "runs", "on", "grass"]
    assert CiderD([[caption]]).score([caption]).tolist() == [0]  # a single image has all


def test_repeating_a_rare_word_does_not_raise_the_score() -> None:
    cider = CiderD([[["a", "red", "kite"]], [["a", "dog"]], [["a", "cat"]]])
    once, often = cider.score([["kite"], ["kite"] * 5], [0, 0])
    assert 0 < often < once


def test_a_perfect_match_scores_ten() -> None:
    texts = ["a dog runs on the grass", "two girls swim in a lake", "three boys climb a steep rock"]
    hypotheses = [text.split() for text in texts]
    assert CiderD([[tokens] for tokens in hypotheses]).score(hypotheses) == pytest.approx([10] * 3)


@properties
@given(sets_of(captions), st.randoms(use_true_random=False))
def test_the_order_of_images_and_references_never_changes_a_score(found_set: Set, source: Random) -> None:
    hypotheses, references = found_set
    (other_hypotheses, other_references), order = reordered(found_set, source)
    found = CiderD(other_references).score(other_hypotheses)
    np.testing.assert_allclose(found, CiderD(references).score(hypotheses)[order], atol=1e-12)


@properties
@given(sets_of(captions, most=1))
def test_a_caption_equal_to_its_single_reference_scores_highest(found_set: Set) -> None:
    hypotheses, references = found_set
    cider = CiderD(references)
    assert (cider.score([texts[0] for texts in references]) >= cider.score(hypotheses) - 1e-12).all()
