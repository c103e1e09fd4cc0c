"""What a training minimises: the cross-entropy of the next word, or the self-critical loss of whole captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from imgcap.dataset.prepared import Rows
from imgcap.model.decoder import LSTMDecoder, pack
from imgcap.training.batches import Batch
from imgcap.training.self_critical import Reward, sample, self_critical_loss

Objective = Callable[[Tensor, Batch], tuple[Tensor, float]]
"""From the features (R, 2048) of a batch's images, and the batch, to the loss, a scalar, and the value to report."""


class NextWord:
    """Cross-entropy of the next word, averaged over the words."""

    def __init__(self, decoder: nn.Module, label_smoothing: float) -> None:
        self.decoder = decoder
        self.label_smoothing = label_smoothing

    def __call__(self, features: Tensor, batch: Batch) -> tuple[Tensor, float]:
        device = features.device
        logits = self.decoder(features[batch.image.to(device)], batch.ids.to(device), batch.lengths)
        targets = pack(batch.targets, batch.lengths).to(device)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        return loss, loss.item()


class SelfCritical:
    """Self-critical loss of sampled captions; reports the negative mean reward."""

    def __init__(
        self,
        decoder: LSTMDecoder,
        parallel: nn.Module,
        reward: Reward,
        train_rows: Rows,
        samples: int,
        max_length: int,
    ) -> None:
        """Sample from `decoder`, and compute gradients through `parallel`, the same network.

        `reward` numbers images by their place in `train_rows`.
        """
        self.decoder = decoder
        self.parallel = parallel
        self.reward = reward
        self.train_rows = train_rows
        self.samples = samples
        self.max_length = max_length

    def __call__(self, features: Tensor, batch: Batch) -> tuple[Tensor, float]:
        features = features.repeat_interleave(self.samples, 0)
        ids = sample(self.decoder, features.detach(), self.max_length).clone()
        images: Sequence[int] = np.searchsorted(self.train_rows, batch.rows).repeat(self.samples).tolist()
        rewards = self.reward(ids, images).to(features.device)
        loss = self_critical_loss(self.parallel, features, ids, rewards, self.samples)
        return loss, -rewards.mean().item()
