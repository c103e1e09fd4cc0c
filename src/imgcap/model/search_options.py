"""Options of the search. A module of its own, so that `imgcap --help` has the defaults without importing torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imgcap.errors import UsageError
from imgcap.text.tokenizer import words


@dataclass(frozen=True)
class SearchOptions:
    """How to search for captions. Raises `UsageError` if a value is out of range."""

    beam_size: int = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    length_penalty: float = 0.7
    """Captions are ranked by log-probability / words ** length_penalty: 0 favours short captions, 1 is the mean."""
    max_length: int = 24
    """Maximum number of words in a caption."""
    min_length: int = 1
    """Minimum number of words in a caption."""
    num_captions: int = 1
    """Different captions for each image. The beam is at least this large."""
    sample: bool = False
    """Sample captions from the model's probabilities instead of searching for the best."""
    temperature: float = 1.0
    """Sampling divides log-probabilities by this: below 1 makes captions safer, above 1 more varied."""
    top_p: float = 1.0
    """Sampling draws each word from the most probable ones that together reach this (Holtzman et al. 2020)."""
    seed: int = 0
    """Seed of the samples."""
    ban: tuple[str, ...] = ()
    """Words that never occur in a caption, as the tokeniser writes them."""

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
        """Size of the beam: `beam_size` or, if that is larger, `num_captions`."""
        return max(self.beam_size, self.num_captions)


def _single_word(ban: str) -> str:
    banned = words(ban) if isinstance(ban, str) else []
    if len(banned) != 1:
        raise UsageError(f"Only a single word can be banned, not {ban!r}.", "Ban each word separately.")
    return banned[0]
