"""Floor and ceiling: worked out by hand or by trying everything."""

from __future__ import annotations

import random

import pytest

from imgcap.scoring.bounds import best_constant, ceiling, floor
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.scores import score

Tokens = list[str]


def split(*captions: str) -> list[Tokens]:
    return [caption.split() for caption in captions]


@pytest.mark.parametrize("seed", range(25))
def test_the_best_constant_is_found_as_if_every_caption_were_scored(seed: int) -> None:
    source = random.Random(seed)
    words = ["a", "a", "dog", "runs", "on", "grass"][: source.randint(2, 6)]
    references = [
        [source.choices(words, k=source.randint(1, 9)) for _ in range(source.randint(1, 4))]
        for _ in range(source.randint(1, 8))
    ]

    def bleu_of(caption: Tokens) -> tuple[float, ...]:
        return tuple(reversed(corpus_bleu([caption] * len(references), references).scores))

    best = max(bleu_of(caption) for several in references for caption in several)
    assert bleu_of(list(best_constant(references))) == pytest.approx(best)


def test_ties_between_constants_are_broken_alphabetically() -> None:
    references = [split("b b", "a a"), split("a a", "b b")]
    assert best_constant(references) == ["a", "a"]
    assert best_constant(references[::-1]) == ["a", "a"]


def test_a_reference_without_words_is_not_the_constant() -> None:
    assert best_constant([[[], ["dog"]], [[]]]) == ["dog"]


def test_the_floor_is_the_score_of_the_constant_for_every_image() -> None:
    references = [split("a dog runs on grass", "a dog"), split("two cats sit on sand")]
    found = floor(["a", "dog", "runs", "on", "sand"], references)
    assert found == score(["a dog runs on sand"] * 2, [["a dog runs on grass", "a dog"], ["two cats sit on sand"]])
    assert found.distinct == 1
    assert found.words_used == 5


def test_the_ceiling_is_the_mean_of_each_reference_against_the_others() -> None:
    references = [split("a dog runs on grass", "the dog runs", "a dog on grass"), split("x y z", "x y", "y z")]
    texts = [[" ".join(tokens) for tokens in several] for several in references]
    folds = [score([t[k] for t in texts], [t[:k] + t[k + 1 :] for t in texts]) for k in range(3)]
    found = ceiling(references)
    assert found is not None
    for name in ("cider_d", "rouge_l", "distinct", "words_used", "mean_length", "mean_reference_length"):
        assert getattr(found, name) == pytest.approx(sum(getattr(fold, name) for fold in folds) / 3)
    assert found.bleu == pytest.approx([sum(fold.bleu[n] for fold in folds) / 3 for n in range(4)])
    assert found.verbatim is None


def test_the_ceiling_uses_as_many_references_as_every_image_has() -> None:
    references = [split("a b", "c d", "e f"), split("a b", "c d")]
    found = ceiling(references)
    assert found is not None
    assert found.mean_length == 2
    assert found.distinct == 1  # the first captions are alike, and so are the second ones
    assert ceiling([split("a b", "c d"), split("a b")]) is None


def test_the_ceiling_needs_no_more_than_five_people() -> None:
    several = split("a", "b", "c", "d", "e", "f", "g")
    found = ceiling([several, several])
    assert found is not None
    assert found == ceiling([[*several[:5], ["f"], ["g"]]] * 2)
    more = ceiling([[*several[:5], ["f"] * 9]] * 2)
    assert more is not None
    assert more.mean_length == 1  # the sixth person is only compared with


def test_copies_of_training_captions_are_counted() -> None:
    references = [split("a dog", "a cat"), split("two dogs", "a bird")]
    found = ceiling(references, {("a", "dog")})
    assert found is not None
    assert found.verbatim == pytest.approx(1 / 4)
    assert floor(["a", "dog"], references, {("a", "dog")}).verbatim == 1
