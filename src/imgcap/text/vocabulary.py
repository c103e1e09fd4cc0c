"""The words that a model knows, and their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from imgcap.errors import ImgcapError
from imgcap.text.tokenizer import words

PAD, START, END, UNKNOWN = range(4)
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of words that begins with the four special words; the index of a word is its id."""

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
        """All words that occur at least `min_count` times in `captions`, most frequent first, ties alphabetically."""
        counts = Counter(word for caption in captions for word in words(caption))
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL_WORDS, *kept))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of `tokens`; `UNKNOWN` for words outside the vocabulary."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Words of `ids` up to the first `END`, without `PAD` and `START`."""
        ids = ids[: ids.index(END)] if END in ids else ids
        return [self.words[i] for i in ids if i not in (PAD, START)]
