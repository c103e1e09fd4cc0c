"""What a training reports while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EpochResult:
    """One line of `metrics.jsonl`."""

    epoch: int
    loss: float
    """Mean cross-entropy per word in nats, with label smoothing and dropout; in self-critical training, the negative
    mean reward of the samples."""
    learning_rate: float
    val_cider_d: float
    val_bleu: tuple[float, float, float, float]
    seconds: float

    @property
    def rank(self) -> tuple[float, ...]:
        """Key that the best epoch has the highest of; BLEU breaks ties of CIDEr-D, which small val splits have."""
        return (self.val_cider_d, *reversed(self.val_bleu))


def best_epoch(log: Sequence[EpochResult]) -> EpochResult:
    """The epoch whose weights are kept. Raises `ValueError` if `log` is empty."""
    return max(log, key=lambda result: result.rank)


class Listener(Protocol):
    """Receives the progress of a training."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

    def on_epoch(self, result: EpochResult, best: bool) -> None: ...


class SilentListener:
    """Ignores the progress."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        pass

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        pass
