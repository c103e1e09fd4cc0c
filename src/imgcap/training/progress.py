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
    val_cider_d: float | None
    """None if the val split was not captioned after this epoch."""
    val_bleu: tuple[float, float, float, float] | None
    seconds: float


def best_epoch(log: Sequence[EpochResult]) -> EpochResult:
    """The epoch whose weights are kept: that of the best val score, or the last if not all epochs have one.

    BLEU breaks ties of CIDEr-D, which small val splits have. Raises `LookupError` if `log` is empty.
    """
    if not log or any(result.val_cider_d is None for result in log):
        return log[-1]
    return max(log, key=_rank)


def _rank(result: EpochResult) -> tuple[float, ...]:
    return (result.val_cider_d or 0, *reversed(result.val_bleu or ()))


class Listener(Protocol):
    """Receives the progress of a training."""

    def on_start(self, epochs: int, plan: Sequence[str]) -> None:
        """The training is set up, for at most `epochs` epochs; `plan` says in sentences what was chosen."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        """An epoch has ended; `best` says whether it has the best val score so far, if that chooses the epoch."""


class SilentListener:
    """Ignores the progress."""

    def on_start(self, epochs: int, plan: Sequence[str]) -> None:
        pass

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        pass

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        pass
