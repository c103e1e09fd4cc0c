"""Words and their ids: what a vocabulary holds, and how it reads and writes captions."""

from __future__ import annotations

import pytest

from imgcap.errors import ImgcapError
from imgcap.text.tokenizer import words
from imgcap.text.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary


def test_build_orders_words_by_count_and_then_by_alphabet() -> None:
    captions = ["A dog and a cat.", "a dog", "The bird", "the ant"]
    assert Vocabulary.build(captions).words == (*SPECIAL_WORDS, "a", "dog", "the", "and", "ant", "bird", "cat")


@pytest.mark.parametrize(
    ("min_count", "words"), [(0, "a b c d"), (1, "a b c d"), (2, "a b c"), (3, "a b"), (4, "a"), (9, "")]
)
def test_build_leaves_rare_words_out(min_count: int, words: str) -> None:
    vocabulary = Vocabulary.build(["a a a a", "b b b c c", "d"], min_count)
    assert vocabulary.words == (*SPECIAL_WORDS, *words.split())
    assert len(vocabulary) == 4 + len(words.split())


def test_build_does_not_depend_on_the_order_of_captions() -> None:
    captions = [f"word{i % 7} word{i % 5} word{i % 3}" for i in range(50)]
    assert Vocabulary.build(captions) == Vocabulary.build(reversed(captions))


def test_build_of_nothing_has_the_special_words_alone() -> None:
    assert Vocabulary.build([]).words == SPECIAL_WORDS
    assert Vocabulary.build(["", "!"]).words == SPECIAL_WORDS


def test_build_takes_words_and_no_other_tokens() -> None:
    assert Vocabulary.build(["Mr. Fox (the # 2) & Co."]).words == (*SPECIAL_WORDS, "2", "co.", "fox", "mr.", "the")


def test_captions_cannot_write_special_words() -> None:
    vocabulary = Vocabulary.build(["<end> <pad> end"])
    assert vocabulary.words == (*SPECIAL_WORDS, "end", "pad")
    assert END not in vocabulary.encode(words("<end>"))


def test_special_ids_are_the_places_of_special_words() -> None:
    assert [SPECIAL_WORDS[i] for i in (PAD, START, END, UNKNOWN)] == ["<pad>", "<start>", "<end>", "<unk>"]


def test_encode_gives_unknown_for_other_words() -> None:
    vocabulary = Vocabulary.build(["a dog"])
    assert vocabulary.encode(["a", "zebra", "dog", "A"]) == [4, UNKNOWN, 5, UNKNOWN]
    assert vocabulary.encode([]) == []


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([4, 5], "a dog"),
        ([START, 4, 5, END, 4, 4], "a dog"),
        ([4, END, 5, END], "a"),
        ([END], ""),
        ([], ""),
        ([4, PAD, PAD], "a"),
        ((5, 4), "dog a"),
        ([UNKNOWN, 5], "<unk> dog"),
    ],
)
def test_decode_stops_at_the_end(ids: list[int], words: str) -> None:
    assert Vocabulary.build(["a dog"]).decode(ids) == words.split()


def test_decode_undoes_encode() -> None:
    vocabulary = Vocabulary.build(["the quick brown fox does n't jump"])
    tokens = ["fox", "does", "n't", "jump"]
    assert vocabulary.decode([START, *vocabulary.encode(tokens), END]) == tokens


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "begin"),
        (("a", "b"), "begin"),
        (SPECIAL_WORDS[:3], "begin"),
        ((*reversed(SPECIAL_WORDS), "a"), "begin"),
        (("a", *SPECIAL_WORDS), "begin"),
        ((*SPECIAL_WORDS, "a", "b", "a"), "twice"),
        ((*SPECIAL_WORDS, "<end>"), "twice"),
    ],
)
def test_invalid_vocabularies_are_refused(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ImgcapError, match=sentence):
        Vocabulary(words)
