"""A fake encoder, and crashes, for preparations that are interrupted."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imgcap.dataset import features, preparation, prepared, unfinished
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.preparation import NamedEncoder, prepare
from imgcap.dataset.prepared import PreparedFolder
from imgcap.images.decoding import Pixels
from imgcap.model.encoder import Encoder, EncoderConfig

IMAGES, BATCH, ROWS = 13, 2, 4
"""13 images in batches of 2; without the 3 broken ones, 10 rows in files of 4."""


BROKEN = (4, 5, 8)
SIDE = 75

Prepare = Callable[..., PreparedFolder]


class Crash(BaseException):
    """Ends a run like a kill: nothing but a test catches it."""


class FakeEncoder(Encoder):
    """Fast features that depend on every pixel; raises `Crash` in call number `crash_at`."""

    def __init__(self, crash_at: int = -1) -> None:
        self.config = EncoderConfig(pixels=SIDE)
        self.crash_at, self.calls = crash_at, 0

    def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
        self.calls += 1
        if self.calls == self.crash_at:
            raise Crash
        flat = torch.from_numpy(np.stack(pixels)).flatten(1).float()
        return flat[:, :2048] + flat.mean(1, keepdim=True)


class NoEncoder(FakeEncoder):
    """Must not be called."""

    def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
        raise AssertionError(f"{len(pixels)} images were encoded")


def rows_in_a_file(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for module in (features, prepared, unfinished):
        monkeypatch.setattr(module, "ROWS_PER_FILE", rows)


def content(folder: Path) -> dict[str, bytes]:
    """Every file in `folder`, hidden ones too, and folders as empty files."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }


def crash_after(done: int) -> Callable[[int, int], None]:
    def on_progress(now: int, _total: int) -> None:
        if now == done:
            raise Crash

    return on_progress


@contextmanager
def crash_at_line(number: int, codes: set[CodeType]) -> Iterator[None]:
    """Raise `Crash` before the `number`-th line that runs in any of `codes`."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if frame.f_code not in codes:
            return None
        if event == "line":
            count += 1
            if count == number:
                raise Crash
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def prepare_and_die(images: str, encoder_file: str, out: str) -> None:
    """Prepare in a process of its own, and end it by SIGKILL in the fourth batch."""
    for module, name, size in (
        *((module, "ROWS_PER_FILE", ROWS) for module in (features, prepared, unfinished)),
        (preparation, "BATCH_SIZE", BATCH),
    ):
        setattr(module, name, size)

    class Dying(FakeEncoder):
        def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(pixels)

    dataset = read_dataset(Path(images), Path(images).parent / "captions.csv")
    prepare(dataset, NamedEncoder("fake", Path(encoder_file), Dying()), Path(out))
