"""The settings that suit a data set: one table by number of training images, for every option that was left open.

`benchmarks/small_data.py` measures what it is worth; docs/training.md says what is known.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace

from imgcap.dataset.splits import FEW_IMAGES
from imgcap.training.options import TrainingOptions


@dataclass(frozen=True)
class Settings:
    """Values of the options of the same names in `TrainingOptions`."""

    epochs: int
    """With `patience` 0, for five captions an image; fewer captions mean more epochs, for as many steps."""
    patience: int
    batch_size: int
    learning_rate: float
    dropout: float

    @classmethod
    def of(cls, options: TrainingOptions) -> Settings:
        """The settings in `options`, which are complete."""
        return cls(**{each.name: getattr(options, each.name) for each in fields(cls)})


FROM_MODEL = {
    500: Settings(epochs=12, patience=0, batch_size=32, learning_rate=5e-4, dropout=0.3),
    5000: Settings(epochs=24, patience=0, batch_size=32, learning_rate=5e-4, dropout=0.5),
    None: Settings(epochs=30, patience=8, batch_size=32, learning_rate=5e-4, dropout=0.5),
}
"""Trainings that start from a model, by the number of training images that they have fewer of."""

FROM_SCRATCH = {
    FEW_IMAGES: Settings(epochs=20, patience=0, batch_size=32, learning_rate=1e-3, dropout=0.5),
    None: Settings(epochs=80, patience=8, batch_size=128, learning_rate=1e-3, dropout=0.5),
}

SELF_CRITICAL = {None: Settings(epochs=80, patience=8, batch_size=128, learning_rate=1e-4, dropout=0.5)}

WORTH_TRAINING = 100
"""Training images that made a model better than its start, in the measurements of docs/training.md; 50 did not."""

_CAPTIONS = 5
"""Captions of an image in the data that the table was measured on."""

SIZE = 512
"""Size of the embeddings and of the LSTM of a model trained from scratch."""


def complete(options: TrainingOptions, images: int, captions: int, from_model: bool) -> TrainingOptions:
    """`options` with a value for each that was left open, for a training on so many images and captions."""
    table = SELF_CRITICAL if options.self_critical else FROM_MODEL if from_model else FROM_SCRATCH
    settings = next(settings for limit, settings in table.items() if limit is None or images < limit)
    if not settings.patience:
        settings = replace(settings, epochs=math.ceil(settings.epochs * max(1, _CAPTIONS * images / captions)))
    left_open = {name: value for name, value in asdict(settings).items() if getattr(options, name) is None}
    return replace(options, **left_open)


def described(options: TrainingOptions, images: int, by_table: bool) -> str:
    """What complete `options` mean for a training on `images` images, in one sentence.

    `by_table` says whether the patience follows from the number of images.
    """
    settings = Settings.of(options)
    epochs = f"{settings.epochs} epoch{'s' * (settings.epochs != 1)}, of which the last is kept"
    if settings.patience:
        epochs = f"at most {settings.epochs} epochs, of which the one with the best val score is kept"
    elif by_table:
        epochs += ", because with so few images a val score would choose by chance"
    return (
        f"{images:,} training image{'s' * (images != 1)}: batches of {settings.batch_size}, learning rate "
        f"{settings.learning_rate:g}, dropout {settings.dropout:g}, {epochs}."
    )
