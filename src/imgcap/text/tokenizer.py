"""The tokeniser for scoring and training, and its inverse.

For captions, `tokenize` gives the tokens of coco-caption's `PTBTokenizer`: Penn Treebank tokens of Stanford CoreNLP
3.4.1 in lower case, without punctuation. docs/tokens.md explains the rule and the differences.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from sys import intern

TOKENIZER = "imgcap-2"
"""Name of the rules in `tokenize` and `words`. Models and scores store it."""
KNOWN_TOKENIZERS = frozenset({"imgcap-1", TOKENIZER})
"""Rules of models that can be used: "imgcap-1" has no full stop after abbreviations."""

_ABBREVIATIONS = r"""
    adj|adm|adv|al|ala|alex|apr|ariz|assn|assoc|attys?|aug|ave|bancorp|bhd|bldg|blvd|brig|bros|calif|capt|cf|cie|cmdr|
    col?|colo|comdr|conn|corp|cos|cpl|ct|dak|dec|dept|det|drs?|ed\.d|elec|ens|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|
    govs?|hon|inc|ind|insp|intl|jan|jos|jr|jul|jun|kans?|ky|lieut|ltd?|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mont?|
    mo|mrs?|ms|mt|mtg|natl|neb|nev|nov|oct|okla|penn|pfc|ph|ph\.d|plc|pres|profs?|pte|pty|pvt|rd|reps?|rev|rt|sens?|
    sept?|seq|sfc|sgt|spc|sq|sr|ste?|supts?|sys|tel|tenn|thu|thurs|tues?|univ|va|vs|vt|wed|wisc|wm|wyo
"""
_CAPITALISED_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash|Wis"
_ABBREVIATIONS_OF_NUMBERED_THINGS = "art|ca|figs?|nos?|op|pp|prop"
_WITH_APOSTROPHE = r"dunkin'|somethin'|ol['\u2019]|c['\u2019]est\b|(?:c'mon|cap'n|e'er|ev'ry|li'l|nat'l|s'mores)\b"
_SENTENCE_STARTS = r"""
    A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Mr\.|Ms\.|Now|
    Once|One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You
"""
_SYMBOLS = (
    r"%&$=+/<>|\\~^()\[\]{}\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7\u060c\u061b\u061f"
    r"\u06d4\u0964\u0965\u2016\u2017\u201a\u201e\u2020-\u2023\u2030-\u2038\u2070-\u208e\u2100-\u214f\u2155-\u215e"
    r"\u2190-\u2bff\u3001\u3002\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff3d\uff3f\uff5b-\uff65"
)
_APOSTROPHE = "['\u2019]"
_CLITIC = rf"(?: {_APOSTROPHE} (?i: [sdm] | re | ve | ll ) (?![^\W\d_]) )"
_FULL_STOP = r"(?: \. (?![^\W\d_]) )"
_STOP_BEFORE_PUNCTUATION = r"(?: \. (?=[,;:]) )?"


@cache
def _pattern(ascii_only: bool) -> re.Pattern[str]:
    """The pattern of a token. The one for letters above ASCII takes long to compile, and few captions need it."""
    letter = "[A-Za-z]" if ascii_only else f"[A-Za-z{_letters_above_ascii()}]"
    alnum = rf"[\d{letter[1:]}"
    return re.compile(
        rf"""
          [A-Za-z]+ (?!\S)                                                # most words
        | (?! \s | [.,](?!\d) ) (?:                                       # no token begins here: skip early, for speed
            [Nn]{_APOSTROPHE}[Tt] [A-Za-z]* | {_CLITIC}                   # do n't, dog 's
          | {_APOSTROPHE} (?: [2-9]0s | \d\d(?!\S) )                      # '80s, '99
          | {_APOSTROPHE} (?i: n{_APOSTROPHE} | (?: n | em | cause | till? )\b ) | ' (?i: tis | twas )\b
          | \d{{1,4}}-\d{{1,4}}/\d{{1,4}}                                 # 3-1/2
          | [A-Za-z0-9]+ (?: -[A-Za-z]+ ){{0,2}} (?: \\?/ [A-Za-z0-9]+ (?: -[A-Za-z]+ ){{0,2}} ){{1,2}}    # and/or
          | (?: [A-Za-z0-9][A-Za-z0-9.,]{{0,99}} | {alnum}+ )             # t-shirt, 3.5-inch, U.S.-based
            (?: [-_\u2010\u2011] (?: [A-Za-z](?:\.[A-Za-z])+\. | (?: [DdLlOo]{_APOSTROPHE} )? {alnum}+ ) )+
            {_STOP_BEFORE_PUNCTUATION}
          | [+-]? \d* (?: [.,:]\d+ )+ | [+-]\d+                           # 10:30, 1,000, -5
          | [A-Z]+\$ | [A-Z]+ (?: [&+][A-Z]+ )+                           # US$, AT&T
          | (?! [A-Za-z]{_CLITIC} ) (?: [DdLlOo]{_APOSTROPHE}{alnum}+ | [A-HJ-XZn]{_APOSTROPHE}[A-Za-z]{{2,}} )
          | [A-Za-z]+ [AEIOUYaeiouy]{_APOSTROPHE}[AEIOUaeiou] [A-Za-z]*   # ma'am
          | (?i: {_WITH_APOSTROPHE} )
          | [DdJjLlYy] (?!{_CLITIC}) {_APOSTROPHE}                        # y' all
          | [A-Za-z] (?: \.[A-Za-z] )+ {_FULL_STOP}                       # U.S.
          | [A-Za-z] {_FULL_STOP} (?! \s+ (?: {_SENTENCE_STARTS} | {_SENTENCE_STARTS.upper()} ) (?!\S) )      # B. Smith
          | (?: (?i: {_ABBREVIATIONS} ) | {_CAPITALISED_ABBREVIATIONS} ) {_FULL_STOP}
          | (?i: {_ABBREVIATIONS_OF_NUMBERED_THINGS} ) \. (?=\s*\d)
          | {alnum}+ (?= [Nn]{_APOSTROPHE}[Tt] )                          # the word before n't
          | (?: \d{alnum}* | {letter}{alnum}* (?: [.!?]{letter}{alnum}* )* ) {_STOP_BEFORE_PUNCTUATION}
          | \#{letter}(?: {letter} | _ )* | @[A-Za-z]\w*                  # hashtags, names
          | [!?]{{2,}} | \*+ | \#+ | @+ | _+ | << | >> | [{_SYMBOLS}]
        )
        """,
        re.VERBOSE,
    )


def _letters_above_ascii() -> str:
    """Ranges for a character class: letters, and combining accents and vowel signs."""
    plane = map(chr, range(0x80, 0x10000))
    runs = "".join(char if unicodedata.category(char)[0] in "LM" else " " for char in plane).split()
    return "".join(f"{run[0]}-{run[-1]}" for run in runs)


_REWRITTEN_CHARACTERS = str.maketrans(
    {
        "\u00ad": "",  # a soft hyphen
        "\ufe0f": " ",  # selects the coloured form of the symbol before it
        "\u00a2": " cents ",
        "\u00a3": " # ",
        "\u00a4": " $ ",
        "\u20ac": " $ ",
        "\u00bc": " 1/4 ",
        "\u00bd": " 1/2 ",
        "\u00be": " 3/4 ",
        "\u2153": " 1/3 ",
        "\u2154": " 2/3 ",
    }
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_BRACKET_NAMES = frozenset(_BRACKETS.values())
_REWRITTEN_TOKENS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
    "'tis": ("'t", "is"),
    "'twas": ("'t", "was"),
    **{bracket: (name,) for bracket, name in _BRACKETS.items()},
    **{clitic.replace("'", "\u2019"): (clitic,) for clitic in ("n't", "'s", "'d", "'m", "'re", "'ve", "'ll")},
}


def tokenize(caption: str) -> list[str]:
    """Lower-case tokens of `caption`, as in coco-caption: "Don't (wave)!" -> ["do", "n't", "-lrb-", ...].

    Equal tokens are the same object, which saves memory: a million captions have few different words.
    """
    text = _normalize(caption)
    tokens: list[str] = []
    for token in map(str.lower, _pattern(text.isascii()).findall(text)):
        tokens += _REWRITTEN_TOKENS.get(token, (intern(token),))
    return tokens


def words(caption: str) -> list[str]:
    """The tokens of `caption` with a letter or digit, without brackets. Models learn these."""
    return [token for token in tokenize(caption) if _is_word(token)]


def has_words(caption: str) -> bool:
    """Whether `words(caption)` is not empty; stops at the first word."""
    text = _normalize(caption)
    return any(_is_word(match[0].lower()) for match in _pattern(text.isascii()).finditer(text))


def _normalize(caption: str) -> str:
    return unicodedata.normalize("NFC", caption).translate(_REWRITTEN_CHARACTERS)


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token)) and token not in _BRACKET_NAMES


def detokenize(tokens: Iterable[str]) -> str:
    """Tokens as a readable line, with spaces between words but not before contractions."""
    return re.sub(r" (?=(?:n't|'(?:s|m|d|re|ve|ll))(?!\S))", "", " ".join(tokens))
