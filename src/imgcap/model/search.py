"""From a decoder and features to captions: beam search, greedy search as its beam of one, and sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imgcap.errors import UsageError
from imgcap.model.decoder import LSTMDecoder, Steps
from imgcap.text.tokenizer import words
from imgcap.text.vocabulary import END, PAD, START, UNKNOWN

_ROUNDS = 5
"""Sampling draws `num_captions` captions of an image this often before it settles for fewer distinct ones."""


@dataclass(frozen=True)
class SearchOptions:
    """How captions are searched. Raises `UsageError` for values that make no sense."""

    beam_size: int = 5
    """Captions kept alive at each step; 1 is greedy search."""
    length_penalty: float = 0.7
    """Captions are ranked by log-probability / words ** length_penalty: 0 favours short ones, 1 is the mean."""
    max_length: int = 24
    """Most words in a caption."""
    min_length: int = 1
    """Fewest words in a caption."""
    num_captions: int = 1
    """Captions of each image, which all differ. Beam search then runs with a beam of at least this size."""
    sample: bool = False
    """Draw captions at random, as the model's probabilities have it, instead of searching for the best."""
    temperature: float = 1.0
    """Sampling divides log-probabilities by this: below 1 it is bolder, above 1 more varied."""
    top_p: float = 1.0
    """Sampling draws each word from the most probable ones that together reach this (Holtzman et al. 2020)."""
    seed: int = 0
    """Another seed draws other samples."""
    ban: tuple[str, ...] = ()
    """Words that are never written; kept as the tokeniser writes them."""

    def __post_init__(self) -> None:
        counts = (self.beam_size, self.max_length, self.min_length, self.num_captions)
        if any(isinstance(count, float) and math.isfinite(count) for count in counts):
            raise UsageError(f"The beam size, the lengths and the number of captions must be whole numbers: {counts}.")
        if not 1 <= self.beam_size <= 1000:
            raise UsageError(f"The beam size must be between 1 and 1000, not {self.beam_size}.")
        if not 0 <= self.length_penalty <= 10:
            raise UsageError(f"The length penalty must be between 0 and 10, not {self.length_penalty}.")
        if not 1 <= self.min_length <= self.max_length <= 1000:
            raise UsageError(
                f"The shortest and longest caption must satisfy 1 <= min <= max <= 1000, not {self.min_length} and "
                f"{self.max_length}."
            )
        if not 1 <= self.num_captions <= 1000:
            raise UsageError(f"The number of captions must be between 1 and 1000, not {self.num_captions}.")
        if not 0.01 <= self.temperature <= 100:
            raise UsageError(f"The temperature must be between 0.01 and 100, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"The option top-p must be above 0 and at most 1, not {self.top_p}.")
        if type(self.seed) is not int or self.seed < 0:
            raise UsageError(f"The seed must be a whole number from 0 on, not {self.seed!r}.")
        bans = (self.ban,) if isinstance(self.ban, str) else self.ban
        object.__setattr__(self, "ban", tuple(_single_word(ban) for ban in bans))

    @property
    def beam(self) -> int:
        """Captions that beam search keeps alive at each step."""
        return max(self.beam_size, self.num_captions)


def _single_word(ban: str) -> str:
    banned = words(ban) if isinstance(ban, str) else []
    if len(banned) != 1:
        raise UsageError(f"Only a single word can be banned, not {ban!r}.", "Ban each word on its own.")
    return banned[0]


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: word ids without `<start>` and `<end>`, and what the model thinks of it."""

    ids: tuple[int, ...]
    word_log_probabilities: tuple[float, ...]
    """Natural logarithm of the model's own probability of each word, and of `<end>` after them: whatever the
    temperature, and not scaled up for words that may not be said."""
    score: float
    """What captions are ranked by; see `SearchOptions.length_penalty`."""

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
    """Captions for features (B, 2048), best first, at most `options.num_captions` for each image.

    Words of `banned_ids` are never said. An image's samples follow from `options.seed` and its own of `image_seeds`,
    integers from 0 on, and not from the other images; None numbers the images from 0.
    """
    decoder.eval()
    never = torch.tensor([PAD, START, UNKNOWN, *banned_ids], device=features.device)
    if options.sample:
        seeds = range(len(features)) if image_seeds is None else image_seeds
        return _sample(decoder, features, options, never, seeds)
    return _beam_search(decoder, features, options, never)


def _beam_search(
    decoder: LSTMDecoder, features: Tensor, options: SearchOptions, never: Tensor
) -> list[list[Hypothesis]]:
    """Beam search over all images at once.

    A hypothesis that takes `<end>` while it is among the K best leaves the beam. One that can no longer be ranked among
    the best finished ones is dropped. That changes no caption, since what it would have kept out of the beam is less
    probable still. An image is done when none is left.
    """
    images, beam, device = len(features), options.beam, features.device
    each = min(2 * beam, decoder.config.vocabulary_size)  # continuations of one hypothesis that can matter
    finished: list[list[Hypothesis]] = [[] for _ in range(images)]
    active = list(range(images))  # images that are still searched, row by row of the tensors below

    read = Steps(decoder, images * beam)
    state = decoder.start(features)  # of the L living hypotheses, in the order of `living` below
    ids = torch.full((images, beam, 1), START, device=device)  # (B, K, 1 + words so far)
    steps = torch.zeros((images, beam, 1), device=device)  # log-probabilities of `ids`
    totals = torch.full((images, beam), -torch.inf, device=device)  # (B, K), -inf for those that are dropped
    totals[:, 0] = 0  # all hypotheses begin alike, so only the first may branch

    for length in range(options.max_length + 1):
        living = totals.isfinite()  # (B, K), L of them
        log_probabilities, state = read(ids[:, :, -1][living], state)  # (L, V)
        _forbid(log_probabilities, length, options, never)
        sums, words = (totals[living][:, None] + log_probabilities).topk(each)  # (L, each)
        best, places = _spread(sums, living, -torch.inf).flatten(1).topk(2 * beam)  # (B, 2K)
        parents, tokens, last = (
            places // each,
            *(_spread(t, living, 0).flatten(1).gather(1, places) for t in (words, log_probabilities.gather(1, words))),
        )
        ended = tokens == END  # at most K of which end: one for each parent

        for row, column in (ended & best.isfinite())[:, :beam].nonzero().tolist():
            parent = parents[row, column]
            said = [*steps[row, parent, 1:].tolist(), last[row, column].item()]
            finished[active[row]].append(_hypothesis(ids[row, parent, 1:].tolist(), said, options))
        if length == options.max_length:
            break

        # The K best that go on.
        order = ended.to(torch.uint8).argsort(dim=1, stable=True)[:, :beam]  # (B, K)
        totals, parents, tokens, last = (t.gather(1, order) for t in (best, parents, tokens, last))
        least = torch.tensor([_least_total(finished[image], options) for image in active], device=device)
        totals = totals.where(totals > least[:, None], -torch.inf)
        keep = totals.isfinite().any(1)
        if not keep.any():
            break
        rows = _spread(torch.arange(len(state[0][0]), device=device)[:, None], living, 0)[:, :, 0].gather(1, parents)
        rows = rows[totals.isfinite()]
        state = (state[0][:, rows], state[1][:, rows])
        ids, steps = _extend(ids, parents, tokens)[keep], _extend(steps, parents, last)[keep]
        totals, active = totals[keep], [active[row] for row in keep.nonzero()[:, 0].tolist()]
    return [_ranked(found)[: options.num_captions] for found in finished]


def _spread(values: Tensor, living: Tensor, otherwise: float) -> Tensor:
    """Of values (L, N) of the living hypotheses (B, K): (B, K, N), with `otherwise` in the places of the others."""
    return values.new_full((*living.shape, values.shape[1]), otherwise).masked_scatter_(living[:, :, None], values)


def _forbid(log_probabilities: Tensor, length: int, options: SearchOptions, never: Tensor) -> None:
    """Set to -inf, in place, what may not follow `length` words: (B, V)."""
    log_probabilities[:, never] = -torch.inf
    if length < options.min_length:
        log_probabilities[:, END] = -torch.inf
    if length == options.max_length:
        log_probabilities[:, UNKNOWN + 1 :] = -torch.inf


def _extend(sequences: Tensor, parents: Tensor, last: Tensor) -> Tensor:
    """Of sequences (B, K, T), those of `parents` (B, K), each followed by its own of `last` (B, K)."""
    kept = sequences.gather(1, parents[:, :, None].expand(-1, -1, sequences.shape[2]))
    return torch.cat([kept, last[:, :, None]], 2)


def _least_total(finished: list[Hypothesis], options: SearchOptions) -> float:
    """What the log-probability of a living hypothesis must exceed for it to end among the `num_captions` best."""
    if len(finished) < options.num_captions:
        return -torch.inf
    if options.beam == 1:
        return torch.inf  # greedy search ends with the first `<end>` it takes
    worst_kept = _ranked(finished)[options.num_captions - 1].score
    # Log-probabilities only fall; the longest caption divides what is left by the most.
    return worst_kept * float(options.max_length**options.length_penalty)


def _hypothesis(ids: list[int], word_log_probabilities: list[float], options: SearchOptions) -> Hypothesis:
    score = sum(word_log_probabilities) / max(len(ids), 1) ** options.length_penalty
    return Hypothesis(tuple(ids), tuple(word_log_probabilities), score)


def _ranked(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


def _sample(
    decoder: LSTMDecoder, features: Tensor, options: SearchOptions, never: Tensor, image_seeds: Sequence[int]
) -> list[list[Hypothesis]]:
    """The first `num_captions` distinct captions that are drawn for each image, fewer if they keep repeating."""
    count = options.num_captions
    distinct: list[dict[tuple[int, ...], Hypothesis]] = [{} for _ in image_seeds]
    for first in range(0, _ROUNDS * count, count):
        lacking = [image for image, found in enumerate(distinct) if len(found) < count]
        if not lacking:
            break
        draws = [(image, first + i) for image in lacking for i in range(count)]
        generators = [np.random.default_rng([options.seed, image_seeds[p], number]) for p, number in draws]
        drawn = _draw(decoder, features[[image for image, _ in draws]], options, never, generators)
        for (image, _), hypothesis in zip(draws, drawn, strict=True):
            distinct[image].setdefault(hypothesis.ids, hypothesis)
    return [_ranked(list(found.values())[:count]) for found in distinct]


def _draw(
    decoder: LSTMDecoder,
    features: Tensor,
    options: SearchOptions,
    never: Tensor,
    generators: list[np.random.Generator],
) -> list[Hypothesis]:
    """One caption for each of features (R, 2048), by its own generator.

    A word is drawn as the largest of its log-probabilities with Gumbel noise (Maddison et al. 2014, "A* Sampling"),
    which a difference in their last bits, as between batches of different size, hardly ever changes.
    """
    drawn: list[tuple[list[int], list[float]]] = [([], []) for _ in generators]
    alive = np.arange(len(generators))  # rows that have not ended
    state, read = decoder.start(features), Steps(decoder, len(features))
    tokens = torch.full((len(generators),), START, device=features.device)
    for length in range(options.max_length + 1):
        log_probabilities, state = read(tokens, state)
        _forbid(log_probabilities, length, options, never)
        log_probabilities = log_probabilities.cpu().double()
        tempered = (log_probabilities / options.temperature).log_softmax(-1)
        noise = np.stack([generators[row].standard_exponential(tempered.shape[1]) for row in alive])
        perturbed = _nucleus(tempered, options.top_p) - torch.from_numpy(noise).log()
        tokens = perturbed.argmax(-1, keepdim=True)  # (R, 1)
        last = log_probabilities.gather(1, tokens)
        for row, [token], [log_probability] in zip(alive, tokens.tolist(), last.tolist(), strict=True):
            drawn[row][0].append(token)
            drawn[row][1].append(log_probability)
        on = (tokens[:, 0] != END).nonzero()[:, 0]
        if not len(on):
            break
        alive, tokens = alive[on.numpy()], tokens[on, 0].to(features.device)
        state = (state[0][:, on], state[1][:, on])
    return [_hypothesis(ids[:-1], said, options) for ids, said in drawn]


def _nucleus(log_probabilities: Tensor, top_p: float) -> Tensor:
    """The fewest words that together reach the probability `top_p`, the others at -inf: (B, V)."""
    if top_p == 1:
        return log_probabilities
    ordered, words = log_probabilities.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return torch.full_like(ordered, -torch.inf).scatter(-1, words, ordered.masked_fill(before >= top_p, -torch.inf))
