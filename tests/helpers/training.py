"""Listeners that a training reports to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from imgcap.training.progress import EpochResult, SilentListener

CPU = torch.device("cpu")


class Killer(SilentListener):
    """Raises an error in the last step of an epoch, as Ctrl-C or a crash would."""

    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        self.epoch, self.error = epoch, error

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if epoch == self.epoch and step == steps:
            raise self.error


class Recorder(SilentListener):
    """Keeps the plan, and of all epochs the results and whether they were the best so far."""

    def __init__(self) -> None:
        self.plan: list[str] = []
        self.results: list[EpochResult] = []
        self.best: list[bool] = []

    def on_start(self, epochs: int, plan: Sequence[str]) -> None:
        self.plan = list(plan)

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        self.results.append(result)
        self.best.append(best)
