"""Scores: equal to coco-caption's on the same tokens, and to what can be worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import sacrebleu
from conftest import SHARED_DATA
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from sacrebleu.metrics.bleu import BLEU

from imgcap.datasets import read_dataset
from imgcap.errors import ImgcapError
from imgcap.metrics import CiderD, check_pairs, corpus_bleu, rouge_l, score
from imgcap.vocabulary import TOKENIZER, tokenize

Set = tuple[list[str], list[list[str]]]
"""Captions of pictures and their references."""


def coco_dicts(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[int, list[str]], ...]:
    """References and captions as coco-caption's scorers take them: tokenised, by picture."""
    gts = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in enumerate(references)}
    res = {i: [" ".join(tokenize(text))] for i, text in enumerate(captions)}
    return gts, res


def coco_bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    scores: list[float] = Bleu(4).compute_score(*coco_dicts(captions, references), verbose=0)[0]
    return scores


def coco_cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each picture; what coco-caption calls CIDEr clips and has the Gaussian penalty of CIDEr-D."""
    scores: list[float] = Cider().compute_score(*coco_dicts(captions, references))[1]
    return scores


def random_sets(count: int) -> Iterator[Set]:
    """Sets of captions of few different words: 0 to 12 words a caption, 1 to 5 references a picture."""
    source = random.Random(0)
    for _ in range(count):
        words = ["a", "dog", "runs", "the", "t-shirt", "3,000"][: source.randint(2, 6)]

        def caption(shortest: int = 0, words: list[str] = words) -> str:
            return " ".join(source.choices(words, k=source.choice([shortest, 1, 6, 8, 10, 12])))

        pictures = source.randint(1, 20)
        most = source.randint(1, 5)
        yield (
            [caption() for _ in range(pictures)],
            [[caption(1) for _ in range(source.randint(1, most))] for _ in range(pictures)],
        )


def tokens_of(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    return [tokenize(text) for text in captions], [[tokenize(text) for text in texts] for texts in references]


def matches(captions: Sequence[str], references: Sequence[Sequence[str]], n: int) -> bool:
    """Whether any n words in a row of a caption stand in one of its references."""
    return any(
        f" {' '.join(words[i : i + n])} " in f" {text} "
        for words, texts in zip(map(str.split, captions), references, strict=True)
        for i in range(len(words) - n + 1)
        for text in texts
    )


def test_bleu_of_random_captions_is_coco_captions() -> None:
    compared = [0, 0, 0, 0]
    for captions, references in random_sets(300):
        found, expected = corpus_bleu(*tokens_of(captions, references)).scores, coco_bleu(captions, references)
        for n in range(1, 5):
            if all(matches(captions, references, k) for k in range(1, n + 1)):
                assert found[n - 1] == pytest.approx(expected[n - 1], abs=1e-6)
                compared[n - 1] += 1
            else:
                # Where nothing matches, coco-caption's tiny constants leave a little more than nothing.
                assert found[n - 1] == 0
    assert min(compared) > 150


def test_cider_d_of_random_captions_is_coco_captions() -> None:
    compared = 0
    for captions, references in random_sets(300):
        expected = coco_cider(captions, references)
        tokens, reference_tokens = tokens_of(captions, references)
        np.testing.assert_allclose(CiderD(reference_tokens).score(tokens), expected, atol=1e-6, rtol=0)
        compared += max(expected) > 0.1
    assert compared > 200


def test_bleu_of_summed_statistics_is_sacrebleus_of_the_whole_set() -> None:
    for captions, references in random_sets(100):
        tokens, reference_tokens = tokens_of(captions, references)
        most = max(map(len, reference_tokens))
        # sacrebleu takes the first references of all pictures, then the second ones; None where a picture has no more.
        streams = [[" ".join(r[i]) if i < len(r) else None for r in reference_tokens] for i in range(most)]
        for n, found in enumerate(corpus_bleu(tokens, reference_tokens).scores, 1):
            metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=n, force=True)
            expected = metric.corpus_score([" ".join(t) for t in tokens], streams).score / 100
            assert found == pytest.approx(expected, abs=1e-9)


def test_rouge_l_of_random_captions_is_coco_captions() -> None:
    source = random.Random(2)
    alphabet = [
        "a",
        "dog",
        "runs",
        "dogs",
        "\u00fcn\u00efc\u00f6d\u00e9",
        "\u72ac",
        "\u0441\u043e\u0431\u0430\u043a\u0430",
        "\U0001f436",
        "'s",
        "3,000",
    ]

    def caption(words: list[str]) -> list[str]:
        return source.choices(words, k=source.choice([0, 1, 1, 2, 5, 10, 14, 70]))

    captions, references = [], []
    for _ in range(4000):
        words = source.sample(alphabet, source.randint(1, len(alphabet)))
        captions.append(caption(words))
        references.append([caption(words) for _ in range(source.randint(1, 20))])
    found = rouge_l(captions, references)
    assert (found.shape, found.dtype) == ((4000,), np.float64)
    gts = {i: [" ".join(tokens) for tokens in texts] for i, texts in enumerate(references)}
    expected = Rouge().compute_score(gts, {i: [" ".join(tokens)] for i, tokens in enumerate(captions)})[1]
    # coco-caption reads an empty text as one empty word, which an empty reference has too.
    both_empty = np.array([not tokens and [] in texts for tokens, texts in zip(captions, references, strict=True)])
    np.testing.assert_allclose(found[~both_empty], expected[~both_empty], atol=1e-12)
    assert set(found[both_empty]) == {0.0}
    assert set(expected[both_empty]) == {1.0}
    assert 10 < both_empty.sum() < sum(not tokens for tokens in captions)


def test_rouge_l_by_hand() -> None:
    """Two of three words in order; the best precision and the best recall come from different references."""
    references = [[["a", "cat", "sat", "dog"], ["dog"]]]
    precision, recall = 2 / 3, 1.0
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([["a", "big", "dog"]], references)[0] == pytest.approx(expected)
    assert rouge_l([[]], references)[0] == 0
    assert rouge_l([[]], [[[]]])[0] == 0
    assert rouge_l([["dog"]], [[[], ["dog"]]])[0] == pytest.approx(1)
    assert rouge_l([["a", "a", "b"]], [[["b", "a", "a"]]])[0] == pytest.approx(2 / 3)
    assert rouge_l([["zebra"]], references)[0] == 0
    long = [str(i) for i in range(200)]  # more words than a machine word has bits
    assert rouge_l([long], [[long[::-1]]])[0] == pytest.approx(1 / 200)
    assert rouge_l([long], [[long]])[0] == pytest.approx(1)


def test_diversity_is_counted() -> None:
    scores = score(["A dog dog runs.", "a dog dog runs", "the cat", "a a"], [["a dog"]] * 4)
    assert (scores.distinct, scores.words_used, scores.repeated_words) == (3, 5, 3)
    scores = score(["", "!", "a dog a dog", "a doggy dog"], [["a dog"]] * 4)  # neither apart nor alike is a repetition
    assert (scores.distinct, scores.words_used, scores.repeated_words) == (3, 3, 0)


def some_scores(pictures: int) -> Set:
    """Captions of which some equal a reference and some do not."""
    source = random.Random(1)
    words = ["a", "dog", "runs", "over", "the", "green", "grass", "with", "ball"]
    references = [[" ".join(source.choices(words, k=8)) for _ in range(3)] for _ in range(pictures)]
    return [
        texts[0] if source.random() < 0.4 else " ".join(source.choices(words, k=8)) for texts in references
    ], references


def test_means_over_pictures_are_the_scores_and_intervals_are_the_same_each_time() -> None:
    captions, references = some_scores(60)
    tokens, reference_tokens = tokens_of(captions, references)
    found = score(captions, references)
    assert found.cider_d == pytest.approx(CiderD(reference_tokens).score(tokens).mean(), abs=1e-12)
    assert found.rouge_l == pytest.approx(rouge_l(tokens, reference_tokens).mean(), abs=1e-12)
    assert found.bleu == corpus_bleu(tokens, reference_tokens).scores
    assert score(captions, references) == found


def test_intervals_hold_the_score_and_shrink_with_more_pictures() -> None:
    few, many = (score(*some_scores(pictures)) for pictures in (50, 800))
    for scores in (few, many):
        values = {f"bleu_{n}": value for n, value in enumerate(scores.bleu, 1)}
        values |= {"cider_d": scores.cider_d, "rouge_l": scores.rouge_l}
        assert values.keys() == scores.intervals.keys()
        for name, value in values.items():
            low, high = scores.intervals[name]
            assert low < value < high, name
    for name, (low, high) in many.intervals.items():
        wide = few.intervals[name][1] - few.intervals[name][0]
        assert 0.15 < (high - low) / wide < 0.4, name  # a quarter, were the distributions the same


def test_intervals_are_those_of_captions_drawn_and_scored_anew() -> None:
    captions, references = some_scores(120)
    intervals = score(captions, references).intervals
    source = np.random.default_rng(5)
    drawn = []
    for _ in range(200):
        rows = source.integers(0, 120, 120)
        tokens = [tokenize(captions[i]) for i in rows], [[tokenize(c) for c in references[i]] for i in rows]
        drawn.append([*corpus_bleu(*tokens).scores, rouge_l(*tokens).mean()])
    for name, values in zip(("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"), np.transpose(drawn), strict=True):
        np.testing.assert_allclose(intervals[name], np.percentile(values, (2.5, 97.5)), atol=0.25 * values.std() * 2)


def test_an_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    captions, references = some_scores(800)
    tokens, reference_tokens = tokens_of(captions, references)
    by_picture = {"cider_d": CiderD(reference_tokens).score(tokens), "rouge_l": rouge_l(tokens, reference_tokens)}
    intervals = score(captions, references).intervals
    for name, values in by_picture.items():
        low, high = intervals[name]
        standard_error = values.std() / math.sqrt(len(values))
        # 1,000 draws leave 3 % of chance in the width; an interval of 90 % would be 16 % narrower.
        assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.08), name


def test_one_picture_has_an_interval_without_width() -> None:
    scores = score(["a dog"], [["a dog"]])
    assert all(low == high for low, high in scores.intervals.values())


def test_references_without_words_count_as_coco_caption_counts_them() -> None:
    captions = ["a dog runs on grass", "a", "", "the dog runs on the grass"]
    references = [["a dog runs on the grass", "!"], ["", "a b c d e f"], ["..."], ["the dog runs on the lawn", "", "a"]]
    found = score(captions, references)
    assert found.bleu == pytest.approx(coco_bleu(captions, references), abs=1e-6)
    assert found.cider_d == pytest.approx(np.mean(coco_cider(captions, references)), abs=1e-6)


@pytest.mark.parametrize(
    ("captions", "references", "bleu", "brevity_penalty"),
    [
        # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, no four in a row
        (["a b c d"], [["a b c e"]], (3 / 4, math.sqrt(3 / 4 * 2 / 3), (3 / 4 * 2 / 3 / 2) ** (1 / 3), 0), 1.0),
        # a word counts no more often than one reference has it
        (["the the the the the the the"], [["the cat is on the mat", "there is a cat"]], (2 / 7, 0, 0, 0), 1.0),
        # but different words may come from different references
        (["a b"], [["a x", "y b"]], (1.0, 0, 0, 0), 1.0),
        # 2 words against 4
        (["a b"], [["a b c d"]], (math.exp(-1), math.exp(-1), 0, 0), math.exp(-1)),
        # the nearest length counts: 3 against 2, not against 9
        (["a b c"], [["a b", "c c c c c c c c c"]], (1.0, math.sqrt(1 / 2), 0, 0), 1.0),
        # of two lengths as near, the shorter one
        (["a b c"], [["a b", "a b c d"]], (1.0, 1.0, 1.0, 0), 1.0),
        # lengths are added up before they are compared
        (["a b c d e f", "a b"], [["a b c d e f"], ["a b c d"]], (math.exp(-2 / 8),) * 4, math.exp(-2 / 8)),
        ([""], [["a b c"]], (0, 0, 0, 0), 0.0),
        (["!?"], [["a b c"]], (0, 0, 0, 0), 0.0),
        (["", ""], [["a"], ["b", "c"]], (0, 0, 0, 0), 0.0),
        (["x y z v"], [["a b c d"]], (0, 0, 0, 0), 1.0),
        (["a"], [["a"]], (1.0, 0, 0, 0), 1.0),
    ],
)
def test_bleu_by_hand(
    captions: list[str], references: list[list[str]], bleu: tuple[float, ...], brevity_penalty: float
) -> None:
    found = score(captions, references)
    assert found.bleu == pytest.approx(bleu, abs=1e-9)
    assert found.brevity_penalty == pytest.approx(brevity_penalty, abs=1e-9)


def test_cider_d_by_hand() -> None:
    # All words of the first picture are in no other: each weighs log 2. Of its single words the caption has one of two
    # (cosine 1/2), and the Gaussian sees bigrams: none of both.
    assert score(["a b", "c d"], [["a b"], ["c d"]]).cider_d == pytest.approx(10 * 2 / 4)
    found = CiderD([[["a", "b"]], [["c", "d"]]]).score([["a", "x"], ["c", "d"]])
    assert found == pytest.approx([10 / 4 * 0.5, 10 * 2 / 4])
    # Four bigrams more than the reference: cosine 1/sqrt(5)... of words, and the penalty of 4 bigrams.
    longer = CiderD([[["a"]], [["b"]]]).score([["a", "x", "x", "x", "x"], ["b"]])
    penalty = math.exp(-(4**2) / (2 * 6**2))
    assert longer == pytest.approx([10 / 4 * penalty / math.sqrt(1 + 4**2), 10 / 4])
    # The mean over references: one fits, one does not.
    assert CiderD([[["a"], ["z"]], [["b"]]]).score([["a"], ["b"]]) == pytest.approx([10 / 4 / 2, 10 / 4])


def test_words_that_every_picture_has_are_worth_nothing_in_cider_d() -> None:
    assert score(["a", "a"], [["a b"], ["a c"]]).cider_d == 0
    assert score(["a dog runs on grass"], [["a dog runs on grass"]]).cider_d == 0  # a single picture has all


def test_repeating_a_rare_word_does_not_raise_cider_d() -> None:
    references = [[["a", "red", "kite"]], [["a", "dog"]], [["a", "cat"]]]
    once, often = (CiderD(references).score([tokens, ["dog"], ["cat"]])[0] for tokens in (["kite"], ["kite"] * 5))
    assert 0 < often < once


def test_a_perfect_match_scores_highest() -> None:
    captions = ["A dog runs on the grass.", "Two girls swim in a lake.", "Three boys climb a steep rock."]
    references = [[caption.upper(), "Something else stands here today"] for caption in captions]
    found = score(captions, references)
    assert found.bleu == (1.0, 1.0, 1.0, 1.0)
    assert found.brevity_penalty == 1.0
    assert score(captions, [[caption] for caption in captions]).cider_d == pytest.approx(10.0)
    assert found.cider_d == pytest.approx(5.0)


def test_case_and_punctuation_do_not_matter() -> None:
    references = [["a dog runs on the grass"], ["it does n't bite the man 's t-shirt"]]
    plain = score(["a dog runs on grass", "it does n't bite a t-shirt"], references)
    assert score(["A DOG runs, on grass!", "It doesn\u2019t bite a T-shirt..."], references) == plain


def test_the_order_of_pictures_and_references_never_changes_a_score() -> None:
    source = random.Random(1)
    for captions, references in random_sets(40):
        before = score(captions, references)
        order = source.sample(range(len(captions)), len(captions))
        after = score([captions[i] for i in order], [source.sample(references[i], len(references[i])) for i in order])
        assert after.bleu == before.bleu
        assert after.cider_d == pytest.approx(before.cider_d, abs=1e-12)
        assert after.rouge_l == pytest.approx(before.rouge_l, abs=1e-12)
        assert (after.distinct, after.words_used) == (before.distinct, before.words_used)
        assert after.repeated_words == before.repeated_words
        assert (after.mean_length, after.mean_reference_length) == (before.mean_length, before.mean_reference_length)


def test_scores_say_how_much_was_scored() -> None:
    found = score(["a dog", "a cat sits here", "!"], [["a b c", "a b c d"], ["x", "a b c d e"], ["a"]])
    assert found.pictures == 3
    assert found.references == (1, 2)
    assert found.mean_length == pytest.approx(6 / 3)
    assert found.mean_reference_length == pytest.approx((3 + 5 + 1) / 3)


@pytest.mark.parametrize(
    ("references", "nrefs"),
    [([["a"], ["b"]], "1"), ([["a"] * 5, ["b"] * 5], "5"), ([["a"], ["b"] * 5], "1-5")],
)
def test_the_signature_names_all_that_changes_a_score(references: list[list[str]], nrefs: str) -> None:
    fields = dict(field.split(":") for field in score(["a", "b"], references).signature.split("|"))
    assert fields == {
        "nrefs": nrefs,
        "case": "lc",
        "eff": "no",
        "tok": TOKENIZER,
        "smooth": "none",
        "version": sacrebleu.__version__,
    }


@pytest.mark.parametrize(
    ("captions", "references", "sentence"),
    [
        ([], [], "There are no captions to score."),
        (["a"], [], "There are 1 captions for 0 pictures with references."),
        ([], [["a"]], "There are 0 captions for 1 pictures with references."),
        (["a"] * 1234, [["a"]] * 3, "There are 1,234 captions for 3 pictures with references."),
        (["a", "b"], [["a"], []], "Picture number 2 has no reference."),
    ],
)
def test_captions_that_do_not_fit_their_references_are_refused(
    captions: list[str], references: list[list[str]], sentence: str
) -> None:
    for call in (lambda: score(captions, references), lambda: check_pairs(len(captions), [len(r) for r in references])):
        with pytest.raises(ImgcapError) as caught:
            call()
        assert str(caught.value) == sentence


def test_corpus_bleu_takes_tokens_and_gives_their_lengths() -> None:
    found = corpus_bleu([["a", "b", "c"], []], [[["a", "b"], ["a", "b", "c", "d"]], [["a"]]])
    assert (found.length, found.reference_length) == (3, 3)
    assert found.scores == pytest.approx((1, 1, 1, 0))


@pytest.mark.shared_data
def test_flickr8k_people_against_people_is_coco_captions() -> None:
    splits = {"test": SHARED_DATA / "Flickr_8k.testImages.txt"}
    dataset = read_dataset(SHARED_DATA / "images", SHARED_DATA / "Flickr8k.token.txt", split_files=splits)
    tested = [record.captions for record in dataset.records if record.split == "test"]
    assert len(tested) == 1000
    captions, references = [texts[0] for texts in tested], [texts[1:] for texts in tested]
    found = score(captions, references)
    assert found.bleu == pytest.approx(coco_bleu(captions, references), abs=0.0005)
    assert found.cider_d == pytest.approx(np.mean(coco_cider(captions, references)), abs=1e-6)
    assert found.references == (4, 4)
    assert 0.5 < found.bleu[0] < 0.8
