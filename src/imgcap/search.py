"""From a decoder and features to captions: beam search, and greedy search as its beam of one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imgcap.decoder import LSTMDecoder
from imgcap.errors import UsageError
from imgcap.vocabulary import END, PAD, START, UNKNOWN


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

    def __post_init__(self) -> None:
        if not 1 <= self.beam_size <= 1000:
            raise UsageError(f"The beam size must be between 1 and 1000, not {self.beam_size}.")
        if not 0 <= self.length_penalty <= 10:
            raise UsageError(f"The length penalty must be between 0 and 10, not {self.length_penalty}.")
        if not 1 <= self.min_length <= self.max_length <= 1000:
            raise UsageError(
                f"The shortest and longest caption must satisfy 1 <= min <= max <= 1000, not {self.min_length} and "
                f"{self.max_length}."
            )


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: word ids without `<start>` and `<end>`, and the log-probability of words and `<end>`."""

    ids: tuple[int, ...]
    log_probability: float
    score: float
    """What captions are ranked by; see `SearchOptions.length_penalty`."""


@torch.inference_mode()
def search(decoder: LSTMDecoder, features: Tensor, options: SearchOptions) -> list[list[Hypothesis]]:
    """Captions for features (B, 2048), best first, at most `options.beam_size` for each picture.

    Beam search over all pictures at once. A hypothesis that takes `<end>` while it is among the `beam_size` best leaves
    the beam; a picture is done when none that is still alive can overtake its finished ones.
    """
    decoder.eval()
    pictures, beam, device = len(features), options.beam_size, features.device
    words = decoder.config.vocabulary_size
    finished: list[list[Hypothesis]] = [[] for _ in range(pictures)]
    active = list(range(pictures))  # pictures that are still searched, row by row of the tensors below

    state = decoder.start(features)
    state = tuple(s.repeat_interleave(beam, 1) for s in state)  # type: ignore[assignment]  # (1, B * K, hidden)
    ids = torch.full((pictures, beam, 1), START, device=device)  # (B, K, 1 + words so far)
    totals = torch.full((pictures, beam), -torch.inf, device=device)  # (B, K)
    totals[:, 0] = 0  # all hypotheses begin alike, so only the first may branch

    for length in range(options.max_length + 1):
        log_probabilities, state = decoder.step(ids[:, :, -1].flatten(), state)
        log_probabilities[:, [PAD, START, UNKNOWN]] = -torch.inf
        if length < options.min_length:
            log_probabilities[:, END] = -torch.inf
        if length == options.max_length:
            log_probabilities[:, UNKNOWN + 1 :] = -torch.inf
        grown = totals[:, :, None] + log_probabilities.view(len(active), beam, words)  # (B, K, V)
        best, places = grown.flatten(1).topk(2 * beam)  # (B, 2K), at most K of which end: one for each parent
        parents, tokens = places // words, places % words
        ended = tokens == END

        for row, column in (ended & best.isfinite())[:, :beam].nonzero().tolist():
            found = tuple(ids[row, parents[row, column], 1:].tolist())
            total = best[row, column].item()
            finished[active[row]].append(Hypothesis(found, total, total / max(length, 1) ** options.length_penalty))
        if length == options.max_length:
            break

        # The K best that go on.
        order = ended.to(torch.uint8).argsort(dim=1, stable=True)[:, :beam]  # (B, K)
        totals, parents, tokens = (t.gather(1, order) for t in (best, parents, tokens))
        ids = torch.cat([ids.gather(1, parents[:, :, None].expand(-1, -1, ids.shape[2])), tokens[:, :, None]], 2)
        keep = [
            row
            for row, picture in enumerate(active)
            if not _is_done(finished[picture], totals[row].max().item(), options)
        ]
        if not keep:
            break
        rows = torch.tensor(keep, device=device)
        active = [active[row] for row in keep]
        flat = (rows[:, None] * beam + parents[rows]).flatten()
        state = (state[0][:, flat], state[1][:, flat])
        ids, totals = ids[rows], totals[rows]
    return [sorted(found, key=lambda h: -h.score)[:beam] for found in finished]


def _is_done(finished: list[Hypothesis], best_alive: float, options: SearchOptions) -> bool:
    """Whether no living hypothesis can still be ranked among the `beam_size` best."""
    if len(finished) < options.beam_size:
        return best_alive == -torch.inf
    if options.beam_size == 1:
        return True  # greedy search ends with the first `<end>` it takes
    worst_kept = sorted((h.score for h in finished), reverse=True)[options.beam_size - 1]
    # Log-probabilities only fall; the longest caption divides what is left by the most.
    return worst_kept >= best_alive / float(options.max_length**options.length_penalty)
