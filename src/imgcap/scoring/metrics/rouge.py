"""ROUGE-L (Lin 2004), computed as in coco-caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imgcap.scoring.metrics.ngrams import Integers, NumberedCaptions, Tokens, encode_pairs, firsts

Values = npt.NDArray[np.float64]

BETA = 1.2
"""Weight of recall relative to precision."""

_BLOCK = 4096


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Values:
    """ROUGE-L of each image's caption, float64 (N,), 0.0-1.0.

    The F-measure of the longest common subsequence, with the best precision and the best recall over the references. A
    caption without words scores 0.0; coco-caption reads an empty text as one empty word, and gives 1.0 if a reference
    is empty too. Raises `ValueError` if the numbers of captions and images differ, or an image has no reference.
    """
    ours, theirs, counts = encode_pairs(hypotheses, references)
    images = np.repeat(np.arange(len(counts)), counts)
    common = _common_subsequences(ours, theirs, images)
    groups = firsts(counts)
    precision = np.maximum.reduceat(common / np.maximum(ours.lengths[images], 1), groups)
    recall = np.maximum.reduceat(common / np.maximum(theirs.lengths, 1), groups)
    scores: Values = (1 + BETA**2) * precision * recall / np.where(recall > 0, recall + BETA**2 * precision, 1)
    return scores


def _common_subsequences(ours: NumberedCaptions, theirs: NumberedCaptions, images: Integers) -> Integers:
    """Length of the longest common subsequence of each reference (C,) and the hypothesis of its image."""
    common = np.empty(len(images), dtype=np.int64)
    by_length = np.argsort(np.maximum(ours.lengths[images], theirs.lengths))  # blocks with little padding
    for begin in range(0, len(images), _BLOCK):
        block = by_length[begin : begin + _BLOCK]
        rows, columns = _padded(ours, images[block], -1), _padded(theirs, block, -2)
        # lengths[j]: longest common subsequence of our words so far and their first j words, for all pairs at once.
        lengths = np.zeros((len(columns) + 1, len(block)), dtype=np.int32)
        for row in rows:
            longer = lengths[:-1] + (columns == row)
            np.maximum(lengths[1:], longer, out=lengths[1:])
            np.maximum.accumulate(lengths, axis=0, out=lengths)
        common[block] = lengths[-1]
    return common


def _padded(captions: NumberedCaptions, indices: Integers, padding: int) -> Integers:
    """The words of the captions at `indices` (B,), one caption per column: (T, B)."""
    lengths = captions.lengths[indices]
    inside = np.arange(lengths.max(initial=0))[:, None] < lengths
    places = firsts(captions.lengths)[indices] + np.arange(len(inside))[:, None]
    padded = np.full(inside.shape, padding)
    padded[inside] = captions.words[places[inside]]
    return padded
