"""Scores of a set of captions: the metrics of their tokens, diversity, and what is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from helpers.caption_sets import coco_dicts, random_sets
from helpers.data import SHARED_DATA
from imgcap.dataset.loading import read_dataset
from imgcap.errors import ImgcapError
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.scoring.metrics.rouge import rouge_l
from imgcap.scoring.scores import check_pairs, score
from imgcap.text.tokenizer import tokenize


def test_means_over_images_are_the_scores() -> None:
    captions = ["a dog runs on the grass", "two girls swim", "a dog"]
    references = [["a dog runs on grass", "it runs"], ["two girls swim in a lake"], ["a cat", "one dog", "a dog"]]
    found = score(captions, references)
    tokens, reference_tokens = [tokenize(text) for text in captions], [[tokenize(t) for t in r] for r in references]
    assert found.bleu == corpus_bleu(tokens, reference_tokens).scores
    assert found.cider_d == pytest.approx(CiderD(reference_tokens).score(tokens).mean(), abs=1e-12)
    assert found.rouge_l == pytest.approx(rouge_l(tokens, reference_tokens).mean(), abs=1e-12)


def test_diversity_is_counted() -> None:
    scores = score(["A dog dog runs.", "a dog dog runs", "the cat", "a a"], [["a dog"]] * 4)
    assert (scores.distinct, scores.words_used, scores.repeated_words) == (3, 5, 3 / 4)
    scores = score(["", "!", "a dog a dog", "a doggy dog"], [["a dog"]] * 4)  # neither apart nor alike is a repetition
    assert (scores.distinct, scores.words_used, scores.repeated_words) == (3, 3, 0)


def test_a_perfect_match_scores_highest() -> None:
    captions = ["A dog runs on the grass.", "Two girls swim in a lake.", "Three boys climb a steep rock."]
    found = score(captions, [[caption.upper(), "Something else stands here today"] for caption in captions])
    assert found.bleu == (1.0, 1.0, 1.0, 1.0)
    assert found.brevity_penalty == 1.0
    assert found.cider_d == pytest.approx(5.0)
    assert found.rouge_l == pytest.approx(1.0)


def test_case_and_punctuation_do_not_matter() -> None:
    references = [["a dog runs on the grass"], ["it does n't bite the man 's t-shirt"]]
    plain = score(["a dog runs on grass", "it does n't bite a t-shirt"], references)
    assert score(["A DOG runs, on grass!", "It doesn\u2019t bite a T-shirt..."], references) == plain


def test_the_order_of_images_and_references_never_changes_a_score() -> None:
    source = random.Random(1)
    for tokens, reference_tokens in random_sets(40):
        captions, references = list(map(" ".join, tokens)), [list(map(" ".join, texts)) for texts in reference_tokens]
        before = score(captions, references)
        order = source.sample(range(len(captions)), len(captions))
        after = score([captions[i] for i in order], [source.sample(references[i], len(references[i])) for i in order])
        assert after.bleu == before.bleu
        assert after.cider_d == pytest.approx(before.cider_d, abs=1e-12)
        assert after.rouge_l == pytest.approx(before.rouge_l, abs=1e-12)
        assert (after.distinct, after.words_used) == (before.distinct, before.words_used)
        assert after.repeated_words == before.repeated_words
        assert (after.mean_length, after.mean_reference_length) == (before.mean_length, before.mean_reference_length)


def test_lengths_are_means_over_images() -> None:
    found = score(["a dog", "a cat sits here", "!"], [["a b c", "a b c d"], ["x", "a b c d e"], ["a"]])
    assert found.mean_length == pytest.approx(6 / 3)
    assert found.mean_reference_length == pytest.approx((3 + 5 + 1) / 3)


@pytest.mark.parametrize(
    ("captions", "references", "sentence"),
    [
        ([], [], "There are no captions to score."),
        (["a"], [], "There are 1 captions for 0 images with references."),
        ([], [["a"]], "There are 0 captions for 1 images with references."),
        (["a"] * 1234, [["a"]] * 3, "There are 1,234 captions for 3 images with references."),
        (["a", "b"], [["a"], []], "Image number 2 has no reference."),
    ],
)
def test_captions_that_do_not_fit_their_references_are_refused(
    captions: list[str], references: list[list[str]], sentence: str
) -> None:
    for call in (lambda: score(captions, references), lambda: check_pairs(len(captions), [len(r) for r in references])):
        with pytest.raises(ImgcapError) as caught:
            call()
        assert str(caught.value) == sentence


@pytest.mark.shared_data
def test_flickr8k_people_against_people_is_coco_captions() -> None:
    splits = {"test": SHARED_DATA / "Flickr_8k.testImages.txt"}
    dataset = read_dataset(SHARED_DATA / "images", SHARED_DATA / "Flickr8k.token.txt", split_files=splits)
    tested = [record.captions for record in dataset.records if record.split == "test"]
    assert len(tested) == 1000
    captions, references = [texts[0] for texts in tested], [texts[1:] for texts in tested]
    found = score(captions, references)
    gts, res = coco_dicts([tokenize(text) for text in captions], [[tokenize(t) for t in texts] for texts in references])
    assert found.bleu == pytest.approx(Bleu(4).compute_score(gts, res, verbose=0)[0], abs=0.0005)
    assert found.cider_d == pytest.approx(np.mean(Cider().compute_score(gts, res)[1]), abs=1e-6)
    assert 0.5 < found.bleu[0] < 0.8
