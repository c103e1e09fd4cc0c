"""Everything that a training depends on besides its data. No torch here: `imgcap train --help` reads the defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from imgcap.errors import UsageError, flag, listing
from imgcap.model.search_options import SearchOptions

AUTO, SCRATCH = "auto", "none"
"""Values of `TrainingOptions.start_from` that are not models."""

SEARCH = SearchOptions(beam_size=3)
"""Search of the val captions in a training from random weights."""

_POSITIVE = (
    "epochs",
    "batch_size",
    "accumulation",
    "learning_rate",
    "gradient_clip",
    "embedding_size",
    "hidden_size",
    "min_count",
    "encoder_learning_rate",
)
_SHARES = ("warm_up", "label_smoothing", "dropout", "word_dropout", "average", "weight_decay", "val_share")


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training. Raises `UsageError` for values out of range.

    `settings.complete` replaces None by a value that suits the data.
    """

    epochs: int | None = None
    patience: int | None = None
    """Stop after this many epochs without a better val score, and keep the best epoch; 0 runs all epochs and keeps the
    last, without a need for a val split."""
    batch_size: int | None = None
    """Captions in a batch, or images with `fine_tune_encoder` or `self_critical`; all processes share one batch."""
    accumulation: int = 1
    """Parts in which a process computes its share of a batch, one after the other, to save memory."""
    learning_rate: float | None = None
    """Peak learning rate of the decoder."""
    weight_decay: float = 0.01
    warm_up: float = 0.02
    """Fraction of all steps during which the learning rate rises; it then falls to zero along a cosine."""
    gradient_clip: float = 5.0
    """Largest norm of the gradients of the decoder, and of those of the encoder."""
    label_smoothing: float = 0.1
    dropout: float | None = None
    word_dropout: float = 0.0
    """Fraction of the input words that are replaced by `<unk>` (Bowman et al. 2016)."""
    average: float = 0.0
    """Decay per step of a moving average of the weights; the average is scored and saved (Polyak and Juditsky 1992).
    0 turns it off."""
    embedding_size: int | None = None
    hidden_size: int | None = None
    min_count: int = 3
    """Words that occur less often in the training captions do not enter the vocabulary."""
    fine_tune_encoder: bool = False
    encoder_learning_rate: float = 2e-5
    self_critical: bool = False
    """Learn from the CIDEr-D of sampled captions instead of the next word; needs `start_from`."""
    samples: int = 5
    """Captions that self-critical training samples for each image."""
    start_from: str = AUTO
    """Name or folder of a model whose weights and sizes the training starts from; "none" for random weights. "auto" is
    the default model if the features come from its encoder and no size is given, else "none"."""
    keep_words: bool = False
    """Keep words of the start model that the training captions do not have."""
    seed: int = 0
    val_share: float = 0.0
    """Fraction of the training images to draw a val split from, by image and seed; 0 uses the folder's own split."""
    beam_size: int | None = None
    """Beam size of the search of the val captions, which the finished model uses by default; see `search`."""
    length_penalty: float | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{flag(name)} must be above 0, not {value}.")
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{flag(name)} must be at least 0 and below 1, not {value}.")
        if self.patience is not None and self.patience < 0:
            raise UsageError(f"{flag('patience')} must be at least 0, not {self.patience}.")
        if self.self_critical and self.start_from == SCRATCH:
            raise UsageError("Self-critical training needs a trained model to start from.", "Add --start-from MODEL.")
        if self.samples < 2:
            raise UsageError(f"{flag('samples')} must be at least 2, not {self.samples}.")
        self.search()

    def search(self, own: SearchOptions = SEARCH) -> SearchOptions:
        """The search `own` of the start model, with the beam size and length penalty that are given.

        Raises `UsageError` if one of them is out of range.
        """
        given = {"beam_size": self.beam_size, "length_penalty": self.length_penalty}
        return replace(own, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    @property
    def by_image(self) -> bool:
        """Whether a batch holds images with all their captions, instead of single captions."""
        return self.fine_tune_encoder or self.self_critical

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingOptions:
        """The options that `dataclasses.asdict` turned into `data`, in this version or an earlier one."""
        data = {**data, "start_from": data["start_from"] or SCRATCH}
        if search := data.pop("search", None):
            data |= {name: search[name] for name in ("beam_size", "length_penalty")}
        return cls(**data)


DEFAULTS = TrainingOptions()


def resumed_options(given: TrainingOptions, saved: TrainingOptions) -> TrainingOptions:
    """The options of a resumed training: the saved ones.

    Raises `UsageError` if one of `given` differs from both the saved value and the default.
    """
    changed = [
        each.name
        for each in fields(TrainingOptions)
        if getattr(given, each.name) not in (getattr(saved, each.name), getattr(DEFAULTS, each.name))
    ]
    if changed:
        began = listing([_as_given(name, getattr(saved, name)) for name in changed])
        raise UsageError(
            f"A resumed training keeps its options, but other values are given: {listing(list(map(flag, changed)))}.",
            f"It began {began}. Leave these out, or start a new training in another folder.",
        )
    return saved


def _as_given(name: str, value: object) -> str:
    """An option and its value, in words that follow "It began"."""
    return f"without {flag(name)}" if value in (None, False) else f"with {flag(name)} {value}"
