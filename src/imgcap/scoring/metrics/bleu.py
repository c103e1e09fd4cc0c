"""BLEU (Papineni et al. 2002) by sacrebleu, as in coco-caption: closest reference length, no smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU

from imgcap.scoring.metrics.ngrams import (
    MAX_ORDER,
    Integers,
    NumberedCaptions,
    Tokens,
    count_by_caption,
    encode_pairs,
    find,
    firsts,
    pair,
    unpair,
)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CorpusBleu:
    """BLEU-1 to BLEU-4 of a set of captions, 0.0-1.0, and the lengths in words for the brevity penalty."""

    scores: tuple[float, float, float, float]
    brevity_penalty: float
    length: int
    reference_length: int


def corpus_bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CorpusBleu:
    """BLEU of tokenised captions, one for each image, against one or more references of each image."""
    return bleu(bleu_statistics(hypotheses, references).sum(0))


def bleu_statistics(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Integers:
    """Statistics that BLEU sums over the images, int64 (N, 10).

    Length of the caption, length of the closest reference, number of matching n-grams for n = 1..4, number of all
    n-grams for n = 1..4. Of two references equally close, the shorter counts. Raises `ValueError` if the numbers of
    captions and images differ, or an image has no reference.
    """
    ours, theirs, counts = encode_pairs(hypotheses, references)
    images = np.repeat(np.arange(len(counts)), counts)
    distances = pair(np.abs(theirs.lengths - ours.lengths[images]), theirs.lengths)
    closest = unpair(np.minimum.reduceat(distances, firsts(counts)))[1]
    matching = _matching(ours, theirs, images)
    total = [np.maximum(ours.lengths - n, 0) for n in range(MAX_ORDER)]
    return np.column_stack([ours.lengths, closest, *matching, *total])


def _matching(ours: NumberedCaptions, theirs: NumberedCaptions, images: Integers) -> list[Integers]:
    """Number of n-grams of each hypothesis that match its references, (N,) for each n.

    `images` holds the image of each reference. Every image has n-gram numbers of its own, beginning with the number of
    the image for the empty n-gram. N-grams of a reference are extended only if the hypothesis has them.
    """
    owners = np.arange(len(ours.lengths))  # the image of each of our n-grams
    our_starts, our_ids = np.arange(len(ours.words)), ours.captions
    their_starts, their_ids = np.arange(len(theirs.words)), images[theirs.captions]
    matching = []
    for order in range(1, MAX_ORDER + 1):
        our_starts, our_keys = ours.ngrams(order, our_starts, our_ids)
        table, our_ids, counts = np.unique(our_keys, return_inverse=True, return_counts=True)
        owners = owners[unpair(table)[0]]
        their_starts, their_keys = theirs.ngrams(order, their_starts, their_ids)
        places, found = find(their_keys, table)
        their_starts, their_ids = their_starts[found], places[found]
        ngrams, _, times = count_by_caption(their_ids, theirs.captions[their_starts])
        most = np.zeros_like(counts)  # in a single reference
        np.maximum.at(most, ngrams, times)
        clipped = np.bincount(owners, np.minimum(counts, most), minlength=len(ours.lengths))
        matching.append(clipped.astype(np.int64))
    return matching


def bleu(statistics: Integers) -> CorpusBleu:
    """BLEU from a sum of statistics, (10,)."""
    length, reference_length, *ngrams = statistics.tolist()
    matching, total = ngrams[:MAX_ORDER], ngrams[MAX_ORDER:]
    scored = [
        BLEU.compute_bleu(matching[:n], total[:n], length, reference_length, smooth_method="none", max_ngram_order=n)
        for n in range(1, MAX_ORDER + 1)
    ]
    one, two, three, four = (min(order.score / 100, 1.0) for order in scored)  # rounding can lift 1 a little
    brevity_penalty = 0.0 if length == 0 else scored[0].bp
    return CorpusBleu((one, two, three, four), brevity_penalty, length, reference_length)


def bleu_scores(statistics: Integers) -> Values:
    """BLEU-1 to BLEU-4 of M sets from their sums of statistics, (M, 10): float64 (M, 4), 0.0-1.0, equal to `bleu`."""
    matching, total = _ngram_counts(statistics)
    return _scores(statistics, matching, total)


def sentence_bleu(statistics: Integers) -> Values:
    """BLEU-4 of each image's caption alone from statistics, (N, 10): float64 (N,), 0.0-1.0.

    Orders above 1 have add-one smoothing (Lin and Och 2004, "ORANGE"), sacrebleu's `add-k` with k = 1. The score is 0
    if no word matches.
    """
    matching, total = _ngram_counts(statistics)
    higher = np.arange(MAX_ORDER) > 0
    return _scores(statistics, matching + higher, total + higher)[:, -1]


def _ngram_counts(statistics: Integers) -> tuple[Integers, Integers]:
    return statistics[:, 2 : 2 + MAX_ORDER], statistics[:, 2 + MAX_ORDER :]


def _scores(statistics: Integers, matching: Integers, total: Integers) -> Values:
    """Geometric mean of the precisions of the first n orders, times the brevity penalty: (M, 4)."""
    lengths, reference_lengths = statistics[:, :1], statistics[:, 1:2]
    with np.errstate(divide="ignore"):  # log 0 is -inf, whose exponential is 0
        logs = np.log(matching / np.maximum(total, 1))
        brevity = np.minimum(1 - reference_lengths / np.maximum(lengths, 1), 0)
    means = np.cumsum(logs, axis=1) / np.arange(1, MAX_ORDER + 1)
    return np.minimum(np.exp(means + brevity), 1.0)
