"""Make up concept log-odds for captions that have no image.

The log-odds should look like predictions of a concept layer, errors included. So a caption borrows the log-odds of an
image that shows one of its words (the donor). They are then moved by the difference between what the caption says and
what the donor shows.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

SHOWN = 0.3
"""An image shows a concept if its target is at least this."""
ANY_DONOR = 0.03
"""Share of captions whose donor is any image at all."""
DONOR_CANDIDATES = 6
"""Images drawn among those that show a caption's rarest noun. The one that shows most of its words is the donor."""
INFLUENCE_RIDGE = 5.0
ALWAYS_TOGETHER = 0.7
"""A concept with at least this mean target wherever another one is shown is added to captions that name the other."""
DEFAULT_TARGET = 0.8
"""Typical target of a concept that no image shows."""


class MadeUpConcepts:
    """Log-odds of K concepts for captions without images.

    Args:
        targets: float32 (N, K), how much each of N images shows a concept, 0 to 1.
        logits: float32 (N, K), log-odds of the same images, from a layer that has not seen them.
        nouns: bool (K,), concepts that name a thing; a noun chooses the donor.
    """

    def __init__(self, targets: Tensor, logits: Tensor, nouns: Tensor) -> None:
        self.targets, self.logits, self.nouns = targets, logits, nouns
        shown = targets > SHOWN
        self.donors = [torch.nonzero(shown[:, i])[:, 0].tolist() for i in range(shown.shape[1])]
        together = (targets * shown).T @ targets
        self.implied = together / (targets * shown).sum(0).clamp(min=1)[:, None]
        """(K, K): the mean target of a concept in images that show another."""
        self.implied.fill_diagonal_(1)
        self.typical = targets.new_tensor(
            [targets[rows, i].mean().item() if rows else DEFAULT_TARGET for i, rows in enumerate(self.donors)]
        )
        """(K,): the mean target of a concept in images that show it."""
        with_bias = torch.cat([targets, torch.ones(len(targets), 1)], 1)
        gram = with_bias.T @ with_bias + INFLUENCE_RIDGE * torch.eye(with_bias.shape[1])
        self.influence = torch.linalg.solve(gram, with_bias.T @ logits)[:-1]
        """(K, K): what a concept in an image adds to the log-odds, by ridge regression."""

    def __call__(self, named: list[list[int]], draw: random.Random) -> Tensor:
        """Log-odds (B, K) for B captions, given the concepts that each one names."""
        donors = [self._donor(own, draw) for own in named]
        present = self.targets[donors]
        wanted = present.clone()
        generator = torch.Generator().manual_seed(draw.randrange(2**31))
        keep = torch.rand(present.shape, generator=generator) < 1 - present
        for i, own in enumerate(named):
            expected = self.implied[own].max(0).values if own else torch.zeros(present.shape[1])
            wanted[i] = torch.where(keep[i], present[i], torch.minimum(present[i], expected))
            for concept in own:
                if present[i, concept] < SHOWN:
                    wanted[i, concept] = self.typical[concept]
            if own:
                certain = expected * (expected > ALWAYS_TOGETHER)
                wanted[i] = torch.maximum(wanted[i], certain * self.typical)
        moved: Tensor = self.logits[donors] + (wanted - present) @ self.influence
        return moved

    def _donor(self, named: list[int], draw: random.Random) -> int:
        """Row of the image whose log-odds a caption borrows."""
        possible = [concept for concept in named if self.donors[concept]]
        if not possible or draw.random() < ANY_DONOR:
            return draw.randrange(len(self.targets))
        nouns = [concept for concept in possible if self.nouns[concept]] or possible
        rows = self.donors[min(nouns, key=lambda concept: len(self.donors[concept]))]
        candidates = [rows[draw.randrange(len(rows))] for _ in range(DONOR_CANDIDATES)]
        shown = self.targets[candidates][:, named].sum(1)
        donor: int = candidates[int(shown.argmax())]
        return donor
