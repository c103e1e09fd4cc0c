"""The settings that suit a data set: one table by number of training images, for every option that was left open.

`benchmarks/small_data.py` measured it; docs/training.md has the scores.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from imgcap.dataset.splits import FEW_IMAGES
from imgcap.training.options import TrainingOptions


@dataclass(frozen=True)
class Settings:
    """Values of the options of the same names in `TrainingOptions`."""

    epochs: int
    patience: int
    learning_rate: float
    dropout: float

    @classmethod
    def of(cls, options: TrainingOptions) -> Settings:
        """The settings in `options`, which are complete."""
        return cls(**{each.name: getattr(options, each.name) for each in fields(cls)})


FROM_MODEL = {
    FEW_IMAGES: Settings(epochs=10, patience=0, learning_rate=5e-4, dropout=0.3),
    1000: Settings(epochs=10, patience=3, learning_rate=5e-4, dropout=0.3),
    None: Settings(epochs=12, patience=4, learning_rate=5e-4, dropout=0.3),
}
"""Trainings that start from a model, by the number of training images that they have fewer of."""

FROM_SCRATCH = {
    FEW_IMAGES: Settings(epochs=40, patience=0, learning_rate=1e-3, dropout=0.5),
    None: Settings(epochs=80, patience=8, learning_rate=1e-3, dropout=0.5),
}

SELF_CRITICAL = {None: Settings(epochs=80, patience=8, learning_rate=1e-4, dropout=0.5)}

SIZE = 512
"""Size of the embeddings and of the LSTM of a model trained from scratch."""


def complete(options: TrainingOptions, images: int, from_model: bool) -> TrainingOptions:
    """`options` with a value for each that was left open, for a training on `images` images."""
    table = SELF_CRITICAL if options.self_critical else FROM_MODEL if from_model else FROM_SCRATCH
    settings = next(settings for limit, settings in table.items() if limit is None or images < limit)
    left_open = {name: value for name, value in asdict(settings).items() if getattr(options, name) is None}
    return replace(options, **left_open)


def described(options: TrainingOptions, images: int) -> str:
    """What complete `options` mean for a training on `images` images, in one sentence."""
    settings = Settings.of(options)
    epochs = f"{settings.epochs} epoch{'s' * (settings.epochs != 1)}, of which the last is kept"
    if settings.patience:
        epochs = f"at most {settings.epochs} epochs, of which the one with the best val score is kept"
    elif images < FEW_IMAGES:
        epochs += ", because so few images have no val split to spare"
    rate, dropout = f"learning rate {settings.learning_rate:g}", f"dropout {settings.dropout:g}"
    return f"{images:,} training image{'s' * (images != 1)}: {rate}, {dropout}, {epochs}."
