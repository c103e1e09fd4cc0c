"""The tokeniser: coco-caption's tokens, what of them models learn, and how words become a line again."""

from __future__ import annotations

import random
import shutil
import unicodedata

import pytest
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from helpers.data import SHARED_DATA
from imgcap.text.tokenizer import detokenize, has_words, tokenize, words

needs_java = pytest.mark.skipif(
    not shutil.which("java"), reason="coco-caption's tokeniser needs `java`, which is not there"
)

# Captions and the tokens that coco-caption's own tokeniser gives them.
TOKENS = [
    ("A dog runs .", "a dog runs"),
    ("  A   dog\truns", "a dog runs"),
    ("LOUD Words", "loud words"),
    ('"Hello," she said; (quietly): yes!?', "hello she said -lrb- quietly -rrb- yes !?"),
    ("red,white and blue", "red white and blue"),
    ("Two dogs--one black--play...", "two dogs one black play"),
    ("a dog… a dog — dog\u2013cat . . . ----", "a dog a dog dog cat"),
    ("a red/green t-shirt", "a red/green t-shirt"),
    ("one/two/three/four", "one/two/three / four"),
    ("A man in a T-shirt.", "a man in a t-shirt"),
    ("- a tri-colored dog -", "a tri-colored dog"),
    ("a dog's ball", "a dog 's ball"),
    ("a dog 's ball", "a dog 's ball"),
    ("the dogs' ball", "the dogs ball"),
    ("It's here, IT'S", "it 's here it 's"),
    ("they don't", "they do n't"),
    ("they do n't", "they do n't"),
    ("CAN'T", "ca n't"),
    ("do's and don'ts", "do 's and do n'ts"),
    ("I'm, we're, you've, he'd, she'll", "i 'm we 're you 've he 'd she 'll"),
    ("couldn't've", "could n't 've"),
    ("don\u2019t touch the dog\u2019s ball", "do n't touch the dog 's ball"),
    ("\u2018single\u2019 “double” «angle» ``tick''", "single double angle tick"),
    ("'quoted words'", "quoted words"),
    (
        "rock'n'roll rock 'n' roll rock \u2019n\u2019 roll, wash 'n dry",
        "rock 'n' roll rock 'n' roll rock \u2019n\u2019 roll wash 'n dry",
    ),
    (
        "o'clock O'Neill d'or l'eau jack-o'-lantern jack-o'lantern",
        "o'clock o'neill d'or l'eau jack-o lantern jack-o'lantern",
    ),
    (
        "ma'am Hawai'i ol' dog somethin' runnin' y'all C'mon li'l",
        "ma'am hawai'i ol' dog somethin' runnin y' all c'mon li'l",
    ),
    ("'em 'til 'cause 'round 'bout", "'em 'til 'cause round bout"),
    (
        "We cannot see what he's gonna do, gotta go, wanna lemme gimme",
        "we can not see what he 's gon na do got ta go wan na lem me gim me",
    ),
    ("'Tis the season, 'twas", "'t is the season 't was"),
    ("the letter s and d", "the letter s and d"),
    ("3,000 people, 2 dogs", "3,000 people 2 dogs"),
    ("at 10:30, 1.5 or 3/4, .5 and -5", "at 10:30 1.5 or 3/4 .5 and -5"),
    ("10:30am 10am 10a.m. 10 p.m.", "10:30 am 10am 10a m. 10 p.m."),
    ("number 12, 13.", "number 12 13"),
    ("a 10-year-old in the 1990's, 1980s, '80s, '99 and '5", "a 10-year-old in the 1990 's 1980s '80s '99 and 5"),
    ("3.5-inch 5'10\" 6-ft. tall 3-1/2 1½", "3.5-inch 5 10 6-ft tall 3-1/2 1 1/2"),
    ("50% of $5 US$5 £5 €5 5¢ #1 # 2", "50 % of $ 5 us$ 5 # 5 $ 5 5 cents # 1 # 2"),
    ("AT&T at&t R&B slip & slide U.S.-made", "at&t at & t r&b slip & slide u.s.-made"),
    ("RIF=ding 1+1=2 <3 a*b ** x^2 ~ |", "rif = ding 1 +1 = 2 < 3 a * b ** x ^ 2 ~ |"),
    ("Mr. Potato, mr. potato, Dale Jr. and Dr.Smith", "mr. potato mr. potato dale jr. and dr.smith"),
    ("St. Louis, Washington D.C.", "st. louis washington d.c."),
    ("a U.S. park in the U.S.", "a u.s. park in the u.s."),
    ('the letter "P."', "the letter p."),
    ("J. J. Smith of Miami U. pushes", "j. j. smith of miami u. pushes"),
    ("B. Smith has the letter B. The", "b. smith has the letter b the"),
    ("He has the letter B. The dog barks.", "he has the letter b the dog barks"),
    ("does the wash. ", "does the wash"),
    ("in Seattle, Wash. ", "in seattle wash."),
    ("Miss. miss. Ill. ill. Mass. mass.", "miss. miss ill. ill mass. mass"),
    ("no. 5 No.5 no. dog fig. 2 etc.", "no. 5 no. 5 no dog fig. 2 etc."),
    ("S.C.U.B.A. diver, J.R.R. a.k.a. i.e., e.g.", "s.c.u.b.a. diver j.r.r. a.k.a. i.e. e.g."),
    ("a dog., a 3.; a cat.: a t-shirt.,", "a dog. a 3. a cat. a t-shirt."),
    ("yes! no!! what?! ... .. ?", "yes no !! what ?!"),
    ("dog.cat dog!cat dog.1 1.dog dog,1", "dog.cat dog!cat dog .1 1 dog dog ,1"),
    ("(one in red, two) [blurry] {sic}", "-lrb- one in red two -rrb- -lsb- blurry -rsb- -lcb- sic -rcb-"),
    ("dog_cat _dog_ @dog #dog dog#cat @ @@ ##", "dog_cat _ dog _ @dog #dog dog #cat @ @@ ##"),
    ("❤️ love ☃ ★ © 90° ™", "❤ love ☃ ★ © 90 ° ™"),
    ("😀 🐶", ""),
    ("dog🐶cat", "dog cat"),
    ("café façade Mädchen läuft über die STRASSE café-bar", "café façade mädchen läuft über die strasse café-bar"),
    ("Éléphant, garçon; cœur ¡Hola!", "éléphant garçon cœur ¡ hola"),
    ("собака БЕЖИТ", "собака бежит"),
    ("ΣΚΥΛΟΣ", "σκυλος"),
    ("नमस्ते दुनिया!", "नमस्ते दुनिया"),
    ("สวัสดี", "สวัสดี"),
    ("شَمْس،", "شَمْس ،"),
    ("犬が走る。", "犬が走る 。"),
    ("colour of the theatre, grey harbour", "colour of the theatre grey harbour"),
    ("a\xa0dog\u3000runs soft\xadhyphen zero\u200bwidth", "a dog runs softhyphen zero width"),
    ("\x00dog\x7f", "dog"),
    ("", ""),
    (".", ""),
    ("...!?", "!?"),
    ("a", "a"),
]


def coco_tokens(captions: list[str]) -> list[list[str]]:
    lines = PTBTokenizer().tokenize({i: [{"caption": caption}] for i, caption in enumerate(captions)})
    return [lines[i][0].split() for i in range(len(captions))]


def flickr8k_captions() -> list[str]:
    lines = (SHARED_DATA / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[1] for line in lines]


@pytest.mark.parametrize(("caption", "tokens"), TOKENS)
def test_tokens_are_those_of_coco_caption(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


@needs_java
def test_coco_caption_gives_the_tokens_of_the_table() -> None:
    # coco-caption looks ahead into the next caption, so that one of no consequence stands between any two.
    captions = [text for caption, _ in TOKENS for text in (caption, "x")]
    assert coco_tokens(captions)[::2] == [tokens.split() for _, tokens in TOKENS]


@needs_java
def test_pieces_in_any_order_have_the_tokens_of_coco_caption() -> None:
    pieces = sorted({piece for caption, _ in TOKENS for piece in caption.split()})
    source = random.Random(0)
    captions = [" ".join(source.choices(pieces, k=source.randrange(1, 9))) for _ in range(5_000)]
    expected = coco_tokens([text for caption in captions for text in (caption, "x")])[::2]
    assert [caption for caption, tokens in zip(captions, expected, strict=True) if tokenize(caption) != tokens] == []


@needs_java
@pytest.mark.shared_data
def test_all_flickr8k_captions_have_the_tokens_of_coco_caption() -> None:
    captions = flickr8k_captions()
    assert len(captions) == 40_460
    expected = coco_tokens(captions)
    assert [caption for caption, tokens in zip(captions, expected, strict=True) if tokenize(caption) != tokens] == []


@pytest.mark.parametrize("word", ["Mädchen", "naïve", "Ångström", "garçon"])
def test_composed_and_decomposed_letters_are_the_same_word(word: str) -> None:
    assert (
        tokenize(unicodedata.normalize("NFD", word)) == tokenize(unicodedata.normalize("NFC", word)) == [word.lower()]
    )


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("(one in red, two) [blurry] {sic}", "one in red two blurry sic"),
        ("Mr. Potato's # 2 slip & slide", "mr. potato 's 2 slip slide"),
        ("what?! a 50% ** yes !!", "what a 50 yes"),
        ("rock 'n' roll: don't", "rock 'n' roll do n't"),
        ("❤️ dog 🐶 ☃", "dog"),
        ("<end> <unk>", "end unk"),
        ("नमस्ते 犬。", "नमस्ते 犬"),
        ("... !! ( )", ""),
        ("", ""),
    ],
)
def test_words_are_the_tokens_with_a_letter_or_digit_but_no_brackets(caption: str, kept: str) -> None:
    assert words(caption) == kept.split()


PIECES = [
    "a",
    "Dog",
    "A",
    "n",
    "s",
    "d",
    "ll",
    "n't",
    "N'T",
    "'s",
    "'",
    "\u2019",
    "-",
    ".",
    ",",
    "&",
    "/",
    ":",
    "_",
    "3",
]
PIECES += ["12", "(", "]", "#", "@", "$", "!", "mr", "no.", "can", "not", "'tis", "lrb", "+", "*", "`", '"', "\u00bd"]
PIECES += [" ", "  ", " ", " ", "\n", "é", "e\u0301", "\u0301", "\u0130", "ß", "Σ", "😀", "नमस्ते", "\u200d", "\u00a0"]


def random_captions(count: int) -> list[str]:
    source = random.Random(0)
    return ["".join(source.choices(PIECES, k=source.randrange(1, 9))) for _ in range(count)]


def test_tokens_hold_no_space_and_no_capital_letter() -> None:
    for caption in random_captions(10_000):
        for token in tokenize(caption):
            assert token
            assert not any(map(str.isspace, token)), caption
            assert token == token.lower(), caption


def test_words_are_tokens_in_order_that_carry_a_letter_or_digit() -> None:
    for caption in random_captions(10_000):
        rest = iter(tokenize(caption))
        for word in words(caption):
            assert any(map(str.isalnum, word)), caption
            assert word not in ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), caption
            assert word in rest, caption


def test_a_caption_has_words_or_none() -> None:
    captions = [*random_captions(10_000), "", "( )", "-lrb-", "*** [ ] !!", "... 3", "gonna", "'s", "\u2019s", "\u00bd"]
    assert [caption for caption in captions if has_words(caption) != bool(words(caption))] == []
    assert {has_words(caption) for caption in captions} == {False, True}


@pytest.mark.shared_data
def test_captions_of_flickr8k_keep_their_words_when_written_as_a_line() -> None:
    for caption in flickr8k_captions()[::4]:
        kept = words(caption)
        assert words(detokenize(kept)) == kept, caption


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.",
        "a,",
        "a-",
        "a-a.",
        "a/",
        "a&",
        "A&",
        "a_",
        "'",
        "n't",
        "a'",
        "1",
        "1,",
        "-1",
        "é-",
        "#",
        "(",
        " ",
        "A. ",
    ],
)
def test_long_captions_of_one_piece_take_no_more_than_their_length(piece: str) -> None:
    assert len(tokenize(piece * 50_000)) <= 50_000 * len(piece)


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
