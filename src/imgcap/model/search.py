"""Turn features into captions: beam search, greedy search as a beam of one, and sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imgcap.model.decoder import LSTMDecoder, State, Steps
from imgcap.model.search_options import SearchOptions as SearchOptions  # part of this module's interface
from imgcap.text.vocabulary import END, PAD, START, UNKNOWN

_ROUNDS = 5
"""Times that sampling draws `num_captions` captions of an image before it accepts fewer distinct ones."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: word ids without `<start>` and `<end>`, and their probabilities."""

    ids: tuple[int, ...]
    word_log_probabilities: tuple[float, ...]
    """Natural logarithm of the model's probability of each word and of the final `<end>`, unaffected by temperature and
    banned words."""
    score: float
    """Captions are ranked by this; see `SearchOptions.length_penalty`."""

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the probability of the whole caption."""
        return sum(self.word_log_probabilities)


@torch.inference_mode()
def search(
    decoder: LSTMDecoder,
    features: Tensor,
    options: SearchOptions,
    *,
    banned_ids: Sequence[int] = (),
    image_seeds: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Find captions for features (B, 2048), best first, at most `options.num_captions` for each image.

    Words in `banned_ids` never occur. The samples of an image depend on `options.seed` and its entry in `image_seeds`,
    integers from 0, not on the other images; None numbers the images from 0.
    """
    decoder.eval()
    forbidden = torch.tensor([PAD, START, UNKNOWN, *banned_ids], device=features.device)
    if options.sample:
        seeds = range(len(features)) if image_seeds is None else image_seeds
        return _sample(decoder, features, options, forbidden, seeds)
    return _beam_search(decoder, features, options, forbidden)


def _beam_search(
    decoder: LSTMDecoder, features: Tensor, options: SearchOptions, forbidden: Tensor
) -> list[list[Hypothesis]]:
    """Beam search over all images at once (Graves 2012, "Sequence Transduction with Recurrent Neural Networks").

    Shapes: B images whose search goes on, K hypotheses in a beam, L of the B x K alive, T words so far, V words.
    """
    beams = _Beams.start(decoder, features, options.beam)
    finished: list[list[Hypothesis]] = [[] for _ in range(len(features))]
    step = Steps(decoder, len(features) * options.beam)
    for length in range(options.max_length + 1):
        log_probabilities, state = step(beams.last_words(), beams.state)  # (L, V)
        _forbid(log_probabilities, length, options, forbidden)
        expanded = beams.expand(log_probabilities)
        for image, ids, word_log_probabilities in beams.ended(expanded):
            finished[image].append(_hypothesis(ids, word_log_probabilities, options))
        if length == options.max_length:
            break
        thresholds = [_least_total(finished[image], options) for image in beams.images]
        beams = beams.prune(expanded, state, torch.tensor(thresholds, device=features.device))
        if not beams.images:
            break
    return [_ranked(hypotheses)[: options.num_captions] for hypotheses in finished]


class _Expanded(NamedTuple):
    """The 2K best continuations of each beam by one word, best first; each tensor is (B, 2K)."""

    totals: Tensor
    """Log-probabilities of the whole hypotheses."""
    parents: Tensor
    """Places in the beam of the hypotheses that are continued."""
    words: Tensor
    log_probabilities: Tensor
    """Of `words`."""


@dataclass(frozen=True)
class _Beams:
    """The unfinished hypotheses of all images, and how a beam takes a step: expand, take out the ended, prune."""

    images: list[int]
    """Index of the image of each of the B rows."""
    ids: Tensor
    """(B, K, 1 + T), beginning with `<start>`."""
    log_probabilities: Tensor
    """(B, K, 1 + T), of `ids`."""
    totals: Tensor
    """(B, K), their sums; -inf for hypotheses that are pruned, the others are alive."""
    state: State
    """The decoder's state of the L hypotheses that are alive, row by row."""

    @classmethod
    def start(cls, decoder: LSTMDecoder, features: Tensor, beam_size: int) -> _Beams:
        shape, device = (len(features), beam_size), features.device
        totals = torch.full(shape, -torch.inf, device=device)
        totals[:, 0] = 0  # all hypotheses are equal at the start, so only the first one is alive
        return cls(
            images=list(range(len(features))),
            ids=torch.full((*shape, 1), START, device=device),
            log_probabilities=torch.zeros((*shape, 1), device=device),
            totals=totals,
            state=decoder.start(features),
        )

    def last_words(self) -> Tensor:
        """The last word of each hypothesis that is alive, (L,)."""
        return self.ids[:, :, -1][self.totals.isfinite()]

    def expand(self, log_probabilities: Tensor) -> _Expanded:
        """Continue the living hypotheses by the words with these log-probabilities, (L, V)."""
        alive, count = self.totals.isfinite(), 2 * self.totals.shape[1]
        per_hypothesis = min(count, log_probabilities.shape[1])  # continuations of one hypothesis that can matter
        sums, words = (self.totals[alive][:, None] + log_probabilities).topk(per_hypothesis)  # (L, 2K)
        totals, places = _spread(sums, alive, -torch.inf).flatten(1).topk(count)
        return _Expanded(
            totals,
            places // per_hypothesis,
            _spread(words, alive, 0).flatten(1).gather(1, places),
            _spread(log_probabilities.gather(1, words), alive, 0).flatten(1).gather(1, places),
        )

    def ended(self, expanded: _Expanded) -> Iterator[tuple[int, list[int], list[float]]]:
        """Image, words and log-probabilities of the hypotheses that end among the K best continuations."""
        beam_size = self.totals.shape[1]
        ended = (expanded.words == END) & expanded.totals.isfinite()
        for row, column in ended[:, :beam_size].nonzero().tolist():
            parent = expanded.parents[row, column]
            last = expanded.log_probabilities[row, column].item()
            ids, log_probabilities = self.ids[row, parent, 1:], self.log_probabilities[row, parent, 1:]
            yield self.images[row], ids.tolist(), [*log_probabilities.tolist(), last]

    def prune(self, expanded: _Expanded, state: State, thresholds: Tensor) -> _Beams:
        """Keep the K best continuations that do not end, and of those the ones above their image's threshold, (B,).

        `state` is the decoder's after the last words. A hypothesis below the threshold cannot be returned, and what
        it would push out of the beam is less probable still: pruning it changes no caption.
        """
        beam_size = self.totals.shape[1]
        # At most K of the 2K continuations end, one for each parent, so K others are left.
        order = (expanded.words == END).to(torch.uint8).argsort(dim=1, stable=True)[:, :beam_size]
        totals, parents, words, log_probabilities = (tensor.gather(1, order) for tensor in expanded)  # (B, K)
        totals = totals.where(totals > thresholds[:, None], -torch.inf)
        alive, searched = totals.isfinite(), totals.isfinite().any(1)

        numbers = torch.arange(state[0].shape[1], device=totals.device)[:, None]
        parent_states = _spread(numbers, self.totals.isfinite(), 0)[:, :, 0].gather(1, parents)[alive]
        return _Beams(
            images=[self.images[row] for row in searched.nonzero()[:, 0].tolist()],
            ids=_append(self.ids, parents, words)[searched],
            log_probabilities=_append(self.log_probabilities, parents, log_probabilities)[searched],
            totals=totals[searched],
            state=(state[0][:, parent_states], state[1][:, parent_states]),
        )


def _spread(values: Tensor, alive: Tensor, otherwise: float) -> Tensor:
    """Place values (L, N) of the living hypotheses in (B, K, N), with `otherwise` where `alive`, (B, K), is false."""
    return values.new_full((*alive.shape, values.shape[1]), otherwise).masked_scatter_(alive[:, :, None], values)


def _forbid(log_probabilities: Tensor, length: int, options: SearchOptions, forbidden: Tensor) -> None:
    """Set log-probabilities (B, V) of words that may not follow `length` words to -inf, in place."""
    log_probabilities[:, forbidden] = -torch.inf
    if length < options.min_length:
        log_probabilities[:, END] = -torch.inf
    if length == options.max_length:
        log_probabilities[:, UNKNOWN + 1 :] = -torch.inf


def _append(sequences: Tensor, parents: Tensor, last: Tensor) -> Tensor:
    """The sequences, (B, K, T), of `parents`, (B, K), each followed by its value in `last`, (B, K)."""
    kept = sequences.gather(1, parents[:, :, None].expand(-1, -1, sequences.shape[2]))
    return torch.cat([kept, last[:, :, None]], 2)


def _least_total(finished: list[Hypothesis], options: SearchOptions) -> float:
    """The log-probability that an unfinished hypothesis must exceed to end among the `num_captions` best."""
    if len(finished) < options.num_captions:
        return -torch.inf
    if options.beam == 1:
        return torch.inf  # greedy search stops at the first `<end>`
    worst_kept = _ranked(finished)[options.num_captions - 1].score
    # Log-probabilities only fall, and the longest caption divides them by the most.
    return worst_kept * float(options.max_length**options.length_penalty)


def _hypothesis(ids: list[int], word_log_probabilities: list[float], options: SearchOptions) -> Hypothesis:
    score = sum(word_log_probabilities) / max(len(ids), 1) ** options.length_penalty
    return Hypothesis(tuple(ids), tuple(word_log_probabilities), score)


def _ranked(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


def _sample(
    decoder: LSTMDecoder, features: Tensor, options: SearchOptions, forbidden: Tensor, image_seeds: Sequence[int]
) -> list[list[Hypothesis]]:
    """The first `num_captions` distinct samples of each image, fewer if they keep repeating."""
    count = options.num_captions
    distinct: list[dict[tuple[int, ...], Hypothesis]] = [{} for _ in image_seeds]
    for first in range(0, _ROUNDS * count, count):
        incomplete = [image for image, found in enumerate(distinct) if len(found) < count]
        if not incomplete:
            break
        draws = [(image, first + i) for image in incomplete for i in range(count)]
        generators = [np.random.default_rng([options.seed, image_seeds[image], number]) for image, number in draws]
        drawn = _draw(decoder, features[[image for image, _ in draws]], options, forbidden, generators)
        for (image, _), hypothesis in zip(draws, drawn, strict=True):
            distinct[image].setdefault(hypothesis.ids, hypothesis)
    return [_ranked(list(found.values())[:count]) for found in distinct]


def _draw(
    decoder: LSTMDecoder,
    features: Tensor,
    options: SearchOptions,
    forbidden: Tensor,
    generators: list[np.random.Generator],
) -> list[Hypothesis]:
    """Draw one caption for each of features (R, 2048), with its own generator.

    The word with the largest log-probability plus Gumbel noise is drawn (Maddison et al. 2014, "A* Sampling").
    Differences in the last bits, as between batches of different size, hardly ever change it.
    """
    drawn: list[tuple[list[int], list[float]]] = [([], []) for _ in generators]
    unfinished = np.arange(len(generators))  # rows of the captions without `<end>`
    state, step = decoder.start(features), Steps(decoder, len(features))
    words = torch.full((len(generators),), START, device=features.device)
    for length in range(options.max_length + 1):
        log_probabilities, state = step(words, state)
        _forbid(log_probabilities, length, options, forbidden)
        log_probabilities = log_probabilities.cpu().double()
        tempered = (log_probabilities / options.temperature).log_softmax(-1)
        noise = np.stack([generators[row].standard_exponential(tempered.shape[1]) for row in unfinished])
        perturbed = _nucleus(tempered, options.top_p) - torch.from_numpy(noise).log()
        words = perturbed.argmax(-1, keepdim=True)  # (R, 1)
        last = log_probabilities.gather(1, words)
        for row, [word], [log_probability] in zip(unfinished, words.tolist(), last.tolist(), strict=True):
            drawn[row][0].append(word)
            drawn[row][1].append(log_probability)
        going_on = (words[:, 0] != END).nonzero()[:, 0]
        if not len(going_on):
            break
        unfinished, words = unfinished[going_on.numpy()], words[going_on, 0].to(features.device)
        state = (state[0][:, going_on], state[1][:, going_on])
    return [_hypothesis(ids[:-1], log_probabilities, options) for ids, log_probabilities in drawn]


def _nucleus(log_probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the fewest words that together reach the probability `top_p`; set the others to -inf. (B, V) -> (B, V)."""
    if top_p == 1:
        return log_probabilities
    ordered, words = log_probabilities.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return torch.full_like(ordered, -torch.inf).scatter(-1, words, ordered.masked_fill(before >= top_p, -torch.inf))
