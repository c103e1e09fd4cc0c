"""Make up features for captions that have no image.

A caption borrows the features of an image that shows one of its words (the donor). They are then moved by the
difference between what the caption says and what the donor shows, with a linear map from concepts to features.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from imgcap.model.decoder import MAX_DEVIATIONS

SHOWN = 0.3
"""An image shows a concept if its target is at least this."""
ANY_DONOR = 0.03
"""Share of captions whose donor is any image at all."""
DONOR_CANDIDATES = 12
"""Images drawn among those that show a caption's rarest noun. The one that shows most of its words is the donor."""
INFLUENCE_RIDGE = 5.0
ALWAYS_TOGETHER = 0.7
"""A concept with at least this mean target wherever another one is shown is added to captions that name the other."""
DEFAULT_TARGET = 0.8
"""Typical target of a concept that no image shows."""


class MadeUpFeatures:
    """Features (D values) for captions without images.

    Args:
        targets: float32 (N, K), how much each of N images shows a concept, 0 to 1.
        features: float32 (N, D), standardised features of the same images.
        nouns: bool (K,), concepts that name a thing; a noun chooses the donor.
        donors: bool (N,), images that may be donors.
    """

    def __init__(self, targets: Tensor, features: Tensor, nouns: Tensor, donors: Tensor) -> None:
        self.targets, self.features, self.nouns = targets, features, nouns
        self.any_donor = torch.nonzero(donors)[:, 0].tolist()
        shown = targets > SHOWN
        own = shown & donors[:, None]
        self.donors = [torch.nonzero(own[:, i])[:, 0].tolist() for i in range(shown.shape[1])]
        together = (targets * shown).T @ targets
        self.implied = together / (targets * shown).sum(0).clamp(min=1)[:, None]
        """(K, K): the mean target of a concept in images that show another."""
        self.implied.fill_diagonal_(1)
        seen = shown.sum(0)
        self.typical = torch.where(seen > 0, (targets * shown).sum(0) / seen.clamp(min=1), DEFAULT_TARGET)
        """(K,): the mean target of a concept in images that show it."""
        with_bias = torch.cat([targets, torch.ones(len(targets), 1)], 1)
        gram = with_bias.T @ with_bias + INFLUENCE_RIDGE * torch.eye(with_bias.shape[1])
        self.influence = torch.linalg.solve(gram, with_bias.T @ features)[:-1]
        """(K, D): what a concept in an image adds to the features, by ridge regression."""

    def __call__(self, named: list[list[int]], draw: random.Random) -> Tensor:
        """Features (B, D) for B captions, given the concepts that each one names."""
        donors = [self._donor(own, draw) for own in named]
        present = self.targets[donors]
        wanted = self._with_named(present, named)
        generator = torch.Generator().manual_seed(draw.randrange(2**31))
        keep = torch.rand(present.shape, generator=generator) < 1 - present
        for i, own in enumerate(named):
            expected = self._expected(own)
            unnamed = torch.where(keep[i], present[i], torch.minimum(present[i], expected))
            unnamed[own] = wanted[i, own]
            wanted[i] = torch.maximum(unnamed, expected * (expected > ALWAYS_TOGETHER) * self.typical)
        return self._moved(donors, wanted - present)

    def of_images(self, images: list[int], named: list[list[int]]) -> Tensor:
        """Features (B, D) of images, moved as far as a caption names what the image does not show."""
        present = self.targets[images]
        return self._moved(images, self._with_named(present, named) - present)

    def _with_named(self, present: Tensor, named: list[list[int]]) -> Tensor:
        wanted = present.clone()
        for i, own in enumerate(named):
            for concept in own:
                if present[i, concept] < SHOWN:
                    wanted[i, concept] = self.typical[concept]
        return wanted

    def _expected(self, named: list[int]) -> Tensor:
        """(K,): how much an image with these concepts shows each concept."""
        return self.implied[named].max(0).values if named else torch.zeros(self.targets.shape[1])

    def _moved(self, images: list[int], difference: Tensor) -> Tensor:
        moved: Tensor = self.features[images] + difference @ self.influence
        return moved.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)

    def _donor(self, named: list[int], draw: random.Random) -> int:
        """Row of the image whose features a caption borrows."""
        possible = [concept for concept in named if self.donors[concept]]
        if not possible or draw.random() < ANY_DONOR:
            return int(draw.choice(self.any_donor))
        nouns = [concept for concept in possible if self.nouns[concept]] or possible
        rows = self.donors[min(nouns, key=lambda concept: len(self.donors[concept]))]
        candidates = [rows[draw.randrange(len(rows))] for _ in range(DONOR_CANDIDATES)]
        shown = self.targets[candidates][:, named].sum(1)
        donor: int = candidates[int(shown.argmax())]
        return donor
