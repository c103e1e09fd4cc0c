"""The learning curves of a training, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imgcap.errors import ImgcapError
from imgcap.files import read_json_lines
from imgcap.model.store import METRICS_FILE
from imgcap.pages.plots import Curve, plot_svg
from imgcap.training.progress import EpochResult

CURVES_FILE = "curves.svg"

_X_LABEL = "epoch"


def learning_curves(folder: Path) -> list[str]:
    """Loss and val scores of each epoch of the model in `folder`, one SVG each; empty if it has no `metrics.jsonl`.

    Raises `ImgcapError` if that file is damaged.
    """
    file = folder / METRICS_FILE
    if not file.is_file():
        return []
    try:
        log = [EpochResult(**row) for _, row in read_json_lines(file)]
        return [plot_svg([panel], _X_LABEL) for panel in _panels(log)]
    except (TypeError, ValueError, LookupError, ArithmeticError):
        raise ImgcapError(f"{file} is damaged.", "Train the model again, or remove the file.") from None


def draw_curves(log: Sequence[EpochResult]) -> str:
    """Loss and val scores of `log` side by side, as SVG."""
    return plot_svg(_panels(log), _X_LABEL)


def _panels(log: Sequence[EpochResult]) -> list[tuple[str, list[Curve]]]:
    epochs = [result.epoch for result in log]
    loss = Curve("loss", epochs, [result.loss for result in log])
    panels = [("Training loss", [loss])]
    scored = [(result.epoch, result.val_cider_d, result.val_bleu[3]) for result in log if result.val_bleu is not None]
    if len(scored) > 1:
        at, cider_d, bleu_4 = zip(*scored, strict=True)
        panels.append(("Val scores", [Curve("CIDEr-D", at, cider_d), Curve("BLEU-4", at, bleu_4)]))
    return panels
