"""Scores of captions against references: BLEU by sacrebleu in coco-caption's convention, and CIDEr-D."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sacrebleu
from sacrebleu.metrics.bleu import BLEU

from imgcap.errors import ImgcapError
from imgcap.vocabulary import TOKENIZER, tokenize

MAX_ORDER = 4
"""Longest n-grams that BLEU and CIDEr-D count."""

Tokens = Sequence[str]
NGram = tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of a set of captions; all in 0.0-1.0 but CIDEr-D, which is 0.0-10.0 (papers print it times 100)."""

    bleu: tuple[float, float, float, float]
    """BLEU-1 to BLEU-4 over the whole set (Papineni et al. 2002)."""
    cider_d: float
    """Mean over the pictures (Vedantam et al. 2015)."""
    brevity_penalty: float
    mean_length: float
    """Mean words in a caption."""
    mean_reference_length: float
    """Mean words in the references nearest in length, which the brevity penalty compares with."""
    pictures: int
    references: tuple[int, int]
    """Fewest and most references of a picture."""
    signature: str
    """All that another person needs to repeat the score."""


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Score one caption for each picture against its references; both are tokenised here.

    Raises `ImgcapError` if the numbers differ, or a picture has no reference.
    """
    check_pairs(len(hypotheses), [len(r) for r in references])
    hypothesis_tokens = [tokenize(caption) for caption in hypotheses]
    reference_tokens = [[tokenize(caption) for caption in captions] for captions in references]
    bleu = corpus_bleu(hypothesis_tokens, reference_tokens)
    counts = [len(captions) for captions in references]
    return Scores(
        bleu=bleu.scores,
        cider_d=float(CiderD(reference_tokens).score(hypothesis_tokens).mean()),
        brevity_penalty=bleu.brevity_penalty,
        mean_length=bleu.length / len(hypotheses),
        mean_reference_length=bleu.reference_length / len(hypotheses),
        pictures=len(hypotheses),
        references=(min(counts), max(counts)),
        signature=_signature(min(counts), max(counts)),
    )


def check_pairs(hypotheses: int, references: Sequence[int]) -> None:
    """Raise `ImgcapError` unless there is one hypothesis for each picture, and a reference too."""
    if hypotheses != len(references):
        raise ImgcapError(f"There are {hypotheses:,} captions for {len(references):,} pictures with references.")
    if not hypotheses:
        raise ImgcapError("There are no captions to score.")
    if not all(references):
        raise ImgcapError(f"Picture number {references.index(0) + 1} has no reference.")


def _signature(fewest: int, most: int) -> str:
    nrefs = str(most) if fewest == most else f"{fewest}-{most}"
    return f"nrefs:{nrefs}|case:lc|eff:no|tok:{TOKENIZER}|smooth:none|version:{sacrebleu.__version__}"


@dataclass(frozen=True)
class CorpusBleu:
    """BLEU-1 to BLEU-4 of a set of captions, and the lengths in words behind the brevity penalty."""

    scores: tuple[float, float, float, float]
    brevity_penalty: float
    length: int
    reference_length: int


def corpus_bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CorpusBleu:
    """BLEU of tokenised captions: closest reference length, no smoothing, as coco-caption scores."""
    most = max(len(captions) for captions in references)
    # sacrebleu wants one stream for each reference number; None fills up where a picture has fewer.
    streams = [[" ".join(captions[i]) if i < len(captions) else None for captions in references] for i in range(most)]
    metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=MAX_ORDER, force=True)
    total = metric.corpus_score([" ".join(tokens) for tokens in hypotheses], streams)  # type: ignore[arg-type]
    percent = [
        BLEU.compute_bleu(
            total.counts[:n], total.totals[:n], total.sys_len, total.ref_len, smooth_method="none", max_ngram_order=n
        ).score
        for n in range(1, MAX_ORDER + 1)
    ]
    one, two, three, four = (min(value / 100, 1.0) for value in percent)  # rounding can lift 1 a little
    brevity_penalty = 0.0 if total.sys_len == 0 else total.bp
    return CorpusBleu((one, two, three, four), brevity_penalty, total.sys_len, total.ref_len)


class CiderD:
    """CIDEr-D (Vedantam et al. 2015, section 6) against fixed references, which are weighed only once.

    n-gram vectors weighted by inverse document frequency over the pictures, clipped to the reference's counts, with a
    Gaussian penalty on the difference in length; the mean over n = 1..4 and over references, times 10.
    """

    SIGMA = 6.0
    SCALE = 10.0

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        counted = [[_ngrams(tokens) for tokens in captions] for captions in references]
        self._document_frequency = Counter(ngram for captions in counted for ngram in set().union(*captions))
        self._log_pictures = math.log(len(references))
        self._references = [[self._vector(counts) for counts in captions] for captions in counted]

    def score(self, hypotheses: Sequence[Tokens], pictures: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
        """CIDEr-D of each caption, float64 (N,), 0.0-10.0: one caption for each picture, or those of `pictures`."""
        references = self._references if pictures is None else [self._references[i] for i in pictures]
        pairs = zip(hypotheses, references, strict=True)
        return np.array([self._similarity(self._vector(_ngrams(tokens)), captions) for tokens, captions in pairs])

    def _vector(self, counts: Counter[NGram]) -> _Vector:
        weights: list[dict[NGram, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in counts.items():
            rarity = self._log_pictures - math.log(max(1, self._document_frequency[ngram]))
            weights[len(ngram) - 1][ngram] = count * rarity
        norms = [math.sqrt(sum(w * w for w in order.values())) for order in weights]
        # coco-caption measures length in bigrams.
        return _Vector(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))

    def _similarity(self, hypothesis: _Vector, references: list[_Vector]) -> float:
        total = 0.0
        for reference in references:
            matched = 0.0
            for n in range(MAX_ORDER):
                norm = hypothesis.norms[n] * reference.norms[n]
                if norm:
                    theirs = reference.weights[n]
                    clipped = (
                        min(weight, theirs[ngram]) * theirs[ngram]
                        for ngram, weight in hypothesis.weights[n].items()
                        if ngram in theirs
                    )
                    matched += sum(clipped) / norm
            delta = hypothesis.length - reference.length
            total += matched / MAX_ORDER * math.exp(-(delta**2) / (2 * self.SIGMA**2))
        return total / len(references) * self.SCALE


@dataclass(frozen=True)
class _Vector:
    weights: list[dict[NGram, float]]
    norms: list[float]
    length: int


def _ngrams(tokens: Tokens) -> Counter[NGram]:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, MAX_ORDER + 1) for i in range(len(tokens) - n + 1))
