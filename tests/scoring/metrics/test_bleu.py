"""BLEU: equal to coco-caption's and sacrebleu's on the same tokens, and to what can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from sacrebleu.metrics.bleu import BLEU

from helpers.caption_sets import (
    ODD_SETS,
    Caption,
    Set,
    captions_of_four_words,
    coco_dicts,
    properties,
    random_sets,
    reordered,
    sets_of,
)
from helpers.caption_sets import captions as any_caption
from imgcap.scoring.metrics.bleu import bleu, bleu_scores, bleu_statistics, corpus_bleu, sentence_bleu


def coco_bleu(hypotheses: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> list[float]:
    scores: list[float] = Bleu(4).compute_score(*coco_dicts(hypotheses, references), verbose=0)[0]
    return scores


def matches(hypotheses: Sequence[Caption], references: Sequence[Sequence[Caption]], n: int) -> bool:
    """Whether any n words in a row of a caption stand in one of its references."""
    return any(
        f" {' '.join(words[i : i + n])} " in f" {' '.join(tokens)} "
        for words, texts in zip(hypotheses, references, strict=True)
        for i in range(len(words) - n + 1)
        for tokens in texts
    )


def orders_compared_with_coco_caption(hypotheses: list[Caption], references: list[list[Caption]]) -> int:
    found, expected = corpus_bleu(hypotheses, references).scores, coco_bleu(hypotheses, references)
    compared = 0
    for n in range(1, 5):
        if all(matches(hypotheses, references, k) for k in range(1, n + 1)):
            assert found[n - 1] == pytest.approx(expected[n - 1], abs=1e-6)
            compared += 1
        else:
            # Where nothing matches, coco-caption's tiny constants leave a little more than nothing.
            assert found[n - 1] == 0
    return compared


def test_bleu_of_random_captions_is_coco_captions() -> None:
    compared = [orders_compared_with_coco_caption(*captions) for captions in random_sets(300)]
    assert sum(n == 4 for n in compared) > 150


@pytest.mark.parametrize("name", ODD_SETS)
def test_bleu_of_odd_captions_is_coco_captions(name: str) -> None:
    orders_compared_with_coco_caption(*ODD_SETS[name])


def sacrebleu_of(hypotheses: list[Caption], references: list[list[Caption]], metric: BLEU) -> float:
    # sacrebleu takes the first references of all images, then the second ones; None where an image has no more.
    most = max(map(len, references))
    streams = [[" ".join(texts[i]) if i < len(texts) else None for texts in references] for i in range(most)]
    score: float = metric.corpus_score([" ".join(tokens) for tokens in hypotheses], streams).score / 100  # type: ignore[arg-type]
    return score


@properties
@given(sets_of(any_caption))
def test_bleu_of_summed_statistics_is_sacrebleus_of_the_whole_set(captions: Set) -> None:
    for n, found in enumerate(bleu(bleu_statistics(*captions).sum(0)).scores, 1):
        metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=n, force=True)
        assert found == pytest.approx(sacrebleu_of(*captions, metric), abs=1e-9)


@properties
@given(sets_of(any_caption))
def test_statistics_are_sacrebleus_of_each_image(captions: Set) -> None:
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    found = bleu_statistics(*captions)
    assert found.shape == (len(captions[0]), 10)
    assert found.dtype == np.int64
    for row, tokens, texts in zip(found.tolist(), *captions, strict=True):
        one = metric.corpus_score([" ".join(tokens)], [[" ".join(text)] for text in texts])
        assert row == [one.sys_len, one.ref_len, *one.counts, *one.totals]


@properties
@given(sets_of(any_caption))
def test_smoothed_bleu_of_a_caption_alone_is_sacrebleus(captions: Set) -> None:
    metric = BLEU(tokenize="none", smooth_method="add-k", smooth_value=1, force=True)
    found = sentence_bleu(bleu_statistics(*captions))
    expected = [sacrebleu_of([tokens], [texts], metric) for tokens, texts in zip(*captions, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_smoothed_bleu_by_hand() -> None:
    # 3 of 4 words; with one more of each, 2 of 4 pairs, 1 of 3 triples, 1 of 2 fours. A word less than the reference.
    statistics = bleu_statistics([["a", "b", "x", "d"], ["z"], []], [[["a", "b", "c", "d", "e"]], [["a"]], [["a"]]])
    expected = math.exp(1 - 5 / 4) * (3 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** (1 / 4)
    np.testing.assert_allclose(sentence_bleu(statistics), [expected, 0, 0], atol=1e-12)


def test_bleu_of_many_sums_is_that_of_each() -> None:
    source = np.random.default_rng(0)
    sums = np.array(
        [
            bleu_statistics(*captions)[: source.integers(1, 20)].sum(0)
            for captions in [*random_sets(300), *ODD_SETS.values()]
        ]
    )
    found = bleu_scores(sums)
    assert found.shape == (len(sums), 4)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [bleu(row).scores for row in sums], rtol=0, atol=1e-12)
    assert (found > 0).all(1).sum() > 100
    assert (found == 0).any(1).sum() > 10
    assert found.max() <= 1


@properties
@given(sets_of(any_caption), st.randoms(use_true_random=False))
def test_the_order_of_images_and_references_never_changes_statistics(captions: Set, source: Random) -> None:
    others, order = reordered(captions, source)
    np.testing.assert_array_equal(bleu_statistics(*others), bleu_statistics(*captions)[order])


@properties
@given(sets_of(captions_of_four_words), st.randoms(use_true_random=False))
def test_captions_equal_to_a_reference_score_highest(captions: Set, source: Random) -> None:
    hypotheses, references = captions
    quoted = [source.choice(texts) for texts in references]
    assert corpus_bleu(quoted, references).scores == (1, 1, 1, 1)
    statistics = bleu_statistics([*quoted, *hypotheses], [*references, *references])
    ours, theirs = np.split(sentence_bleu(statistics), 2)
    assert (ours >= theirs).all()


@properties
@given(sets_of(any_caption))
def test_scoring_all_images_twice_does_not_change_bleu(captions: Set) -> None:
    hypotheses, references = captions
    assert corpus_bleu(hypotheses * 2, references * 2).scores == pytest.approx(corpus_bleu(*captions).scores, abs=1e-12)


@pytest.mark.parametrize(
    ("captions", "references", "scores", "brevity_penalty"),
    [
        # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, no four in a row
        (["a b c d"], [["a b c e"]], (3 / 4, math.sqrt(3 / 4 * 2 / 3), (3 / 4 * 2 / 3 / 2) ** (1 / 3), 0), 1.0),
        # a word counts no more often than one reference has it
        (["the the the the the the the"], [["the cat is on the mat", "there is a cat"]], (2 / 7, 0, 0, 0), 1.0),
        # but different words may come from different references
        (["a b"], [["a x", "y b"]], (1.0, 0, 0, 0), 1.0),
        # words match within an image and a reference only
        (["a", "b c"], [["b"], ["a", "b", "c"]], (2 / 3, 0, 0, 0), 1.0),
        # 2 words against 4
        (["a b"], [["a b c d"]], (math.exp(-1), math.exp(-1), 0, 0), math.exp(-1)),
        # the nearest length counts: 3 against 2, not against 9
        (["a b c"], [["a b", "c c c c c c c c c"]], (1.0, math.sqrt(1 / 2), 0, 0), 1.0),
        # of two lengths as near, the shorter one
        (["a b c"], [["a b c d", "a b"]], (1.0, 1.0, 1.0, 0), 1.0),
        # lengths are added up before they are compared
        (["a b c d e f", "a b"], [["a b c d e f"], ["a b c d"]], (math.exp(-2 / 8),) * 4, math.exp(-2 / 8)),
        ([""], [["a b c"]], (0, 0, 0, 0), 0.0),
        (["", ""], [["a"], ["b", "c"]], (0, 0, 0, 0), 0.0),
        (["x y z v"], [["a b c d"]], (0, 0, 0, 0), 1.0),
        (["a"], [["a"]], (1.0, 0, 0, 0), 1.0),
    ],
)
def test_bleu_by_hand(
    captions: list[str], references: list[list[str]], scores: tuple[float, ...], brevity_penalty: float
) -> None:
    found = corpus_bleu([text.split() for text in captions], [[text.split() for text in texts] for texts in references])
    assert found.scores == pytest.approx(scores, abs=1e-9)
    assert found.brevity_penalty == pytest.approx(brevity_penalty, abs=1e-9)


def test_corpus_bleu_gives_the_lengths_behind_the_brevity_penalty() -> None:
    found = corpus_bleu([["a", "b", "c"], []], [[["a", "b"], ["a", "b", "c", "d"]], [["a"]]])
    assert (found.length, found.reference_length) == (3, 3)
    assert found.scores == pytest.approx((1, 1, 1, 0))


@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        ([["a"]], [], "There are 1 captions for 0 images with references."),
        ([["a"], ["b"]], [[["a"]], []], "Image number 2 has no reference."),
    ],
)
def test_captions_that_do_not_fit_their_references_are_refused(
    hypotheses: list[Caption], references: list[list[Caption]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        bleu_statistics(hypotheses, references)
