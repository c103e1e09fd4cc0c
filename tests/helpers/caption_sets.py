"""Tokenised captions with references, for comparing metrics with those of coco-caption."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from hypothesis import settings
from hypothesis import strategies as st

Caption = list[str]
Set = tuple[list[Caption], list[list[Caption]]]
"""A caption of each image, and the references of each image."""

properties = settings(max_examples=60, deadline=None, derandomize=True, database=None)

captions = st.lists(st.sampled_from("abcde"), max_size=9)
captions_of_four_words = st.lists(st.sampled_from("abcde"), min_size=4, max_size=9)


def sets_of(references: st.SearchStrategy[Caption], most: int = 4) -> st.SearchStrategy[Set]:
    """Sets of 1 to 6 images with 1 to `most` `references`."""
    image = st.tuples(captions, st.lists(references, min_size=1, max_size=most))
    return st.lists(image, min_size=1, max_size=6).map(
        lambda images: ([caption for caption, _ in images], [texts for _, texts in images])
    )


def reordered(captions: Set, source: random.Random) -> tuple[Set, list[int]]:
    """The set with its images and references in another order, and the old index of each image."""
    hypotheses, references = captions
    order = source.sample(range(len(hypotheses)), len(hypotheses))
    shuffled = [source.sample(references[i], len(references[i])) for i in order]
    return ([hypotheses[i] for i in order], shuffled), order


def random_sets(count: int) -> Iterator[Set]:
    """Sets with few different words: captions of 0 to 12 words, references of 1 to 12, 1 to 5 references per image."""
    source = random.Random(0)
    for _ in range(count):
        words = ["a", "dog", "runs", "the", "t-shirt", "3,000"][: source.randint(2, 6)]

        def caption(shortest: int = 0, words: list[str] = words) -> Caption:
            return source.choices(words, k=source.choice([shortest, 1, 6, 8, 10, 12]))

        images = source.randint(1, 20)
        most = source.randint(1, 5)
        yield (
            [caption() for _ in range(images)],
            [[caption(1) for _ in range(source.randint(1, most))] for _ in range(images)],
        )


def _many_references() -> Set:
    source = random.Random(1)
    words = list("abcdefgh")
    references = [[source.choices(words, k=source.randint(1, 9)) for _ in range(n)] for n in range(1, 21)]
    return [source.choices(words, k=7) for _ in references], references


def _long_captions() -> Set:
    """Captions of hundreds of words beside short ones."""
    source = random.Random(2)
    words = [f"word{i}" for i in range(40)]
    references = [[source.choices(words, k=k) for k in (5, 300)] for _ in range(4)]
    return [source.choices(words, k=k) for k in (3, 64, 65, 250)], references


def _split(*images: Sequence[str]) -> Set:
    """The first text of each image is its caption, the others are references."""
    return [texts[0].split() for texts in images], [[text.split() for text in texts[1:]] for texts in images]


ODD_SETS: dict[str, Set] = {
    "no words": _split(["", "a dog runs", "a dog"], ["", "the cat"]),
    "no words beside some": _split(["", "a dog runs"], ["a dog sits on grass", "a dog sits on the grass"]),
    "one word": _split(["dog", "dog"], ["cat", "the cat", "cat"], ["bird", "fish"]),
    "scripts": _split(
        ["ünïcödé 犬 собака \U0001f436", "犬 собака \U0001f436 ünïcödé", "ünïcödé 犬"], ["u\u0308 ü", "ü u\u0308 ü"]
    ),
    "repeated words": _split(["a a a a a a a", "a a", "a b a b a a"], ["b b b", "b b b b b b", "b"], ["a b", "b a"]),
    "single reference": _split(["a dog runs on grass", "a dog sits on grass"], ["the cat", "one cat"]),
    "one image": _split(["a dog runs on grass", "a dog runs on the grass", "it runs on grass"]),
    "duplicate images": _split(*[["a dog runs on grass", "a dog runs on the grass", "grass"]] * 3, ["cat", "a cat"]),
    "unseen words": _split(["zebra zebra lion a dog", "a dog"], ["a lion zebra runs", "a lion runs", "it runs"]),
    "nothing in common": _split(["x y z v w", "a b c d e"], ["p q", "a b"]),
    "references without words": ([["a", "dog"], ["a"], []], [[["a", "dog"], []], [[], list("abcdef")], [["a"], []]]),
    "1 to 20 references": _many_references(),
    "long captions": _long_captions(),
}


def coco_dicts(
    hypotheses: Sequence[Caption], references: Sequence[Sequence[Caption]]
) -> tuple[dict[int, list[str]], ...]:
    """References and captions by image, in the form that coco-caption's scorers take."""
    gts = {i: [" ".join(tokens) for tokens in texts] for i, texts in enumerate(references)}
    return gts, {i: [" ".join(tokens)] for i, tokens in enumerate(hypotheses)}
