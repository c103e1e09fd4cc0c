"""Floor and ceiling of a score: the best single caption for all images, and one person against the others."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import chain

import numpy as np

from imgcap.scoring.metrics.bleu import bleu_scores
from imgcap.scoring.metrics.ngrams import (
    MAX_ORDER,
    Integers,
    Tokens,
    WordNumbers,
    count_by_caption,
    encode_references,
)
from imgcap.scoring.scores import Scores, score_images, summarize

MAX_PEOPLE = 5
"""At most this many references of an image are scored against the others, which limits the cost of the ceiling."""


def ceiling(
    references: Sequence[Sequence[Tokens]], training: Container[tuple[str, ...]] | None = None
) -> Scores | None:
    """Scores of one person's captions against the other references, averaged over the first five references.

    Each is compared with one reference fewer than the captions are, which lowers the ceiling a little. `training`
    holds the tokenised training captions. Returns None if an image has a single reference.
    """
    people = min(MAX_PEOPLE, min(map(len, references)))
    if people < 2:
        return None
    found = []
    for k in range(people):
        captions = [several[k] for several in references]
        others = [[*several[:k], *several[k + 1 :]] for several in references]
        found.append(summarize(captions, score_images(captions, others), training))
    return Scores.mean(found)


def floor(
    caption: Tokens, references: Sequence[Sequence[Tokens]], training: Container[tuple[str, ...]] | None = None
) -> Scores:
    """Scores of `caption` as the caption of every image. `training` holds the tokenised training captions."""
    captions = [caption] * len(references)
    return summarize(captions, score_images(captions, references), training)


def best_constant(references: Sequence[Sequence[Tokens]]) -> Tokens:
    """The caption in `references` with the highest BLEU-4 as the caption of every image.

    Ties, such as captions of fewer than four words, are broken by BLEU-3, 2 and 1, then alphabetically.
    """
    candidates = list(chain.from_iterable(references))
    captions, counts = encode_references(references, WordNumbers())
    images = np.repeat(np.arange(len(counts)), counts)
    closest = _closest_lengths(references, int(captions.lengths.max()))[captions.lengths]
    matching, total = [], []
    starts, ngrams = np.arange(len(captions.words)), np.zeros_like(captions.words)
    for n in range(1, MAX_ORDER + 1):
        starts, keys = captions.ngrams(n, starts, ngrams)
        ngrams = np.unique(keys, return_inverse=True)[1]
        matching.append(_matching(*count_by_caption(ngrams, captions.captions[starts]), images))
        total.append(np.maximum(captions.lengths - n + 1, 0) * len(counts))
    scores = bleu_scores(np.column_stack([captions.lengths * len(counts), closest, *matching, *total]))
    order = np.lexsort(scores.T)
    best = (scores[order] == scores[order[-1]]).all(1)
    return min((candidates[i] for i in order[best]), key=list)


def _matching(ngrams: Integers, captions: Integers, times: Integers, images: Integers) -> Integers:
    """Matching n-grams of each caption if it is given to every image; `images` holds the image of each caption."""
    matching = np.zeros(len(images), dtype=np.int64)
    for repetition in range(1, int(times.max(initial=0)) + 1):
        often = times >= repetition
        # An image matches an n-gram as often as the one of its references that has it most often.
        having, _, _ = count_by_caption(ngrams[often], images[captions[often]])
        images_having = np.bincount(having, minlength=int(ngrams.max()) + 1)
        matching += np.bincount(captions[often], images_having[ngrams[often]], minlength=len(images)).astype(np.int64)
    return matching


def _closest_lengths(references: Sequence[Sequence[Tokens]], longest: int) -> Integers:
    """For each caption length up to `longest`, the sum of the nearest reference lengths; of two, the shorter."""
    total = np.zeros(longest + 1, dtype=np.int64)
    wanted = np.arange(longest + 1)
    for several in references:
        theirs = np.array(sorted({len(tokens) for tokens in several}))
        total += theirs[np.abs(wanted[:, None] - theirs).argmin(1)]
    return total
