"""Words and ids, and the one tokeniser that training, scoring and captioning share."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from imgcap.errors import ImgcapError

TOKENIZER = "imgcap-1"
"""Name of the rule in `tokenize`, kept with every model and score."""

PAD, START, END, UNKNOWN = range(4)
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")

# Accents and vowel signs that are characters of their own belong to the letter before them; \w leaves them out.
_MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M")
_LETTER = rf"[\w{_MARKS}]"
# A number keeps its inner points and commas, a word its inner hyphens, points and apostrophes; all else is punctuation.
_TOKEN = re.compile(rf"\d+(?:[.,:/]\d+)+|\w{_LETTER}*(?:[-.'&/]\w{_LETTER}*)*")
# English contractions are tokens of their own, as in the Penn Treebank.
_CLITIC = re.compile(rf"(?<={_LETTER})(?:n't|'(?:s|m|d|re|ve|ll))$")


def tokenize(caption: str) -> list[str]:
    """Lower-case words of `caption` without punctuation; "Don't!" -> ["do", "n't"], "T-shirt." -> ["t-shirt"]."""
    tokens: list[str] = []
    text = unicodedata.normalize("NFC", caption.lower()).replace("\u2019", "'")  # a typographic apostrophe
    for match in _TOKEN.finditer(text):
        word, clitics = match.group(), []
        while clitic := _CLITIC.search(word):
            clitics.append(clitic.group())
            word = word[: clitic.start()]
        if word in _BARE_CLITICS and text[match.start() - 1 : match.start()] == "'":
            word = "'" + word
        tokens += [word, *reversed(clitics)]
    return tokens


_BARE_CLITICS = frozenset({"s", "m", "d", "re", "ve", "ll"})
"""What follows the apostrophe of a contraction that the caption's writer has already cut off ("dog 's")."""


def detokenize(tokens: Iterable[str]) -> str:
    """Words back to a readable line: contractions joined to the word before them, the rest by spaces."""
    return re.sub(r" (?=(?:n't|'(?:s|m|d|re|ve|ll))(?!\S))", "", " ".join(tokens))


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of words, the four special ones first; a word's place is its id."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(word, str) for word in self.words):
            raise ImgcapError("A vocabulary must hold nothing but words.")
        if self.words[: len(SPECIAL_WORDS)] != SPECIAL_WORDS:
            raise ImgcapError(f"A vocabulary must begin with {' '.join(SPECIAL_WORDS)}.")
        if len(set(self.words)) != len(self.words):
            raise ImgcapError("A vocabulary must not hold a word twice.")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> Vocabulary:
        """Words that stand at least `min_count` times in `captions`, most frequent first, ties by alphabet."""
        counts = Counter(token for caption in captions for token in tokenize(caption))
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL_WORDS, *kept))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of `tokens`, `UNKNOWN` for words that are not in the vocabulary."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Words of `ids` up to the first `END`, without `PAD` and `START`."""
        ids = ids[: ids.index(END)] if END in ids else ids
        return [self.words[i] for i in ids if i not in (PAD, START)]
