from __future__ import annotations

import numpy as np
import pytest

from imgcap.text.tokenizer import words
from imgcap.text.vocabulary import Vocabulary
from imgcap.training import encoded_captions
from imgcap.training.encoded_captions import EncodedCaptions

CAPTIONS = [(0, "A dog runs ."), (0, "A zebra !"), (3, "."), (3, "Two dogs run and run ."), (7, "A dog")]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_captions_come_back_as_ids(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(encoded_captions, "_BLOCK", block)
    vocabulary = Vocabulary.build(caption for _, caption in CAPTIONS[:-1])
    encoded = EncodedCaptions(iter(CAPTIONS), vocabulary)
    expected = [vocabulary.encode(words(caption)) for _, caption in CAPTIONS]
    assert len(encoded) == 5
    assert [encoded[number] for number in range(5)] == expected
    assert encoded.rows.tolist() == [0, 0, 3, 3, 7]
    assert encoded.lengths(np.array([4, 0, 2])).tolist() == [2, 3, 0]
    assert encoded.of(3) == expected[2:4]
    assert encoded.of(5) == []


def test_different_words_that_the_vocabulary_lacks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_captions, "_BLOCK", 2)
    assert EncodedCaptions(CAPTIONS, Vocabulary.build(["a dog"], 1)).unknown_words == 6  # runs zebra two dogs run and
    assert EncodedCaptions(CAPTIONS, Vocabulary.build((caption for _, caption in CAPTIONS), 1)).unknown_words == 0


def test_no_captions_are_none() -> None:
    encoded = EncodedCaptions([], Vocabulary.build([]))
    assert len(encoded) == 0
    assert encoded.of(0) == []
