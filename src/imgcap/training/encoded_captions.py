"""Training captions as word ids, in temporary files, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from imgcap.images.decoding import batched
from imgcap.text.tokenizer import words
from imgcap.text.vocabulary import Vocabulary

Numbers = npt.NDArray[np.int64]

_BLOCK = 65_536
"""Captions to encode before a write."""


class EncodedCaptions:
    """C captions, in the order of their images' rows."""

    rows: Numbers
    """The row of each caption's image in the prepared folder, (C,), ascending."""
    unknown_words: int
    """How many different words of the captions the vocabulary lacks."""

    def __init__(self, captions: Iterable[tuple[int, str]], vocabulary: Vocabulary) -> None:
        """Encode pairs of row and caption, rows ascending. The temporary files are removed when the process ends."""
        with TemporaryFile() as ids, TemporaryFile() as ends, TemporaryFile() as rows:
            total, unknown = 0, set[str]()
            for block in batched(captions, _BLOCK):
                texts = [words(caption) for _, caption in block]
                unknown.update(word for text in texts for word in text if word not in vocabulary)
                encoded = list(map(vocabulary.encode, texts))
                lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
                ids.write(np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum())).data)
                ends.write((total + np.cumsum(lengths)).data)
                rows.write(np.array([row for row, _ in block], np.int64).data)
                total += int(lengths.sum())
            self._ids = _mapped(ids, np.int32)
            self._ends = _mapped(ends, np.int64)
            self.rows = _mapped(rows, np.int64)
            self.unknown_words = len(unknown)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> list[int]:
        """Word ids of a caption."""
        begin = self._ends[number - 1] if number else 0
        return self._ids[begin : self._ends[number]].tolist()  # type: ignore[no-any-return]

    def lengths(self, numbers: Numbers) -> Numbers:
        """Number of words, (N,), of the captions `numbers`, (N,)."""
        lengths: Numbers = self._ends[numbers] - np.where(numbers > 0, self._ends[numbers - 1], 0)
        return lengths

    def of(self, row: int) -> list[list[int]]:
        """Word ids of all captions of the image in `row`."""
        begin, end = np.searchsorted(self.rows, [row, row + 1])
        return [self[number] for number in range(begin, end)]


def _mapped(file: Any, dtype: npt.DTypeLike) -> Any:
    file.flush()
    return np.memmap(file, dtype, "r") if file.tell() else np.empty(0, dtype)
