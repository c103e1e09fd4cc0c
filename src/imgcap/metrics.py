"""Scores of captions against references: BLEU by sacrebleu in coco-caption's convention, CIDEr-D and ROUGE-L."""

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
RESAMPLES = 1000
"""Draws behind a bootstrap interval."""

Tokens = Sequence[str]
NGram = tuple[str, ...]
Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of a set of captions; all in 0.0-1.0 but CIDEr-D, which is 0.0-10.0 (papers print it times 100)."""

    bleu: tuple[float, float, float, float]
    """BLEU-1 to BLEU-4 over the whole set (Papineni et al. 2002)."""
    cider_d: float
    """Mean over the pictures (Vedantam et al. 2015)."""
    rouge_l: float
    """Mean over the pictures (Lin 2004)."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap interval of `bleu_1` to `bleu_4`, `cider_d` and `rouge_l`: how far they would move with another
    draw of as many pictures."""
    distinct: int
    """Captions that differ from each other."""
    words_used: int
    """Words that differ from each other, in all captions."""
    repeated_words: int
    """Captions in which a word follows itself."""
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
    statistics = _bleu_statistics(hypothesis_tokens, reference_tokens)
    bleu = _bleu(statistics.sum(0))
    cider_d = CiderD(reference_tokens).score(hypothesis_tokens)
    rouge = rouge_l(hypothesis_tokens, reference_tokens)
    counts = [len(captions) for captions in references]
    return Scores(
        bleu=bleu.scores,
        cider_d=float(cider_d.mean()),
        rouge_l=float(rouge.mean()),
        intervals=_intervals(statistics, {"cider_d": cider_d, "rouge_l": rouge}),
        distinct=len(set(map(tuple, hypothesis_tokens))),
        words_used=len({token for tokens in hypothesis_tokens for token in tokens}),
        repeated_words=sum(any(map(str.__eq__, tokens, tokens[1:])) for tokens in hypothesis_tokens),
        brevity_penalty=bleu.brevity_penalty,
        mean_length=bleu.length / len(hypotheses),
        mean_reference_length=bleu.reference_length / len(hypotheses),
        pictures=len(hypotheses),
        references=(min(counts), max(counts)),
        signature=_signature(min(counts), max(counts)),
    )


def _intervals(bleu_statistics: Counts, by_picture: dict[str, Values]) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over the pictures (Efron and Tibshirani 1993): statistics are summed, never scored anew."""
    pictures = len(bleu_statistics)
    draws = np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES)  # (draws, N)
    samples = {name: draws @ values / pictures for name, values in by_picture.items()}
    bleu = np.array([_bleu(row).scores for row in draws @ bleu_statistics])  # (draws, 4)
    samples = {f"bleu_{n}": bleu[:, n - 1] for n in range(1, MAX_ORDER + 1)} | samples
    limits = {name: np.percentile(values, (2.5, 97.5)) for name, values in samples.items()}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


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
    return _bleu(_bleu_statistics(hypotheses, references).sum(0))


def _bleu_statistics(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Counts:
    """What BLEU sums over the pictures, int64 (N, 10): both lengths, then matching and all n-grams for n = 1..4."""
    metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=MAX_ORDER, force=True)
    rows = []
    for tokens, captions in zip(hypotheses, references, strict=True):
        one = metric.corpus_score([" ".join(tokens)], [[" ".join(caption)] for caption in captions])
        rows.append((one.sys_len, one.ref_len, *one.counts, *one.totals))
    return np.array(rows, dtype=np.int64)


def _bleu(statistics: Counts) -> CorpusBleu:
    """BLEU from the sum (10,) of statistics."""
    length, reference_length, *ngrams = statistics.tolist()
    matching, total = ngrams[:MAX_ORDER], ngrams[MAX_ORDER:]
    scored = [
        BLEU.compute_bleu(matching[:n], total[:n], length, reference_length, smooth_method="none", max_ngram_order=n)
        for n in range(1, MAX_ORDER + 1)
    ]
    one, two, three, four = (min(order.score / 100, 1.0) for order in scored)  # rounding can lift 1 a little
    brevity_penalty = 0.0 if length == 0 else scored[0].bp
    return CorpusBleu((one, two, three, four), brevity_penalty, length, reference_length)


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Values:
    """ROUGE-L of each picture's caption, float64 (N,), 0.0-1.0 (Lin 2004), as coco-caption scores.

    The F-measure, with recall weighing 1.2 times, of the longest common subsequence: precision and recall are each the
    best over the references. A caption without words scores 0.0; coco-caption, which reads an empty text as one empty
    word, gives it 1.0 if a reference is empty too.
    """
    beta_squared = 1.2**2
    scores = []
    for tokens, captions in zip(hypotheses, references, strict=True):
        common = [_common_subsequence(tokens, caption) for caption in captions]
        precision = max(common) / max(1, len(tokens))
        recall = max(c / max(1, len(caption)) for c, caption in zip(common, captions, strict=True))
        if precision and recall:
            scores.append((1 + beta_squared) * precision * recall / (recall + beta_squared * precision))
        else:
            scores.append(0.0)
    return np.array(scores)


def _common_subsequence(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence, all of `b` at once in the bits of an integer (Hyyro 2004)."""
    places: dict[str, int] = {}
    for i, token in enumerate(b):
        places[token] = places.get(token, 0) | 1 << i
    everywhere = (1 << len(b)) - 1
    row = everywhere
    for token in a:
        matches = row & places.get(token, 0)
        row = (row + matches) | (row - matches)
    return len(b) - (row & everywhere).bit_count()


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

    def score(self, hypotheses: Sequence[Tokens], pictures: Sequence[int] | None = None) -> Values:
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
