"""Score captions, with intervals, floor, ceiling, comparison and a signature that lets others repeat the scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import sacrebleu

from imgcap._version import __version__
from imgcap.scoring.bounds import best_constant, ceiling, floor
from imgcap.scoring.metrics.cider import CiderD
from imgcap.scoring.metrics.ngrams import MAX_ORDER
from imgcap.scoring.resampling import DRAWS, SEED, SHUFFLES, Difference, Interval, compare, intervals, verdict
from imgcap.scoring.scores import ImageScores, Scores, check_pairs, score_images, summarize
from imgcap.text.scripts import unspaced_note
from imgcap.text.tokenizer import TOKENIZER, detokenize, tokenize


@dataclass(frozen=True)
class Comparison:
    """Other captions of the same images, and how the scores differ."""

    name: str
    scores: Scores
    intervals: dict[str, Interval]
    """95 % interval of each of their `METRICS`."""
    images: ImageScores
    differences: dict[str, Difference]
    """Ours - theirs, by the names of `METRICS`."""
    verdict: str


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of captions, and what to compare them with."""

    scores: Scores
    intervals: dict[str, Interval]
    """95 % interval of each of `METRICS` over draws of as many images."""
    images: ImageScores
    floor: Scores
    floor_caption: str
    """The caption given to every image, which scores `floor`."""
    ceiling: Scores | None
    """One person's captions against those of the others; None if an image has a single reference."""
    references: tuple[int, int]
    """Fewest and most references of an image."""
    signature: str
    """Everything needed to repeat the scores."""
    comparison: Comparison | None = None
    remarks: tuple[str, ...] = ()
    """Sentences on what the scores do not say by themselves."""


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    name: str = "captions",
    training: Sequence[Sequence[str]] | None = None,
    constant: str | None = None,
    compared: tuple[str, Sequence[str]] | None = None,
    made_by: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Evaluation:
    """Score one caption for each image.

    `training` holds the captions of each training image, if known. `constant` is the floor's caption; None chooses
    the best of the training captions, or else of the references. `compared` is the name of other captions of the same
    images, and these captions. `made_by` is added to the signature, `remarks` to the remarks. Raises `ImgcapError` if
    the numbers of captions and images differ, or an image has no reference.
    """
    check_pairs(len(hypotheses), [len(captions) for captions in references])
    tokens = [tokenize(caption) for caption in hypotheses]
    reference_tokens = [[tokenize(caption) for caption in captions] for captions in references]
    training_tokens = [[tokenize(caption) for caption in captions] for captions in training or ()]
    known = None if training is None else {tuple(caption) for captions in training_tokens for caption in captions}
    constant_tokens = best_constant(training_tokens or reference_tokens) if constant is None else tokenize(constant)
    images = score_images(tokens, reference_tokens)
    comparison = None
    if compared:
        check_pairs(len(compared[1]), [len(captions) for captions in references])
        their_tokens = [tokenize(caption) for caption in compared[1]]
        theirs = score_images(their_tokens, reference_tokens)
        differences = compare(images, theirs)
        comparison = Comparison(
            name=compared[0],
            scores=summarize(their_tokens, theirs, known),
            intervals=intervals(theirs),
            images=theirs,
            differences=differences,
            verdict=verdict(differences, name, compared[0], len(images)),
        )
    counts = [len(captions) for captions in references]
    return Evaluation(
        scores=summarize(tokens, images, known),
        intervals=intervals(images),
        images=images,
        floor=floor(constant_tokens, reference_tokens, known),
        floor_caption=detokenize(constant_tokens),
        ceiling=ceiling(reference_tokens, known),
        references=(min(counts), max(counts)),
        signature=_signature(references, made_by),
        comparison=comparison,
        remarks=(*remarks, *_remarks(hypotheses, references)),
    )


def _remarks(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    single = (
        "CIDEr-D of a single image is always 0: it weighs words by how few of the images have them, and here every "
        "image has them. Score several images."
    )
    unspaced = unspaced_note([*hypotheses, *chain.from_iterable(references)])
    return [*([single] if len(hypotheses) == 1 else []), *([unspaced] if unspaced else [])]


def _signature(references: Sequence[Sequence[str]], made_by: Sequence[str]) -> str:
    counts = [len(captions) for captions in references]
    number = str(counts[0]) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
    # The order of the images, and of the references of an image, changes no score.
    digest = hashlib.sha256(json.dumps(sorted(map(sorted, references))).encode()).hexdigest()
    parts = [
        *made_by,
        f"images:{len(references)}",
        f"nrefs:{number}",
        f"refs:{digest[:12]}",
        f"case:lc|tok:{TOKENIZER}",
        f"bleu:eff=no,smooth=none,sacrebleu={sacrebleu.__version__}",
        f"cider_d:n={MAX_ORDER},sigma={CiderD.SIGMA:g},idf=refs",
        "rouge_l:beta=1.2",
        f"bootstrap:n={DRAWS},seed={SEED}",
        f"shuffles:n={SHUFFLES},seed={SEED}",
        f"imgcap:{__version__}",
    ]
    return "|".join(parts)
