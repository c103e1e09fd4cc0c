"""Scores of captions against references, for each image and for the whole set."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from imgcap.errors import ImgcapError
from imgcap.scoring.metrics.bleu import bleu, bleu_scores, bleu_statistics, sentence_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.scoring.metrics.ngrams import Tokens
from imgcap.scoring.metrics.rouge import rouge_l
from imgcap.text.tokenizer import tokenize

METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "cider_d": "CIDEr-D",
    "rouge_l": "ROUGE-L",
}
"""Metrics that have an interval, in the order of all tables, and their labels."""

_BLOCK = 8192
"""Images scored at once, which limits memory and fits the cache better."""

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of a set of captions: 0.0-1.0, except CIDEr-D (0.0-10.0), counts and lengths."""

    bleu: tuple[float, float, float, float]
    """BLEU-1 to BLEU-4 over the whole set (Papineni et al. 2002)."""
    cider_d: float
    """Mean over the images (Vedantam et al. 2015); papers print it times 100."""
    rouge_l: float
    """Mean over the images (Lin 2004)."""
    distinct: float
    """Number of different captions."""
    words_used: float
    """Number of different words in all captions."""
    repeated_words: float
    """Share of captions in which a word follows itself."""
    repeated_phrases: float
    """Share of captions that repeat three words in a row."""
    verbatim: float | None
    """Share of captions that are copies of training captions; None if those are not known."""
    brevity_penalty: float
    mean_length: float
    """Mean number of words in a caption."""
    mean_reference_length: float
    """Mean number of words in the references nearest in length, which the brevity penalty uses."""

    @property
    def metrics(self) -> dict[str, float]:
        """The scores in `METRICS`, by name."""
        return dict(zip(METRICS, (*self.bleu, self.cider_d, self.rouge_l), strict=True))

    @classmethod
    def mean(cls, several: Sequence[Scores]) -> Scores:
        """The mean of each score."""
        names = [field.name for field in fields(cls) if field.name not in ("bleu", "verbatim")]
        one, two, three, four = np.mean([scores.bleu for scores in several], axis=0).tolist()
        verbatim = [scores.verbatim for scores in several if scores.verbatim is not None]
        return cls(
            bleu=(one, two, three, four),
            verbatim=float(np.mean(verbatim)) if verbatim else None,
            **{name: float(np.mean([getattr(scores, name) for scores in several])) for name in names},
        )


@dataclass(frozen=True)
class ImageScores:
    """Scores of N images, and the statistics that the scores of the set are computed from."""

    bleu_statistics: Counts
    """(N, 10), as returned by `bleu_statistics`."""
    cider_d: Values
    """(N,), 0.0-10.0; the document frequencies are those of the whole set."""
    rouge_l: Values
    """(N,), 0.0-1.0."""

    def __len__(self) -> int:
        return len(self.cider_d)

    @cached_property
    def bleu_4(self) -> Values:
        """BLEU-4 of each caption alone, (N,), 0.0-1.0, with add-one smoothing of the orders above 1 (Lin and Och 2004,
        "ORANGE"). Without smoothing, most single captions score 0."""
        return sentence_bleu(self.bleu_statistics)

    @cached_property
    def summands(self) -> Values:
        """(N, 12): the sum over images gives the scores of the set (see `metrics_of_sums`)."""
        return np.column_stack([self.bleu_statistics, self.cider_d, self.rouge_l])


def metrics_of_sums(sums: Values, images: int) -> Values:
    """The scores in `METRICS` of M sets of `images` images each, from sums of `summands`: (M, 12) -> (M, 6)."""
    return np.column_stack([bleu_scores(sums[:, :10].round().astype(np.int64)), sums[:, 10:] / images])


def score_images(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> ImageScores:
    """Score one tokenised caption for each image against its tokenised references.

    Raises `ValueError` if the numbers of captions and images differ, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"There are {len(hypotheses)} captions for {len(references)} images with references.")
    cider_d = CiderD(references)
    blocks = []
    for first in range(0, len(hypotheses), _BLOCK):
        images = slice(first, first + _BLOCK)
        pairs = hypotheses[images], references[images]
        numbers = range(len(hypotheses))[images]
        blocks.append((bleu_statistics(*pairs), cider_d.score(pairs[0], numbers), rouge_l(*pairs)))
    return ImageScores(*map(np.concatenate, zip(*blocks, strict=True)))


def summarize(
    hypotheses: Sequence[Tokens], images: ImageScores, training: Container[tuple[str, ...]] | None = None
) -> Scores:
    """Scores of the whole set. `training` holds the tokenised training captions."""
    whole = bleu(images.bleu_statistics.sum(0))
    captions = list(map(tuple, hypotheses))
    count = len(captions)
    return Scores(
        bleu=whole.scores,
        cider_d=float(images.cider_d.mean()),
        rouge_l=float(images.rouge_l.mean()),
        distinct=len(set(captions)),
        words_used=len({token for tokens in captions for token in tokens}),
        repeated_words=sum(any(map(str.__eq__, tokens, tokens[1:])) for tokens in captions) / count,
        repeated_phrases=sum(map(_repeats_a_phrase, captions)) / count,
        verbatim=None if training is None else sum(tokens in training for tokens in captions) / count,
        brevity_penalty=whole.brevity_penalty,
        mean_length=whole.length / count,
        mean_reference_length=whole.reference_length / count,
    )


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Tokenise one caption for each image and its references, and score them.

    Raises `ImgcapError` if the numbers differ, or an image has no reference.
    """
    check_pairs(len(hypotheses), [len(captions) for captions in references])
    tokens = [tokenize(caption) for caption in hypotheses]
    return summarize(tokens, score_images(tokens, [[tokenize(text) for text in texts] for texts in references]))


def check_pairs(hypotheses: int, references: Sequence[int]) -> None:
    """Raise `ImgcapError` unless each image has one hypothesis and at least one reference."""
    if hypotheses != len(references):
        raise ImgcapError(f"There are {hypotheses:,} captions for {len(references):,} images with references.")
    if not hypotheses:
        raise ImgcapError("There are no captions to score.")
    if not all(references):
        raise ImgcapError(f"Image number {references.index(0) + 1} has no reference.")


def _repeats_a_phrase(tokens: tuple[str, ...]) -> bool:
    phrases = [tokens[i : i + 3] for i in range(len(tokens) - 2)]
    return len(set(phrases)) < len(phrases)
