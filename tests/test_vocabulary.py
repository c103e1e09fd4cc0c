"""Words: how a caption becomes tokens and ids, and how those become a line again."""

from __future__ import annotations

import random
import unicodedata

import pytest

from imgcap.errors import ImgcapError
from imgcap.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary, detokenize, tokenize


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog runs .", "a dog runs"),
        ("  A   dog\truns\n", "a dog runs"),
        ("LOUD Words", "loud words"),
        ('"Hello," she said; (quietly): yes!?', "hello she said quietly yes"),
        ("red,white and blue", "red white and blue"),
        ("Two dogs--one black--play...", "two dogs one black play"),
        ("a red/green t-shirt", "a red/green t-shirt"),
        ("A man in a T-shirt.", "a man in a t-shirt"),
        ("- a tri-colored dog -", "a tri-colored dog"),
        ("a dog's ball", "a dog 's ball"),
        ("a dog 's ball", "a dog 's ball"),
        ("the dogs' ball", "the dogs ball"),
        ("It's here", "it 's here"),
        ("they don't", "they do n't"),
        ("they do n't", "they do n't"),
        ("CAN'T", "ca n't"),
        ("I'm, we're, you've, he'd, she'll", "i 'm we 're you 've he 'd she 'll"),
        ("I 'm , we 're", "i 'm we 're"),
        ("couldn't've", "could n't 've"),
        ("don\u2019t touch the dog\u2019s ball", "do n't touch the dog 's ball"),
        ("\u2018single\u2019 \u201cdouble\u201d \u00abangle\u00bb", "single double angle"),
        ("'quoted words'", "quoted words"),
        ("rock'n'roll o'clock", "rock'n'roll o'clock"),
        ("the letter s and d", "the letter s and d"),
        ("3,000 people, 2 dogs", "3,000 people 2 dogs"),
        ("at 10:30, 1.5 or 3/4", "at 10:30 1.5 or 3/4"),
        ("number 12, 13.", "number 12 13"),
        ("a 10-year-old in the 1990's", "a 10-year-old in the 1990 's"),
        ("3,000's", "3,000 's"),
        ("50% of $5 #1", "50 of 5 1"),
        ("AT&T at U.S. parks", "at&t at u.s parks"),
        ("Ein Mädchen läuft über die STRASSE", "ein mädchen läuft über die strasse"),
        ("Éléphant, garçon; cœur", "éléphant garçon cœur"),
        ("cafe\u0301", "café"),
        ("собака бежит", "собака бежит"),
        ("नमस्ते दुनिया!", "नमस्ते दुनिया"),
        ("สวัสดี", "สวัสดี"),
        ("شَمْس", "شَمْس"),
        ("犬が走る。", "犬が走る"),
        ("", ""),
        (" \n ", ""),
        (".", ""),
        ("...!?", ""),
        ("😀 🐶", ""),
        ("dog🐶cat", "dog cat"),
        ("❤️ love", "love"),
        ("a", "a"),
    ],
)
def test_tokenize(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


def test_composed_and_decomposed_letters_are_the_same_word() -> None:
    for word in ("Mädchen", "naïve", "Ångström", "garçon"):
        assert tokenize(unicodedata.normalize("NFD", word)) == tokenize(unicodedata.normalize("NFC", word))


PIECES = ["a", "dog", "n", "s", "d", "ll", "n't", "'s", "'", "\u2019", "-", ".", ",", "&", "/", ":", "_", "3", "12"]
PIECES += [" ", "  ", " ", " ", "\n", "é", "e\u0301", "\u0301", "\u0130", "ß", "Σ", "😀", "नमस्ते", "\u200d", "\u00a0"]


def test_detokenized_captions_have_the_same_tokens_again() -> None:
    source = random.Random(0)
    for _ in range(20_000):
        caption = "".join(source.choices(PIECES, k=source.randrange(1, 9)))
        tokens = tokenize(caption)
        line = detokenize(tokens)
        assert tokenize(line) == tokens, caption
        assert all(token and not any(char.isspace() for char in token) for token in tokens), caption


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ("a dog runs", "a dog runs"),
        ("the dog 's ball", "the dog's ball"),
        ("they do n't know i 'm here", "they don't know i'm here"),
        ("could n't 've", "couldn't've"),
        ("'s alone", "'s alone"),
        ("a 'scool", "a 'scool"),
        ("", ""),
    ],
)
def test_detokenize_joins_contractions(tokens: str, line: str) -> None:
    assert detokenize(tokens.split()) == line


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


def test_captions_cannot_write_special_words() -> None:
    vocabulary = Vocabulary.build(["<end> <pad> end"])
    assert vocabulary.words == (*SPECIAL_WORDS, "end", "pad")
    assert END not in vocabulary.encode(tokenize("<end>"))


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
