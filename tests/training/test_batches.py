"""Batches: decoded ahead, mirrored at random, with hidden words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from helpers.data import SMALLEST_IMAGE, TINY_TRAINING
from imgcap.dataset.prepared import PreparedFolder
from imgcap.distributed import World
from imgcap.images.decoding import BATCH_SIZE, load_batches
from imgcap.model.decoder import LSTMDecoder
from imgcap.text.vocabulary import PAD, START, UNKNOWN
from imgcap.training.batches import Batch, Part
from imgcap.training.progress import SilentListener
from imgcap.training.trainer import Trainer, train


class FakeFeatures:
    """Features in memory."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        self.values = values

    def __getitem__(self, rows: list[int]) -> npt.NDArray[np.float32]:
        return self.values[rows]


@pytest.mark.parametrize("options", [{}, {"word_dropout": 0.4, "accumulation": 3}])
def test_images_are_decoded_a_few_batches_ahead(
    prepared: PreparedFolder, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Eight copies of the data set are more than is decoded ahead."""
    rows = [row for row in range(len(prepared.records)) if prepared.records[row].split == "train"]
    trainer = Trainer(prepared, replace(TINY_TRAINING, fine_tune_encoder=True, **options), World(), SilentListener())
    batches = trainer.batches
    batches.rows = np.tile(rows, 8)
    made = 0

    def counted(batches: Iterator[Batch]) -> Iterator[Batch]:
        nonlocal made
        for batch in batches:
            made += len(batch.rows)
            yield batch

    whole = list(batches.of_epoch(1))
    assert len(whole) == len(batches)
    parts = batches.with_parts(counted(batches.of_epoch(1)), SMALLEST_IMAGE)
    used = 0
    for expected, (batch, own) in zip(whole, parts, strict=True):
        assert made - used <= 4 * BATCH_SIZE + (TINY_TRAINING.batch_size or 0)
        used += len(batch.rows)
        assert batch.rows == expected.rows
        for name in ("mirrored", "image", "ids", "targets", "lengths"):
            assert np.array_equal(getattr(batch, name), getattr(expected, name))
        for part in own:
            sources = [prepared.image_root / prepared.records[row].path for row in part.batch.rows]
            [pixels] = load_batches(sources, SMALLEST_IMAGE)
            assert part.images is not None
            for ours, expected_pixels in zip(part.images, pixels, strict=True):
                assert isinstance(expected_pixels, np.ndarray)
                assert np.array_equal(ours, expected_pixels)
    assert used == 8 * len(rows) > 4 * BATCH_SIZE + (TINY_TRAINING.batch_size or 0)


def test_word_dropout_hides_words_from_the_decoder_but_not_from_the_loss(
    prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = LSTMDecoder.forward

    def spy(self: LSTMDecoder, features: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        seen.append(ids)
        return forward(self, features, ids, lengths)

    monkeypatch.setattr(LSTMDecoder, "forward", spy)
    train(prepared, replace(TINY_TRAINING, word_dropout=0.4, epochs=4), tmp_path / "model")
    ids = torch.cat([batch.flatten() for batch in seen])
    assert (torch.cat([batch[:, 0] for batch in seen]) == START).all()
    words = ids[(ids != PAD) & (ids != START)]
    assert 0.3 < (words == UNKNOWN).float().mean() < 0.5


def test_mirrored_features_are_seen_half_of_the_time(prepared: PreparedFolder, tmp_path: Path) -> None:
    both = PreparedFolder(prepared.root)
    rows = range(len(both.records))
    both.mirrored = FakeFeatures(-both.features[list(rows)])  # type: ignore[assignment]
    trainer = Trainer(both, replace(TINY_TRAINING, batch_size=1000), World(), SilentListener())
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    several: list[torch.Tensor] = []
    for epoch in range(1, 21):
        (batch,) = trainer.batches.of_epoch(epoch)
        plain = torch.from_numpy(both.features[batch.rows])
        drawn.append((trainer.features(Part(batch, 1.0)), plain))
        several.append((drawn[-1][0] * plain).sum(1).sign())
    signs = torch.cat(several)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.3
    torch.testing.assert_close(drawn[0][0].abs(), drawn[0][1].abs())
