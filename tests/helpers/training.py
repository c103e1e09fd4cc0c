"""Listeners that a training reports to."""

from __future__ import annotations

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
    """Keeps the results of all epochs."""

    def __init__(self) -> None:
        self.results: list[EpochResult] = []

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        self.results.append(result)
